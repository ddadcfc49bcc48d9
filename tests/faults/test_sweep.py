"""A migration for each kind of fault, and a short sweep; ``scripts/faults`` runs long ones."""

from __future__ import annotations

from pathlib import Path

from tests.sweep import KINDS, Scenario, serving, sweep


def test_whatever_goes_wrong_nothing_is_lost(tmp_path: Path) -> None:
    """Each kind of fault really happens; all at a time, for most of it is waiting."""
    scenarios = [Scenario.about(kind) for kind in KINDS]
    wrong, never = [], []
    with serving(tmp_path) as servers:
        for result in sweep(scenarios, servers, tmp_path, parallel=6):
            if result.wrong:
                wrong.append("\n  ".join([result.scenario, *result.runs, result.wrong]))
            if not result.fired[KINDS[result.seed]]:
                never.append(result.scenario)
    assert not wrong, "\n".join(wrong)
    assert not never, "\n".join(never)
