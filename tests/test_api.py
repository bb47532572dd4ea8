"""Public functions: the isolation level that a caller asks for reaches everything that runs code."""

from __future__ import annotations

from typing import Any

import pytest

from nngen import api
from nngen.archive import Archive
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign_spec import CampaignSpec
from nngen.errors import FamilyError
from nngen.families.catalogue import make_family
from nngen.testing.fakes import FakeEngine, fake_inputs
from nngen.types import Shape


def test_level_asked_for_reaches_measurements_and_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def prepare(*_: Any, wanted: str, **__: Any) -> CampaignInputs:
        asked.append(wanted)
        return fake_inputs()

    monkeypatch.setattr(api, "prepare_inputs", prepare)
    monkeypatch.setattr(api, "open_lemur", lambda: None)
    spec = CampaignSpec(name="one", size=1, dataset="digits", shape=Shape(1, 8, 8))
    with Archive.in_memory() as archive:
        made = [api.prepare_campaign(spec, archive, FakeEngine(), **more) for more in ({}, {"isolation": "process"})]
    assert asked == [campaign.isolation for campaign in made] == ["auto", "process"]


def test_families_of_a_mixture_are_measured_at_the_level_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def usable(_families: Any, _shape: Shape, *, wanted: str) -> tuple[dict[str, Any], dict[str, str]]:
        asked.append(wanted)
        return {}, {"A": "not measured"}

    monkeypatch.setattr(api, "usable_families", usable)
    known = {name: make_family(name, "class Net: ...\n") for name in "ABCD"}
    for more in ({}, {"isolation": "process"}):
        with pytest.raises(FamilyError, match="A cannot be used at 3x32x32: not measured"):
            api.assemble("ABCD", families=known, **more)
    assert asked == ["auto", "process"]
