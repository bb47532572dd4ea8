"""Numbers and words of the page's figures, for hand-made results."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from figure_cases import EFFECTS, FAMILIES, approx, rows, trained_trials

from nngen.analysis import figures
from nngen.analysis.figure_style import COLOURS, PALETTE, label, plotly_script, whole_step
from nngen.analysis.figures import (
    SHOWN,
    best_curves,
    coverage_figure,
    curves_figure,
    drawn_curves,
    effects_figure,
    family_figure,
    gate_colours,
    gate_figure,
    gate_shares,
    pair_figure,
    pair_reach,
    ranking_figure,
    sign_of,
)
from nngen.analysis.results import FamilyRow
from nngen.space import coverage


def layout(figure):
    return json.loads(figure)["layout"]


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
    return trained_trials()


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
    assert label("x" * 300) == "x" * 199 + "…"


def test_accuracies_at_the_ends_have_intervals_within_them():
    ends = [replace(row, validation_accuracy=end) for row, end in zip(rows(3, half=0.1), (1.0, 0.5, 0.0), strict=True)]
    (dots,) = json.loads(ranking_figure([*ends, *rows(1)]))["data"]
    assert dots["error_y"]["array"] == [0.0, 0.1, 0.1, None]
    assert dots["error_y"]["arrayminus"] == [0.1, 0.1, 0.0, None]


def test_the_dots_of_many_families_are_sampled_and_two_of_each_remain(monkeypatch):
    made = [FamilyRow(name=name, drawn=9, done=9, trained=4, accuracies=(0.1, 0.2, 0.3, 0.4)) for name in "ABC"]
    monkeypatch.setattr(figures, "POINTS", 6)
    assert json.loads(family_figure(made[:2]))["data"][0]["x"] == [0.1, 0.2, 0.4] * 2
    monkeypatch.setattr(figures, "POINTS", 3)
    dots, _ = json.loads(family_figure(made))["data"]
    assert (dots["x"], dots["y"]) == ([0.1, 0.4] * 3, ["C (4)"] * 2 + ["B (4)"] * 2 + ["A (4)"] * 2)


def test_the_scale_of_pairs_reaches_the_largest_effect_or_half_the_widest_interval():
    one, _ = EFFECTS.pairs
    strong = replace(one, interval=replace(one.interval, effect=-0.06, low=-0.07, high=-0.05))
    assert pair_reach(replace(EFFECTS, pairs=(strong,))) == pytest.approx(6)
    assert pair_reach(replace(EFFECTS, pairs=())) == 1.0


def test_only_trained_trials_with_a_curve_have_one(trials):
    worst = replace(trials[0], id=20, validation_accuracy=0.0)
    unknown, bare = replace(trials[0], id=21, validation_accuracy=None), replace(trials[0], id=22, curve=())
    every = [worst, unknown, bare, *trials]
    best, others = best_curves(every)
    assert [trial.id for trial in (*best, *others)] == [*range(15), 20]
    assert [trial.id for trial in drawn_curves(every)] == [*range(14), 22, 14, 20]
    short = [replace(worst, curve=worst.curve[:1])]
    grey, line = json.loads(curves_figure(short))["data"]
    assert (grey["x"], line["x"], line["text"]) == ([], [1], ["1"])
    assert layout(curves_figure([]))["xaxis"]["dtick"] == 1
    long = [replace(worst, curve=worst.curve * 8)]
    assert layout(curves_figure(long))["xaxis"]["dtick"] == 2


def test_curves_have_their_colours_in_the_order_of_the_palette(trials):
    lines = json.loads(curves_figure(trials))["data"][1:]
    assert [line["line"]["color"] for line in lines] == list(PALETTE)[::-1]
    assert [line["hovertemplate"].partition(".")[0] for line in lines] == [str(place) for place in range(12, 0, -1)]


def test_gate_shares_are_of_trained_trials_whose_last_weights_are_known(trials):
    def with_plan(trial, *experts):
        return replace(trial, plan=replace(trial.plan, experts=experts))

    best = trials[-1]
    lacking = replace(best.curve[-1], usage=(0.5, 0.5))
    left_out = [
        replace(best, validation_accuracy=None),
        replace(best, curve=()),
        replace(best, curve=(best.curve[0], lacking)),
    ]
    worst = replace(with_plan(best, "A", "B", "A", "A"), validation_accuracy=0.0)
    (one, other) = gate_shares([worst, *left_out, with_plan(best, *"DCBA")])
    assert (one[0].validation_accuracy, one[1]) == (0.9, {"D": 0.4, "C": 0.3, "B": 0.2, "A": 0.1})
    assert (other[0], other[1]) == (worst, {"A 1": 0.4, "B": 0.3, "A 2": 0.2, "A 3": 0.1})
    bars = json.loads(gate_figure([worst]))["data"]
    assert [(bar["name"], bar["x"]) for bar in bars] == [("A 1", [0.4]), ("A 2", [0.2]), ("A 3", [0.1]), ("B", [0.3])]


def test_experts_have_the_colour_that_is_used_least_and_not_beside_them():
    assert gate_colours([{"B": 0.5, "A": 0.5}, {"C": 1.0}]) == dict(zip("ABC", PALETTE, strict=False))
    names = [f"{number:02}" for number in range(13)]
    expected = dict(zip(names, (*PALETTE, PALETTE[0]), strict=True))
    assert gate_colours([{name: 1.0} for name in names]) == expected
    assert gate_colours([dict.fromkeys(names, 0.1)]) == expected  # more than there are colours
    apart = gate_colours([*({name: 1.0} for name in names), {"12": 0.5, "00": 0.5}])
    assert (apart["00"], apart["12"]) == (PALETTE[0], PALETTE[1])


def test_what_is_read_at_a_point_has_a_length_that_fits():
    row = replace(FAMILIES[0], together_with=("x" * 500,))
    better, *_ = json.loads(effects_figure(replace(EFFECTS, families=(row,))))["data"]
    assert len(better["customdata"][0]) == 400
    assert "Plotly" in plotly_script()


def test_matrices_shade_from_transparent_and_veil_what_is_unclear():
    blue, red = "rgba(68,119,170,{})", "rgba(238,102,119,1)"
    (cells,) = json.loads(coverage_figure(coverage("ABCDE", ["ABCD"])))["data"]
    assert cells["colorscale"] == [[0.0, blue.format(0.18)], [1.0, blue.format(1)]]
    matrix, veil = json.loads(pair_figure(EFFECTS))["data"]
    assert matrix["colorscale"] == [[0.0, red], [0.5, "rgba(128,128,128,0.10)"], [1.0, blue.format(1)]]
    assert veil["colorscale"] == [[0.0, "rgba(150,150,150,0.6)"], [1.0, "rgba(150,150,150,0.6)"]]
    assert veil["x"] == veil["y"] == matrix["x"]


PLAIN = {"automargin": True, "zeroline": False}
MATRIX = {**PLAIN, "showgrid": False, "dtick": 1}
LINE = {"color": COLOURS[6], "width": 1}
LAYOUTS = {
    "ranking": {"xaxis": {"title": {"text": "rank"}, "dtick": 1}, "yaxis": {"title": {"text": "validation accuracy"}}},
    "effects": {
        "xaxis": {"title": {"text": "effect, points of accuracy"}},
        "yaxis": {"categoryorder": "array", "categoryarray": ["D", "C", "B", "A"]},
        "shapes": [{"type": "line", "x0": 0, "x1": 0, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain", "line": LINE}],
    },
    "families": {"xaxis": {"title": {"text": "validation accuracy"}}, "yaxis": {}},
    "coverage": {"xaxis": {**MATRIX, "tickangle": -60}, "yaxis": {**MATRIX, "autorange": "reversed"}},
    "curves": {"xaxis": {"title": {"text": "epoch"}, "dtick": 1}, "yaxis": {"title": {"text": "validation accuracy"}}},
    "gates": {
        "xaxis": {
            "title": {"text": "mean gate weight in the last epoch"},
            "tickformat": ".0%",
            "dtick": 0.25,
            "range": [0, 1],
        },
        "yaxis": {"categoryorder": "array", "categoryarray": [f"{rank}. 000000" for rank in range(SHOWN, 0, -1)]},
        "barmode": "stack",
        "bargap": 0.25,
        "uniformtext": {"minsize": 9, "mode": "hide"},
    },
}


@pytest.mark.parametrize(("name", "height"), [*zip(LAYOUTS, (280, 186, 160, 320, 360, 378), strict=True)])
def test_axes_say_what_they_show_and_colours_are_left_to_the_page(trials, name, height):
    families = [FamilyRow(name="A", drawn=2, done=2, trained=2, accuracies=(0.4, 0.6))]
    made = {
        "ranking": lambda: ranking_figure(rows(3)),
        "effects": lambda: effects_figure(EFFECTS),
        "families": lambda: family_figure(families),
        "coverage": lambda: coverage_figure(coverage("ABCDE", ["ABCD"])),
        "curves": lambda: curves_figure(trials),
        "gates": lambda: gate_figure(trials),
    }
    found = layout(made[name]())
    del found["template"]
    expected = {
        **LAYOUTS[name],
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": dict.fromkeys("lrtb", 10),
        "height": height,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }
    expected |= {axis: PLAIN | LAYOUTS[name][axis] for axis in ("xaxis", "yaxis")}
    assert found == expected
