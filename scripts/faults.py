"""The long sweep: many seeded schedules of faults, each a migration between real servers.

One line a seed, then how often each kind of fault happened, and the seeds in which a promise was
broken; exit code 1 if there are any, or if a kind of fault never happened.  See tests/sweep.py for
what is promised.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.sweep import DIRECTIONS, KINDS, Result, Scenario, Servers, run_seed, serving, sweep


def results(options: argparse.Namespace, servers: Servers, top: Path) -> Iterator[Result]:
    """What the seeds came to, as they end."""
    if options.seed is not None:
        scenario = Scenario.of(options.seed, options.direction)
        if options.verbose:
            print(scenario, file=sys.stderr, flush=True)
        return iter([run_seed(scenario, servers, top, options.verbose)])
    numbers = range(options.first, options.first + options.seeds)
    scenarios = (Scenario.of(seed, options.direction) for seed in numbers)
    return sweep(scenarios, servers, top, options.parallel)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many [100]")
    parser.add_argument("--first", type=int, default=0, metavar="M", help="the first of them [0]")
    parser.add_argument("--seed", type=int, metavar="N", help="only this one")
    parser.add_argument("--direction", choices=DIRECTIONS, default="", help="all seeds in this one")
    parser.add_argument("--parallel", type=int, default=12, metavar="N", help="at a time [12]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where files are, and stay")
    parser.add_argument("-v", "--verbose", action="store_true", help="print what adsmig says")
    options = parser.parse_args()
    began, fired, wrong, count = time.monotonic(), Counter[str](), list[Result](), 0
    with ExitStack() as stack:
        top = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory("-faults")))
        servers = stack.enter_context(serving(top))
        for result in results(options, servers, top):
            count += 1
            fired += result.fired
            verdict = "WRONG" if result.wrong else "ok"
            total = result.fired.total()
            print(f"{verdict:5} {result.seconds:5.1f} s {total:4} faults  {result.scenario}")
            if result.wrong:
                wrong.append(result)
                print("\n".join(f"      {line}" for line in (*result.runs, result.wrong)))
            sys.stdout.flush()
    print(f"\n{count} seeds in {time.monotonic() - began:.0f} s, {fired.total():,} faults:")
    for kind in KINDS:
        print(f"  {kind:14} {fired[kind]:6,}")
    never = [kind for kind in KINDS if not fired[kind]]
    if options.seed is None and not options.direction and never:
        print(f"never happened: {', '.join(never)}")
    else:
        never = []
    print(f"promises broken in {len(wrong)} of {count}: {sorted(one.seed for one in wrong)}")
    return 1 if wrong or never else 0


if __name__ == "__main__":
    sys.exit(main())
