"""Hand-made results for tests of figures, and figures drawn from them as for a paper."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from nngen.analysis.effects import Effects, FamilyEffect, PairEffect, PairKind
from nngen.analysis.pdf_figures import _DRAWINGS, _STYLE
from nngen.analysis.ranking.rows import Row
from nngen.analysis.statistics import Interval, Rate
from nngen.archive import Archive
from nngen.testing.fakes import fake_campaign
from nngen.types import EpochResult


def rows(count, half=None):
    return [
        Row(
            rank=place,
            id=f"MoE4-{place}",
            experts=("A", f"<{place}>"),
            dataset="digits",
            data="d",
            shape="1x8x8",
            epochs=1,
            batch=2,
            lr=0.1,
            momentum=0.9,
            seeds=1,
            validation_accuracy=1 - place / 100,
            validation_std=None,
            validation_half=half,
            test_accuracy=None,
            seconds=1.0,
            parameters=1,
        )
        for place in range(1, count + 1)
    ]


def interval(effect, low, high, p):
    return Interval(effect=effect, low=low, high=high, p=p, p_adjusted=p)


def family(name, found, point=None, together=()):
    return FamilyEffect(
        family=name,
        quartets=3,
        point=found.effect if found else point,
        interval=found,
        together_with=together,
        reason="",
        success=Rate(successes=1, tries=1, rate=1.0, low=0.0, high=1.0),
    )


FAMILIES = (
    family("A", interval(0.02, 0.01, 0.05, 0.049), together=("E",)),
    family("B", interval(0.01, -0.01, 0.03, 0.05)),
    family("C", None, point=0.0),
    family("D", interval(-0.03, -0.04, -0.01, 0.001)),
    family("F", None),
)
PAIRS = (
    PairEffect(families=("A", "B"), quartets=7, interval=interval(0.02, 0.01, 0.04, 0.01), kind=PairKind.SYNERGY),
    PairEffect(families=("B", "D"), quartets=2, interval=interval(-0.01, -0.06, 0.04, 0.9), kind=PairKind.UNCLEAR),
)
EFFECTS = Effects(
    trials=9,
    quartets=9,
    trained=9,
    seeds=1,
    mean_accuracy=0.5,
    families=FAMILIES,
    pairs=PAIRS,
    seed_sd=None,
    quartet_sd=0.1,
    pair_sd=0.1,
    df=3,
    confidence=0.95,
    needed=None,
    reliability=None,
    notes=(),
)


def trained_trials():
    """Return fifteen trained trials of two epochs, worst first; number 0 is the best."""
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=1).run()
        model = archive.trials("one")[0]

    def make(place, accuracy):
        ends = (0.1, accuracy)
        curve = tuple(
            EpochResult(epoch=epoch, validation_accuracy=end, usage=(0.4, 0.3, 0.2, 0.1))
            for epoch, end in enumerate(ends, start=1)
        )
        return replace(model, id=place, candidate_id=f"MoE4-{place:032}", validation_accuracy=accuracy, curve=curve)

    return [make(place, 0.9 - place / 100) for place in range(15)][::-1]


def drawn(name, **content):
    """Draw a figure for a paper; return it and its axes."""
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    with pytest.importorskip("matplotlib").rc_context(_STYLE):
        _DRAWINGS[name](SimpleNamespace(**content), figure)
    return figure, figure.axes[0]


def approx(values):
    return [pytest.approx(value) for value in values]
