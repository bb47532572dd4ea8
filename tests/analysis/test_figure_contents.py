"""Numbers, words and sizes of the report's figures, for hand-made results."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nngen.analysis.effects import Effects, FamilyEffect, PairEffect, PairKind
from nngen.analysis.figures import (
    COLOURS,
    SHOWN,
    best_curves,
    coverage_figure,
    curves_figure,
    drawn_curves,
    effects_figure,
    family_figure,
    gate_figure,
    label,
    pair_figure,
    ranking_figure,
    sign_of,
    whole_step,
)
from nngen.analysis.leaderboard import Row
from nngen.analysis.pdf_figures import _DRAWINGS
from nngen.analysis.results import FamilyRow, Funnel
from nngen.analysis.statistics import Interval, Rate
from nngen.archive import Archive
from nngen.space import coverage
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


def layout(figure):
    return json.loads(figure)["layout"]


def approx(values):
    return [pytest.approx(value) for value in values]


@pytest.mark.parametrize(("largest", "step"), [(1, 1), (8, 1), (11, 1), (20, 2), (80, 10), (1000, 125)])
def test_axes_have_about_eight_whole_steps(largest, step):
    assert whole_step(largest) == step


def test_the_ranking_has_a_point_for_each_candidate():
    (dots,) = json.loads(ranking_figure(rows(20, half=0.02)))["data"]
    assert dots["x"] == list(range(1, 21))
    assert dots["y"] == approx(1 - place / 100 for place in range(1, 21))
    # The highest accuracy is 0.99, and an interval ends at 1.
    assert dots["error_y"]["array"] == approx([0.01] + [0.02] * 19)
    assert dots["error_y"]["arrayminus"] == approx([0.02] * 20)
    assert dots["customdata"][0] == "A, &lt;1&gt;"
    found = layout(ranking_figure(rows(20)))
    assert (found["xaxis"]["dtick"], found["height"]) == (2, 280)
    assert "array" not in json.loads(ranking_figure(rows(3)))["data"][0].get("error_y", {})


def test_effects_are_drawn_by_sign_with_both_ends_of_their_intervals():
    assert [sign_of(row) for row in FAMILIES] == [1, 0, 0, -1, 0]
    better, worse, unclear = json.loads(effects_figure(EFFECTS))["data"]
    assert (better["y"], worse["y"], unclear["y"]) == (["A"], ["D"], ["C", "B"])
    assert (better["x"], worse["x"], unclear["x"]) == (approx([2.0]), approx([-3.0]), approx([0.0, 1.0]))
    assert (better["error_x"]["array"], better["error_x"]["arrayminus"]) == (approx([3.0]), approx([1.0]))
    assert (unclear["error_x"]["array"], unclear["error_x"]["arrayminus"]) == (approx([0, 2]), approx([0, 2]))
    assert unclear["marker"]["symbol"] == ["circle-open", "circle"]
    assert better["customdata"] == ["A: +2.00 points (+1.00 to +5.00), always with E"]
    assert unclear["customdata"][0] == "C: +0.00 points, no interval"
    found = layout(effects_figure(EFFECTS))
    assert found["yaxis"]["categoryarray"] == ["D", "C", "B", "A"]
    assert found["height"] == 90 + 4 * 24


def test_families_have_their_dots_and_means():
    made = [
        FamilyRow(name="A", drawn=3, done=3, trained=2, accuracies=(0.4, 0.6)),
        FamilyRow(name="B", drawn=3, done=1, trained=1, accuracies=(0.3,)),
        FamilyRow(name="C", drawn=3, done=1, trained=0, accuracies=()),
    ]
    dots, means = json.loads(family_figure(made))["data"]
    assert (dots["y"], dots["x"]) == (["B (1)", "A (2)", "A (2)"], [0.3, 0.4, 0.6])
    assert (means["y"], means["x"]) == (["B (1)", "A (2)"], [0.3, 0.5])
    assert layout(family_figure(made))["height"] == 160


def test_the_matrix_of_pairs_is_symmetric_and_blank_for_never():
    audit = coverage("ABCDE", ["ABCD", "ABCE"])
    (cells,) = json.loads(coverage_figure(audit))["data"]
    assert cells["z"][0] == [None, 2, 2, 1, 1]
    assert cells["z"][3] == [1, 1, 1, None, None]
    assert cells["z"] == [list(line) for line in zip(*cells["z"], strict=True)]
    assert (cells["zmin"], cells["zmax"], cells["colorbar"]["dtick"]) == (0, 2, 1)
    assert layout(coverage_figure(audit))["height"] == 320
    wide = coverage([f"F{number}" for number in range(20)], [])
    assert layout(coverage_figure(wide))["height"] == 140 + 19 * 20
    assert json.loads(coverage_figure(wide))["data"][0]["zmax"] == 1


def test_pair_effects_are_in_points_and_unclear_ones_are_veiled():
    matrix, veil = json.loads(pair_figure(EFFECTS))["data"]
    assert matrix["x"] == matrix["y"] == ["A", "B", "D"]
    assert matrix["z"] == [[None, pytest.approx(2), None], [pytest.approx(2), None, -1.0], [None, -1.0, None]]
    assert veil["z"] == [[None] * 3, [None, None, 1], [None, 1, None]]
    assert matrix["text"][0] == ["", "+", ""]
    assert matrix["text"][1] == ["+", "", ""]
    assert matrix["customdata"][0] == ["", "+1.00 to +4.00, 7 quartets", ""]
    assert (matrix["zmin"], matrix["zmax"]) == (pytest.approx(-5), pytest.approx(5))  # half the widest interval


@pytest.fixture(scope="module")
def trials():
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


def test_the_best_curves_are_numbered_and_the_others_share_a_line(trials):
    best, others = best_curves(trials)
    assert [trial.id for trial in best] == list(range(SHOWN))
    assert [trial.id for trial in drawn_curves(trials)] == list(range(15))
    grey, *lines = json.loads(curves_figure(trials))["data"]
    assert grey["x"] == [1, 2, None] * 3
    assert grey["y"] == [value for trial in others for value in (0.1, trial.validation_accuracy, None)]
    assert [line["text"] for line in lines] == [["", str(place)] for place in range(SHOWN, 0, -1)]
    assert lines[-1]["y"] == [0.1, 0.9] and lines[-1]["line"]["color"] == COLOURS[0]
    assert lines[-1]["hovertemplate"].startswith("1. ")
    found = layout(curves_figure(trials))
    assert (found["height"], found["xaxis"]["dtick"]) == (360, 1)


def test_gates_of_the_best_trials_are_stacked(trials):
    bars = json.loads(gate_figure(trials))["data"]
    names = sorted(trials[0].experts)
    assert [bar["name"] for bar in bars] == names
    for bar in bars:
        share = (0.4, 0.3, 0.2, 0.1)[trials[0].experts.index(bar["name"])]
        assert bar["x"] == [share] * SHOWN
        assert bar["y"] == [f"{rank}. 000000" for rank in range(1, SHOWN + 1)]
        assert bar["text"] == [bar["name"]] * SHOWN
    assert len({bar["marker"]["color"] for bar in bars}) == 4
    assert layout(gate_figure(trials))["height"] == 90 + SHOWN * 24


def test_labels_are_short_and_without_markup():
    assert label("<b>&") == "&lt;b&gt;&amp;"
    assert len(label("x" * 300)) <= 200


def drawn(name, **content):
    """Draw a figure for a paper; return it and its axes."""
    figure = pytest.importorskip("matplotlib.figure").Figure(layout="constrained")
    _DRAWINGS[name](SimpleNamespace(**content), figure)
    return figure, figure.axes[0]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_a_printed_ranking_and_funnel():
    figure, axes = drawn("ranking", ranked=rows(3, half=0.02))
    assert tuple(figure.get_size_inches()) == (6.3, 2.4)
    (dots, _, (bars,)) = axes.containers[0]
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([1, 2, 3], approx([0.99, 0.98, 0.97]))
    assert list(bars.get_segments()[0][:, 1]) == approx([0.97, 1.01])
    assert drawn("ranking", ranked=rows(3))[1].containers[0].lines[2] == ()
    _, axes = drawn("funnel", funnel=Funnel(drawn=2000, done=30, assembled=29, checked=20, trained=7))
    assert [bar.get_width() for bar in axes.patches] == [2000, 30, 29, 20, 7]
    assert [text.get_text() for text in axes.texts] == ["2,000", "30", "29", "20", "7"]
    assert ticks(axes.yaxis) == ["sampled", "finished", "assembled", "passed the check", "trained"]
    assert axes.yaxis_inverted()


def test_printed_matrices():
    audit = coverage("ABCDE", ["ABCD", "ABCE"])
    figure, axes = drawn("coverage", coverage=audit)
    cells = np.asarray(axes.images[0].get_array().filled(-1))
    assert cells[0].tolist() == [-1, 2, 2, 1, 1] and cells[3].tolist() == [1, 1, 1, -1, -1]
    assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0, 2)
    assert ticks(axes.xaxis) == ticks(axes.yaxis) == list("ABCDE")
    assert list(figure.get_size_inches()) == approx([3.2, 2.4])
    wide = drawn("coverage", coverage=coverage([f"F{number}" for number in range(20)], [["F0", "F1", "F2", "F3"]]))[0]
    assert list(wide.get_size_inches()) == approx([1.2 + 0.165 * 20 + 0.8, 1.2 + 0.165 * 20])
    _, axes = drawn("pairs", effects=EFFECTS)
    cells = np.asarray(axes.images[0].get_array().filled(99))
    assert cells.tolist() == [[99, pytest.approx(2), 99], [pytest.approx(2), 99, -1], [99, -1, 99]]
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("+", (1, 0)), ("+", (0, 1))]
    assert [patch.get_xy() for patch in axes.patches] == [(1.5, 0.5), (0.5, 1.5)]
    assert {(patch.get_width(), patch.get_height()) for patch in axes.patches} == {(1, 1)}


def test_printed_effects():
    figure, axes = drawn("effects", effects=EFFECTS)
    assert list(figure.get_size_inches()) == approx([6.3, 0.6 + 0.17 * 4])
    spans = [list(line.get_xdata()) for line in axes.lines if list(line.get_ydata()) == [0, 0]]
    assert spans == [approx([1.0, 5.0])]
    points = [(line.get_ydata()[0], line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert points == [(0, pytest.approx(2.0)), (1, pytest.approx(1.0)), (2, 0.0), (3, pytest.approx(-3.0))]
    filled = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
    assert filled == [COLOURS[0], COLOURS[6], "white", COLOURS[1]]
    assert ticks(axes.yaxis) == ["A", "B", "C", "D"]
    assert axes.get_xlabel() == "effect, points of accuracy (95% intervals)"


def test_printed_curves_and_gates(trials):
    _, axes = drawn("curves", trials=trials)
    assert len(axes.lines) == 15
    assert [line.get_color() for line in axes.lines[:3]] == ["#bbbbbb"] * 3
    assert [text.get_text() for text in axes.texts] == [str(place) for place in range(SHOWN, 0, -1)]
    assert axes.texts[-1].xy == (2, 0.9)
    figure, axes = drawn("gates", trials=trials)
    assert list(figure.get_size_inches()) == approx([6.3, 0.6 + 0.24 * SHOWN])
    first = axes.patches[:4]
    assert [bar.get_x() for bar in first] == approx([0.0, 0.4, 0.7, 0.9])
    assert [bar.get_width() for bar in first] == approx([0.4, 0.3, 0.2, 0.1])
    assert [text.get_text() for text in axes.texts[:4]] == list(trials[0].experts)
    assert axes.texts[1].get_position() == (pytest.approx(0.55), 0)
    assert ticks(axes.yaxis) == [f"{rank}." for rank in range(1, SHOWN + 1)]
    named = [replace(trials[0], plan=replace(trials[0].plan, experts=(*"ABC", "D" * 11)))]
    assert [text.get_text() for text in drawn("gates", trials=named)[1].texts] == ["A", "B", "C"]
