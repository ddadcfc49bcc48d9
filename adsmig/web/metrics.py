"""The figures of jobs as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from adsmig.web.jobs import Summary

NAMES = ("job", "source", "destination")


class JobFigures(Collector):
    """A sample for each job of each figure.  Counters are of all runs together."""

    def __init__(self, jobs: Iterable[Summary]) -> None:
        self._jobs = [job for job in jobs if job.state != "unreadable"]

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        counters = {
            "adsmig_found_objects": ("Objects found.", "found"),
            "adsmig_found_bytes": ("Bytes found.", "found_bytes"),
            "adsmig_copied_objects": ("Objects copied.", "copied"),
            "adsmig_copied_bytes": ("Bytes copied.", "copied_bytes"),
            "adsmig_unchanged_objects": ("Objects found unchanged.", "unchanged"),
            "adsmig_deleted_objects": ("Objects deleted.", "deleted"),
        }
        for name, (text, field) in counters.items():
            counter = CounterMetricFamily(name, text, labels=NAMES)
            for job in self._jobs:
                counter.add_metric(_labels(job), getattr(job.total, field))
            yield counter
        gauges = {
            "adsmig_failures": ("Objects that failed in the last run.", _failed),
            "adsmig_running": ("Whether a process works on the job.", _running),
            "adsmig_bytes_per_second": ("Bytes a second, just now.", _bytes),
            "adsmig_objects_per_second": ("Objects a second, just now.", _objects),
            "adsmig_last_success_timestamp_seconds": (
                "When the last run ended that copied everything.",
                _success,
            ),
            "adsmig_last_start_timestamp_seconds": ("When the last run began.", _start),
        }
        for name, (text, value) in gauges.items():
            gauge = GaugeMetricFamily(name, text, labels=NAMES)
            for job in self._jobs:
                if (known := value(job)) is not None:
                    gauge.add_metric(_labels(job), known)
            yield gauge
        shards = GaugeMetricFamily(
            "adsmig_shards", "Ranges of keys of the last run.", labels=[*NAMES, "state"]
        )
        for job in self._jobs:
            for state, count in job.shards.items():
                shards.add_metric([*_labels(job), state], count)
        yield shards


def _labels(job: Summary) -> list[str]:
    return [job.name, job.src, job.dst]


def _failed(job: Summary) -> float:
    return job.counts.failed


def _running(job: Summary) -> float:
    return float(job.active)


def _bytes(job: Summary) -> float:
    return job.rate.bytes


def _objects(job: Summary) -> float:
    return job.rate.objects


def _success(job: Summary) -> float | None:
    return job.last_success


def _start(job: Summary) -> float | None:
    return job.run.started if job.run else None
