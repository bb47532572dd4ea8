"""The plan and the hyperparameters that all candidates of a campaign share: ``campaign run --plan`` and ``--prm``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.assembly.plan_toml import preset
from nngen.campaign.selection import source_of
from nngen.campaign_spec import CampaignSpec, shown
from nngen.errors import PlanError, UsageError
from nngen.families.hyperparameters import best_hyperparameters, with_hyperparameters
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.testing.fakes import fake_campaign, fake_record
from nngen.types import Interface

WIDE = Plan(experts=(), gate=Gate(width=64), losses=Losses(label_smoothing=0.0), recipe=Recipe(mixup=0.0))


def test_every_candidate_has_the_plan_of_the_campaign():
    with Archive.in_memory() as archive:
        fake_campaign(archive, plan=WIDE).run()
        trials = archive.trials("one")
        assert len(trials) == 6
        assert {replace(trial.plan, experts=()) for trial in trials} == {WIDE}
        assert archive.campaign("one").spec.plan == WIDE
        families = fake_campaign(archive, plan=WIDE).baselines()
        families.run()
        assert {trial.plan.recipe.mixup for trial in archive.trials(families.spec.name)} == {0.0}


def test_a_sampler_that_learns_keeps_the_plan_and_reads_results_of_that_plan_only():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=12).run()
        fake_campaign(archive, name="two", sampler="adaptive", size=4, plan=WIDE).run()
        fake_campaign(archive, name="three", sampler="adaptive", size=4).run()
        assert {replace(trial.plan, experts=()) for trial in archive.trials("two")} == {WIDE}
        explored = [
            [flag for event in archive.events(name) for flag in event.detail.get("explored", ())]
            for name in ("two", "three")
        ]
    assert all(explored[0][:2])
    assert not all(explored[1])


def test_a_campaign_goes_on_with_its_plan_and_refuses_another():
    with Archive.in_memory() as archive:
        fake_campaign(archive, plan=WIDE).run()
        narrow = replace(WIDE, gate=Gate(width=16))
        with pytest.raises(UsageError, match=r"began with --plan gate.width 64, .*, not --plan gate.width 16, losses"):
            fake_campaign(archive, plan=narrow).run()
        with pytest.raises(UsageError, match=r"not --plan \(default\)"):
            fake_campaign(archive).run()
        fake_campaign(archive, plan=WIDE, size=8).run()
        assert {replace(trial.plan, experts=()) for trial in archive.trials("one")} == {WIDE}


@pytest.mark.parametrize("plan", [Plan(experts=()), WIDE])
def test_a_stored_campaign_has_its_plan(plan):
    spec = fake_record(plan=plan).spec
    assert CampaignSpec.from_dict(spec.to_dict()) == spec
    before = {name: value for name, value in spec.to_dict().items() if name != "plan"}
    assert CampaignSpec.from_dict(before).plan == Plan(experts=())
    assert shown(Plan(experts=())) == "(default)"
    assert (shown({}), shown({"dropout": 0.4})) == ("(none)", "dropout=0.4")


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (preset("moev7"), "a campaign draws four families, and kind homogeneous does not take them"),
        (Plan(experts=(), kind="single"), "kind single does not take them"),
        (replace(WIDE, recipe=Recipe(frozen=True)), "nngen surrogate gates --train"),
        (replace(WIDE, gate=Gate(routing="top-k", k=4)), "gate.k is 4: it must lie between 1 and 3"),
        (replace(WIDE, gate=Gate(width=1)), "gate.width is 1"),
    ],
)
def test_a_plan_that_no_quartet_can_have_is_refused_at_once(plan, reason):
    with pytest.raises(PlanError, match=reason):
        source_of(fake_record(plan=plan).spec)


def test_the_command_reads_a_file_or_a_preset(nngen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tokens, words in (
        (("--plan", "moev7"), "kind homogeneous does not take them"),
        (("--plan", "none.toml"), "cannot read the plan none.toml"),
        (("--plan", "wide.toml"), "gate.width is 1: it must lie between 2 and 4096"),
        (("--prm", "dropout"), "'dropout' is not NAME=VALUE"),
    ):
        (tmp_path / "wide.toml").write_text("[gate]\nwidth = 1\n")
        result = nngen("campaign", "run", "x", "--size", "4", *tokens)
        assert (result.code, len(result.err.splitlines())) == (2, 1)
        assert words in result.err
    assert not (tmp_path / "nngen.db").exists()


def test_families_are_built_with_the_hyperparameters_asked_for(families):
    pool = [families[name] for name in ("AirNet", "AlexNet", "BagNet", "DPN68")]
    with_dropout = [name for name in pool if "dropout" in best_hyperparameters(name)]
    assert 0 < len(with_dropout) < 4
    changed = with_hyperparameters(pool, {"dropout": 0.4375})
    for old, new in zip(pool, changed, strict=True):
        expected = best_hyperparameters(old) | ({"dropout": 0.4375} if old in with_dropout else {})
        assert best_hyperparameters(new) == expected
    assembler = Assembler()
    plan = Plan(experts=tuple(family.name for family in pool))
    for chosen, times in ((pool, 0), (changed, len(with_dropout))):
        source = assembler.assemble(plan, [(family, Interface(low=32)) for family in chosen]).source
        assert source.count("0.4375") == times


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"dropuot": 0.1}, "no family of the pool has a hyperparameter 'dropuot': did you mean dropout"),
        ({"dropout": 5}, "--prm dropout=5: dropout lies between 0.0 and 1.0"),
        ({"lr": 0.1}, "--prm lr: a mixture takes it from --lr"),
        ({"epoch": 3}, "--prm epoch: a mixture takes it from --epochs"),
    ],
)
def test_hyperparameters_that_change_nothing_are_refused(families, values, reason):
    with pytest.raises(UsageError, match=reason):
        with_hyperparameters(families.values(), values)
