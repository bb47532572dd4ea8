"""Inputs of campaigns: which families are measured, left out or refused, and what a campaign that goes on keeps."""

from types import SimpleNamespace

import pytest

from nngen.campaign import setup
from nngen.campaign.setup import prepare, prepare_inputs
from nngen.errors import FamilyError, PlanError, UsageError
from nngen.plan import Plan
from nngen.testing.fakes import fake_dataset, fake_families, fake_record
from nngen.types import Shape

LEMUR, DATA, SHAPE = SimpleNamespace(), fake_dataset(classes=7), Shape(1, 8, 8)


def report(done, total):
    raise AssertionError


@pytest.fixture
def measured(monkeypatch):
    """Stand in for LEMUR with the families A to G, of which F and G cannot be used; returns what was measured."""
    known, asked = fake_families("ABCDEFG"), []

    def load_families(lemur, places):
        assert lemur is LEMUR and tuple(places) in ((), ("mine.py",))
        more = {"H": known["A"][0]} if places else {}
        return {name: family for name, (family, _) in known.items()} | more

    def usable_families(families, shape, **options):
        names = [family.name for family in families]
        asked.append((names, shape, options))
        refused = {name: "too deep" for name in names if name in "FG"}
        return {name: known[name] for name in names if name not in refused}, refused

    monkeypatch.setattr(setup, "load_families", load_families)
    monkeypatch.setattr(setup, "usable_families", usable_families)
    return asked


def test_all_families_are_measured_unless_some_are_named(measured):
    options = {"classes": 7, "progress": None, "wanted": "auto"}
    inputs = prepare_inputs(DATA, SHAPE, lemur=LEMUR)
    assert (sorted(inputs.families), inputs.left_out) == (list("ABCDE"), {"F": "too deep", "G": "too deep"})
    assert inputs.dataset is DATA
    assert (inputs.start, inputs.experts) == (None, {})
    inputs = prepare_inputs(DATA, SHAPE, ("D", "A", "C", "B"), lemur=LEMUR, progress=report, wanted="sandbox")
    assert (sorted(inputs.families), inputs.left_out) == (list("ABCD"), {})
    assert measured == [
        (list("ABCDEFG"), SHAPE, options),
        (list("DACB"), SHAPE, options | {"progress": report, "wanted": "sandbox"}),
    ]


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("ABC", FamilyError, "the pool has only 3 families, and a mixture takes 4: name more"),
        (
            "ABCFG",
            FamilyError,
            r"only 3 of 5 families can be used at 1x8x8 \(F: too deep; G: too deep\)",
        ),
        ("ABCX", FamilyError, "no family is called 'X'"),
        ("AABC", FamilyError, "family A is named twice"),
    ],
)
def test_fewer_than_four_families_make_no_mixture(measured, names, error, message):
    with pytest.raises(error, match=message):
        prepare_inputs(DATA, SHAPE, tuple(names), lemur=LEMUR)


def test_hyperparameters_that_no_family_has_are_refused(measured):
    with pytest.raises(UsageError, match="no family of the pool has a hyperparameter 'dropout': there are none"):
        prepare_inputs(DATA, SHAPE, lemur=LEMUR, hyperparameters={"dropout": 0.5})
    with pytest.raises(UsageError, match="hyperparameter 'dropout'"):
        prepare(fake_record(hyperparameters={"dropout": 0.5}).spec, DATA, lemur=LEMUR)
    assert measured == []


def test_a_campaign_that_begins_has_the_families_of_its_specification(measured):
    spec = fake_record(families=tuple("ABCDEF"), size=5).spec
    inputs = prepare(spec, DATA, lemur=LEMUR, families_from=["mine.py"], progress=report, wanted="process")
    assert (sorted(inputs.families), inputs.left_out) == (list("ABCDE"), {"F": "too deep"})
    assert measured == [(list("ABCDEF"), SHAPE, {"classes": 7, "progress": report, "wanted": "process"})]


@pytest.mark.parametrize(
    ("changes", "error", "message", "measurements"),
    [
        ({"size": 6}, UsageError, "6 quartets were asked for, but 5 families make only 5", 1),
        ({"sampler": "randm"}, UsageError, "did you mean random", 0),
        ({"plan": Plan(experts=(), kind="single")}, PlanError, "kind single", 0),
        (
            {"plan": Plan(experts=(), rates=(("A", 0.1), ("AB", 0.1)))},
            UsageError,
            r"the plan's \[rates\] name AB, which is not in the pool: did you mean",
            1,
        ),
        ({"sampler": "alone"}, UsageError, "families alone are trained by nngen campaign run CAMPAIGN --baselines", 0),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_families_are_measured(
    measured, changes, error, message, measurements
):
    with pytest.raises(error, match=message):
        prepare(fake_record(**changes).spec, DATA, lemur=LEMUR)
    assert len(measured) == measurements


def test_a_campaign_that_goes_on_without_its_own_families_names_the_flag(measured):
    stored = fake_record(pool=(*"ABCD", "H", "I"))
    with pytest.raises(FamilyError) as refused:
        prepare(stored.spec, DATA, stored, lemur=LEMUR)
    assert str(refused.value) == (
        f"campaign {stored.name} has H and I in its pool, not found here: add --families-from PLACE"
    )
    assert measured == []


def test_a_campaign_that_goes_on_keeps_its_pool_and_the_reasons(measured):
    stored = fake_record(pool=dict.fromkeys("ABCDF", "x"), left_out={"E": "long ago"}, size=99)
    inputs = prepare(stored.spec, DATA, stored, lemur=LEMUR, families_from=["mine.py"], progress=report, wanted="jail")
    assert (sorted(inputs.families), inputs.left_out) == (list("ABCD"), {"E": "long ago"})
    assert inputs.dataset is DATA
    assert measured == [(list("ABCDF"), SHAPE, {"classes": 7, "progress": report, "wanted": "jail"})]
