"""Every decision of whole campaigns, compared with those of earlier versions, which began archives that go on today.

``python tests/campaign/test_decisions.py`` writes the decisions of this version; the difference shows what changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nngen.archive import Archive
from nngen.campaign.budget import Budget
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.types import Outcome

FILE = Path(__file__).with_name("decisions.json")
STEPS = {"size": 12, "epochs": 9, "rungs": (1, 3, 9)}
MANY = {"inputs": fake_inputs("ABCDEFGH")}

# On a card no trial is prepared beside another one, so that the order of all events is certain.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "random, some fail": [
        {
            "size": 14,
            "sampler": "random",
            "seed": 3,
            "engine": FakeEngine(checks={"A": Outcome.SHAPE}, trials={"C": Outcome.MEMORY}),
        }
    ],
    "halving with finalists": [STEPS | {"finalists": 2, "replicates": 3}],
    "rungs that go on": [STEPS | {"rungs_continue": True}],
    "asha": [STEPS | {"scheduler": "asha"}],
    "adaptive": [{"size": 10, "sampler": "adaptive", "inputs": fake_inputs("ABCDEFGHIJ")}],
    "stopped early": [{"size": 25, "epochs": 8, "rungs": (4, 8), "reduction_factor": 5, "stop_early": True}],
    "a budget, then more": [{"budget": Budget(max_trials=3)}, {"budget": Budget(max_trials=5)}, {"budget": Budget()}],
    "known ones, low yield": [
        MANY | {"size": 30, "engine": FakeEngine(checks={"G": Outcome.SHAPE})},
        MANY | {"name": "two", "size": 4, "skip_known": True, "exclude_low_yield": True},
        MANY | {"name": "two", "size": 8, "skip_known": True, "exclude_low_yield": True},
    ],
    "the same work again": [{}, {"name": "two", "sampler": "random", "size": 8}],
}


def decisions(variant: str) -> Iterator[str]:
    """Run the campaigns of a variant; yield the events of its archive, and its trials."""
    with Archive.in_memory() as archive:
        for changes in VARIANTS[variant]:
            fake_campaign(archive, **{"device": "cuda"} | changes).run()
        for event in archive.events():
            if event.kind not in ("budget.clock", "trial.epoch", "trial.started"):
                detail = {key: value for key, value in event.detail.items() if key != "used"}
                yield f"{event.campaign} {event.kind} {event.trial_id or ''} {json.dumps(detail)}"
        for trial in archive.trials():
            seed = trial.spec.seed if trial.spec else None
            result = (trial.copied_from, trial.suspect, trial.test_accuracy)
            yield f"{trial.id} {''.join(trial.experts)} {seed} {result}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_campaign_decides_as_before(variant: str) -> None:
    assert list(decisions(variant)) == json.loads(FILE.read_text())[variant]


if __name__ == "__main__":
    found = {variant: list(decisions(variant)) for variant in VARIANTS}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
