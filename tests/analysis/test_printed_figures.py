"""Numbers, words and sizes of the figures for a paper, for hand-made results."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from figure_cases import EFFECTS, approx, drawn, rows, trained_trials

from nngen.analysis.figure_style import COLOURS, PALETTE
from nngen.analysis.figures import SHOWN
from nngen.analysis.pdf_figures import write_figures
from nngen.analysis.results import Funnel
from nngen.space import coverage


@pytest.fixture(scope="module")
def trials():
    return trained_trials()


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def grid(axes):
    """Tell whether an axis has lines across: of x, of y."""
    return tuple(any(line.get_visible() for line in lines) for lines in (axes.get_xgridlines(), axes.get_ygridlines()))


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


def test_printed_axes_say_what_they_show(trials):
    space = coverage("ABCDE", ["ABCD"])
    content = {
        "ranking": {"ranked": rows(3)},
        "funnel": {"funnel": Funnel(drawn=3, done=3, assembled=2, checked=1, trained=1)},
        "coverage": {"coverage": space},
        "effects": {"effects": EFFECTS},
        "pairs": {"effects": EFFECTS},
        "curves": {"trials": trials},
        "gates": {"trials": trials},
    }
    made = {name: drawn(name, **more) for name, more in content.items()}
    labels = {name: (axes.get_xlabel(), axes.get_ylabel(), grid(axes)) for name, (_, axes) in made.items()}
    assert labels == {
        "ranking": ("rank", "validation accuracy", (True, True)),
        "funnel": ("trials", "", (True, False)),
        "coverage": ("", "", (False, False)),
        "effects": ("effect, points of accuracy (95% intervals)", "", (True, True)),
        "pairs": ("", "", (False, False)),
        "curves": ("epoch", "validation accuracy", (True, True)),
        "gates": ("mean gate weight in the last epoch", "rank", (False, False)),
    }
    assert [made[name][0].axes[1].get_ylabel() for name in ("coverage", "pairs")] == ["quartets", "points"]
    inverted = {name for name, (_, axes) in made.items() if axes.yaxis_inverted()}
    assert inverted == {"funnel", "coverage", "effects", "pairs", "gates"}
    assert made["gates"][1].get_xlim() == (0, 1)
    sizes = {name: tuple(made[name][0].get_size_inches()) for name in ("ranking", "funnel", "curves")}
    assert sizes == {"ranking": (6.3, 2.4), "funnel": (6.3, 1.5), "curves": (6.3, 2.8)}
    (zero,) = (line for line in made["effects"][1].lines if list(line.get_xdata()) == [0, 0])
    assert list(zero.get_ydata()) == [0, 1]  # from end to end
    assert all(float(tick).is_integer() for tick in made["curves"][1].get_xticks())
    # Cells are told apart by their names alone, which stand upright below.
    for name in ("coverage", "pairs"):
        axes = made[name][1]
        assert {tick.tick1line.get_markersize() for tick in axes.xaxis.get_major_ticks()} == {0}
        assert {label.get_rotation() for label in axes.get_xticklabels()} == {90}
    assert (made["pairs"][1].images[0].norm.vmin, made["pairs"][1].images[0].norm.vmax) == (-5, 5)


def test_scales_of_counts_are_whole_and_those_of_points_are_not():
    def steps(figure):
        return [float(tick).is_integer() for tick in figure.axes[1].get_yticks()]

    assert all(steps(drawn("coverage", coverage=coverage("ABCDE", ["ABCD", "ABCE"]))[0]))
    one, other = EFFECTS.pairs
    weak = [replace(pair, interval=replace(pair.interval, effect=0.0, low=-0.01, high=0.01)) for pair in (one, other)]
    assert not all(steps(drawn("pairs", effects=replace(EFFECTS, pairs=tuple(weak)))[0]))


def test_a_matrix_of_many_families_fits_the_page():
    wide = drawn("coverage", coverage=coverage([f"F{number}" for number in range(40)], [["F0", "F1", "F2", "F3"]]))[0]
    assert list(wide.get_size_inches()) == approx([7.1, 6.3])


def test_printed_bars_are_of_the_rows_that_have_an_interval():
    mixed = [*rows(1, half=0.02), *rows(2)[1:]]
    (_, _, (bars,)) = drawn("ranking", ranked=mixed)[1].containers[0]
    assert [list(segment[:, 1]) for segment in bars.get_segments()] == [approx([0.97, 1.01]), approx([0.98, 0.98])]


def test_printed_curves_and_gates_have_the_colours_of_the_page(trials):
    _, axes = drawn("curves", trials=trials)
    assert [line.get_color() for line in axes.lines[3:]] == list(PALETTE)[::-1]
    _, axes = drawn("gates", trials=trials[-1:])
    names = sorted(trials[0].experts)
    matplotlib = pytest.importorskip("matplotlib.colors")
    colours = {
        text.get_text(): matplotlib.to_hex(bar.get_facecolor()).upper()
        for bar, text in zip(axes.patches, axes.texts, strict=True)
    }
    assert colours == dict(zip(names, PALETTE, strict=False))
    assert {text.get_text(): text.get_color() for text in axes.texts} == dict(
        zip(names, ("white", "white", "white", "black"), strict=True)
    )


def test_printed_names_are_cut_and_left_out_where_they_do_not_fit(trials):
    long = "x" * 29 + "…"
    row = replace(EFFECTS.families[0], family="x" * 40)
    assert ticks(drawn("effects", effects=replace(EFFECTS, families=(row,)))[1].yaxis) == [long]
    names = ["ABCD"[place] + "x" * 40 for place in range(4)]
    assert ticks(drawn("coverage", coverage=coverage(names, [names]))[1].xaxis)[0] == "A" + "x" * 28 + "…"
    model = replace(trials[-1], plan=replace(trials[-1].plan, experts=("x" * 40, "B", "C", "D" * 10)))
    assert [text.get_text() for text in drawn("gates", trials=[model])[1].texts] == [long, "B", "C"]
    model = replace(model, plan=replace(model.plan, experts=(*"ABC", "D" * 9)))
    assert drawn("gates", trials=[model])[1].texts[-1].get_text() == "D" * 9


@pytest.mark.long
def test_letters_that_the_font_has_not_are_drawn_without_a_warning(trials, tmp_path):
    pytest.importorskip("matplotlib")
    model = replace(trials[-1], plan=replace(trials[-1].plan, experts=("\N{CJK UNIFIED IDEOGRAPH-4E2D}", *"BCD")))
    campaign = SimpleNamespace(name="one")
    report = SimpleNamespace(trials=[model], drawn=frozenset({"gates", "families"}), campaign=campaign)
    (path,) = write_figures(report, tmp_path)
    assert path == tmp_path / "gates.pdf"
    assert b"/Title (one)" in path.read_bytes() and b"DejaVuSans" in path.read_bytes()
