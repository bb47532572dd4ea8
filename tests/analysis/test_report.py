"""HTML report of campaigns of every kind, opened in a real browser."""

import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from headless import chromium

from nngen.analysis.effects import PairKind
from nngen.analysis.figure_style import sampled
from nngen.analysis.figures import (
    best_curves,
    coverage_figure,
    curves_figure,
    effects_figure,
    family_figure,
    gate_colours,
    gate_figure,
    pair_figure,
    ranking_figure,
)
from nngen.analysis.formatting import sentence
from nngen.analysis.pdf_figures import write_figures
from nngen.analysis.report import collect, render, write_report
from nngen.archive import Archive
from nngen.campaign.summary import summarise
from nngen.errors import MissingExtraError, NngenError, UsageError
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_inputs
from nngen.types import Candidate, Outcome, Shape, Trial

ALL = dict.fromkeys("ABCDEFG", Outcome.MEMORY)


@pytest.fixture(scope="module")
def archive():
    with Archive.in_memory() as archive:
        ground = fake_inputs(left_out={"<b>X": "needs </script> channels"})
        engine = FakeEngine(checks={"A": Outcome.SHAPE}, trials={"B": Outcome.TIMEOUT})
        fake_campaign(archive, name="full", size=35, inputs=ground, engine=engine).run()
        # Another shape, because the archive would return the results of the first campaign.
        fake_campaign(archive, name="single", size=1, shape=Shape(1, 9, 9)).run()
        fake_campaign(archive, name="failed", size=3, shape=Shape(3, 9, 9), engine=FakeEngine(checks=ALL)).run()
        archive.add_campaign(renamed(archive, "single", "empty"), [])
        with_seeds(archive)
        yield archive


def renamed(archive, name, new):
    """Return the record of a campaign under another name."""
    record = archive.campaign(name)
    return replace(record, spec=replace(record.spec, name=new))


def with_seeds(archive):
    """Make a campaign with three seeds per quartet, one of them without an accuracy."""
    fake_campaign(archive, name="once", size=30, epochs=1, shape=Shape(1, 7, 7)).run()
    once = archive.trials("once")
    archive.add_campaign(renamed(archive, "once", "seeds"), [t.plan for t in once for _ in range(3)])
    for place, (trial, ready) in enumerate(
        zip([t for t in once for _ in range(3)], archive.trials("seeds"), strict=True)
    ):
        archive.start_trial(ready.id)
        accuracy = 0.6 + 0.05 * ("A" in trial.experts) - 0.001 * (place % 3) + 0.0002 * (place % 7)
        archive.finish_trial(
            ready.id,
            Trial(
                candidate_id=trial.candidate_id,
                spec=replace(trial.spec, seed=place),
                verdict=trial.verdict,
                validation_accuracy=float("nan") if place == 1 else accuracy,
                curve=trial.curve,
                seconds=2.0,
                environment={"device": "fake"},
            ),
        )


class Page(HTMLParser):
    """Parser that collects headings and external links, and checks that every element is closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.outside, self.plots, self.heads = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.outside += [value for name, value in attrs if name in ("src", "href")]
        if "data-figure" in found:
            self.plots.append(found["data-figure"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.heads.append(data)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "plots", "words"),
    [
        ("full", ["ranking", "coverage", "effects", "curves", "gates"], "One seed for each candidate"),
        ("seeds", ["ranking", "coverage", "effects", "pairs", "gates"], "3 seeds"),
        ("single", ["coverage", "families", "curves", "gates"], "Only one candidate was trained"),
        ("failed", ["coverage"], "No candidate could be trained"),
        ("empty", [], "has no trials"),
    ],
)
def test_every_campaign_has_a_report_that_says_what_is_missing(archive, tmp_path, name, plots, words):
    write_report(archive, name, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.plots == plots
    assert all(place.startswith("#") for place in page.outside)
    assert page.heads == [
        "Leaderboard",
        "Classes",
        "Mixtures and their families",
        "Funnel",
        "Coverage",
        "Families",
        "Pairs",
        "Learning curves",
        "Gate usage",
        "Cost",
        "Provenance",
    ]
    assert words in text
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    for figure in re.findall(r'<script type="application/json" id="figure-\w+">(.*?)</script>', text):
        assert json.loads(figure)["layout"]


def test_text_is_escaped_and_the_same_twice(archive, tmp_path):
    for name in ("a", "b"):
        write_report(archive, "full", tmp_path / name)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text()
    assert "&lt;b&gt;X" in text
    assert "<b>X" not in text


def test_the_rows_are_right(archive):
    report = collect(archive, "full")
    assert report.funnel.stages() == (("drawn", 35), ("done", 35), ("assembled", 35), ("checked", 15), ("trained", 5))
    families = {row.name: row for row in report.families}
    assert (families["A"].drawn, families["A"].trained, families["A"].mean) == (20, 0, None)
    trained = [t.validation_accuracy for t in report.trials if t.trained and "C" in t.experts]
    assert families["C"].accuracies == tuple(trained)
    assert families["C"].mean == pytest.approx(sum(trained) / len(trained))
    assert [(row.outcome, row.count) for row in report.outcomes] == [("shape", 20), ("timeout", 10), ("valid", 5)]
    assert "whole space" in report.coverage.verdict
    assert sum(count for _, count in report.environments) == 35


def test_the_figures_draw_what_the_rows_hold(archive):
    report = collect(archive, "full")
    dots, means = json.loads(family_figure(report.families))["data"]
    assert len(dots["y"]) == 20
    assert means["x"][-1] == max(row.mean for row in report.families if row.mean is not None)
    cells = json.loads(coverage_figure(report.coverage))["data"][0]["z"]
    assert cells[0][0] is None
    assert cells[0][1] == cells[1][0] == 10
    assert [len(line["x"]) for line in json.loads(curves_figure(report.trials))["data"]] == [0] + [2] * 5
    bars = json.loads(gate_figure(report.trials))["data"]
    assert sum(len(bar["x"]) for bar in bars) == 20


def test_effects_and_intervals_are_drawn(archive):
    report = collect(archive, "seeds")
    better, worse, unclear = json.loads(effects_figure(report.effects))["data"]
    assert better["y"] == ["A"]
    assert sorted(better["y"] + worse["y"] + unclear["y"]) == list("ABCDEFG")
    effect = report.family_effects["A"]
    assert better["x"] == [100 * effect.point]
    assert better["x"][0] + better["error_x"]["array"][0] == pytest.approx(100 * effect.interval.high)
    assert better["x"][0] - better["error_x"]["arrayminus"][0] == pytest.approx(100 * effect.interval.low)
    matrix = json.loads(pair_figure(report.effects))["data"][0]
    assert matrix["x"][0] == "A"
    known = {pair.families: pair.interval.effect for pair in report.effects.pairs}
    assert matrix["z"][0][1] == matrix["z"][1][0] == 100 * known[tuple(sorted(matrix["x"][:2]))]
    dots = json.loads(ranking_figure(report.rows))["data"][0]
    assert dots["error_y"]["array"] == dots["error_y"]["arrayminus"] == [row.validation_half for row in report.rows]
    wide = [replace(report.rows[0], validation_accuracy=0.75, validation_half=0.375)]
    assert json.loads(ranking_figure(wide))["data"][0]["error_y"]["array"] == [0.25]


def test_the_headline_has_an_interval_where_there_are_seeds(archive, tmp_path):
    best = collect(archive, "seeds").best
    assert (best.seeds, best.validation_half is not None) == (3, True)
    write_report(archive, "seeds", tmp_path / "r.html", price_per_hour=3600)
    text = (tmp_path / "r.html").read_text()
    assert f"± {best.validation_half:.4f} (95 %), 3 seeds" in text
    assert "180 at the price given" in text
    write_report(archive, "full", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    best = collect(archive, "full").best
    assert f"{best.interval} by {best.images} images (95 %), 1 seed; selected by this" in text


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("full", ["ranking", "funnel", "coverage", "effects", "curves", "gates"]),
        ("seeds", ["ranking", "funnel", "coverage", "effects", "pairs", "gates"]),
        ("failed", ["funnel", "coverage"]),
        ("empty", []),
    ],
)
@pytest.mark.long
def test_figures_for_a_paper(archive, tmp_path, name, files):
    pytest.importorskip("matplotlib")
    report = collect(archive, name)
    written = write_figures(report, tmp_path / "a" / "b")
    assert [path.name for path in written] == [f"{file}.pdf" for file in files]
    again = write_figures(report, tmp_path / "c")
    for one, other in zip(written, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.read_bytes().startswith(b"%PDF-")
        assert b"/Type3" not in one.read_bytes()


def test_figures_that_cannot_be_written(archive, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    report = collect(archive, "failed")
    (tmp_path / "file").write_text("")
    with pytest.raises(NngenError, match="cannot write the figure"):
        write_figures(report, tmp_path / "file" / "b")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[report\]'"):
        write_figures(report, tmp_path / "c")


def test_an_adaptive_campaign_says_what_was_explored(tmp_path):
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=12, sampler="adaptive").run()
        write_report(archive, "one", tmp_path / "r.html")
        explored = collect(archive, "one").explored
    assert 3 <= explored <= 12
    assert f"{explored} of 12 quartets were drawn without using results" in (tmp_path / "r.html").read_text()


def test_mixtures_that_are_not_quartets_are_ranked_but_not_audited():
    with Archive.in_memory() as archive:
        fake_campaign(archive, size=20).run()
        one = archive.trials("one")[0]
        same = replace(one.plan, experts=("A",) * 4)
        plans = [one.plan, same, replace(same, experts=("A", "B"))]
        archive.add_campaign(renamed(archive, "one", "mixed"), plans)
        for place, ready in enumerate(archive.trials("mixed")):
            archive.add_candidate(Candidate(id=f"MoE4-{place:032}", source=f"x = {place}", canonical=f"c{place}"))
            archive.start_trial(ready.id)
            spec, verdict = replace(one.spec, seed=place), one.verdict
            archive.finish_trial(
                ready.id,
                Trial(
                    candidate_id=f"MoE4-{place:032}", spec=spec, verdict=verdict, validation_accuracy=0.5, seconds=1.0
                ),
            )
        report = collect(archive, "mixed")
        assert render(report)
        assert (len(report.rows), report.coverage.quartets, report.effects.trials) == (3, 1, 1)
        assert summarise(archive, "mixed").coverage.quartets == 1


def test_half_done(archive):
    trials = list(collect(archive, "single").trials)
    archive.add_campaign(renamed(archive, "single", "half"), [trials[0].plan])
    assert "1 of 1 trials are not done yet" in collect(archive, "half").missing[0]


def test_bad_requests(archive, tmp_path):
    with pytest.raises(UsageError, match="did you mean full"):
        write_report(archive, "ful", tmp_path / "r.html")
    write_report(archive, "full", tmp_path / "new" / "r.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.html"]
    with pytest.raises(NngenError, match="cannot write the report"):
        write_report(archive, "full", Path(__file__) / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


CUT = '[...document.querySelectorAll(".scroll")].filter(table => table.scrollWidth > table.clientWidth).length'
"""Number of tables with columns beyond the edge."""

LOOK = """new Promise(done => setTimeout(() => {
  const plots = Array.from(document.querySelectorAll(".plot"));
  const marks = "svg .points path, svg .scatterlayer .js-line, svg .heatmaplayer image, svg .barlayer path";
  const table = document.querySelector("table.sortable");
  const shown = () => Array.from(table.tBodies[0].rows).filter(row => !row.hidden);
  const heads = Array.from(table.tHead.rows[0].cells);
  const head = heads.find(cell => cell.textContent.startsWith("validation"));
  const column = () => shown().map(row => parseFloat(row.cells[heads.indexOf(head)].textContent));
  head.click();
  const rising = column();
  head.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
  const falling = column();
  const input = document.querySelector(".filter input");
  const type = words => { input.value = words; input.dispatchEvent(new Event("input")); return shown(); };
  const experts = heads.findIndex(cell => cell.textContent.startsWith("experts"));
  const kept = type("c, D,").map(row => row.cells[experts].textContent);
  const count = document.querySelector(".filter span").textContent;
  const none = type("nothing has this").length, back = type("").length;
  done({ plots: plots.map(plot => plot.dataset.figure), empty: plots.filter(plot => !plot.querySelector(marks))
           .map(plot => plot.dataset.figure), rising, falling, kept, count, none, back,
         wide: document.documentElement.scrollWidth, view: document.documentElement.clientWidth,
         text: getComputedStyle(document.body).color,
         axis: getComputedStyle(document.querySelector(".ytick text")).fill });
}, 300))"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's package chromium")
@pytest.mark.parametrize(("name", "width", "dark"), [("full", 390, True), ("seeds", 1400, False)])
def test_a_real_browser_draws_sorts_and_filters_it_without_error(archive, tmp_path, name, width, dark):
    report = write_report(archive, name, tmp_path / "r.html")
    with chromium(tmp_path / "profile", f"file://{tmp_path / 'r.html'}", width=width, dark=dark) as page:
        told = page.run(LOOK)
        problems, cut = page.problems, page.run(CUT)
    assert problems == []
    assert cut == 0 or width < 1400
    assert len(told["plots"]) == 5
    assert told["empty"] == []
    assert (
        told["rising"]
        == sorted(told["rising"])
        == sorted(float(f"{row.validation_accuracy:.4f}") for row in report.rows)
    )
    assert told["falling"] == told["rising"][::-1]
    assert told["kept"] and all("C, D," in text for text in told["kept"])
    assert told["count"] == f"{len(told['kept'])} of {len(report.rows)}"
    assert (told["none"], told["back"]) == (0, len(report.rows))
    assert told["wide"] <= told["view"] <= width
    assert told["text"] == told["axis"]
    assert told["text"] == ("rgb(227, 231, 238)" if dark else "rgb(28, 35, 48)")


def test_the_page_of_a_large_campaign_lists_the_best_and_says_so(archive, monkeypatch):
    monkeypatch.setattr("nngen.analysis.report.SHOWN_ROWS", 3)
    report = collect(archive, "full")
    page = render(report)
    table = page[page.index('data-what="leaderboard"') :].partition("</table>")[0]
    assert table.count('<td class="id">') == 3
    assert (
        f"The best 3 of {len(report.rows)} candidates; <code>nngen leaderboard full</code> ranks all of them." in page
    )


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 100])
def test_a_sample_for_a_figure_is_even_and_keeps_both_ends(count):
    items = range(count)
    found = list(sampled(items, 7))
    assert len(found) == min(count, 7)
    assert found == sorted(set(found))
    assert found[:1] == list(items[:1]) and found[-1:] == list(items[-1:])


def test_figures_of_a_large_campaign_draw_a_sample(archive, monkeypatch):
    rows = collect(archive, "full").rows
    many = [replace(rows[0], rank=rank) for rank in range(1, 10_001)]
    drawn = json.loads(ranking_figure(many))["data"][0]
    assert (len(drawn["x"]), drawn["x"][0], drawn["x"][-1]) == (2000, 1, 10_000)
    trials = archive.trials("full")
    best, others = best_curves([trial for trial in trials if trial.curve] * 500)
    assert (len(best), len(others)) == (12, 2000)


@pytest.fixture
def rungs(monkeypatch):
    """Campaign of nine quartets, of which three go on to a second rung and the best one is trained with three seeds."""
    monkeypatch.setattr("nngen.analysis.figure_style.plotly_script", str)
    with Archive.in_memory() as archive:
        changes = {"size": 9, "epochs": 6, "rungs": (2, 6), "finalists": 1, "replicates": 3}
        fake_campaign(archive, name="ladder", **changes).run()
        yield archive


def test_rungs_are_ranked_apart_and_their_decisions_shown(rungs):
    report = collect(rungs, "ladder")
    first, second = report.rungs
    assert (first.epochs, first.trials, first.done, first.promoted) == (2, 9, 9, 3)
    assert (second.epochs, second.trials, second.promoted, second.lowest_promoted) == (6, 3, 0, None)
    assert first.lowest_promoted >= first.highest_left
    assert second.best == max(t.validation_accuracy for t in rungs.trials("ladder") if t.rung and not t.replicate)
    assert [[row.epochs for row in rows] for rows in report.rankings] == [[6] * 3, [2] * 9]
    assert {row.rank for row in report.ranked} == {1, 2, 3}
    assert report.best.epochs == 6
    page = render(report)
    assert "rungs of 2, 6 epochs, sampler" in page
    assert "the best 1 in 3 by validation accuracy went on" in page
    assert page.count('data-what="leaderboard"') == 2
    assert "digits at 1x8x8, 2 epochs, batch 64, rate 0.001: 9 candidates" in page
    assert len(json.loads(ranking_figure(report.ranked))["data"][0]["x"]) == 3


def test_the_number_of_revealed_candidates_is_shown(rungs):
    page = render(collect(rungs, "ladder"))
    assert "the test split was revealed for 1 candidate of the campaign" in page
    other = next(t for t in rungs.trials("ladder") if t.test_accuracy is None and t.rung == 0)
    rungs.reveal_test(other.id, 0.5)
    assert "the test split was revealed for 2 candidates" in render(collect(rungs, "ladder"))


def test_ties_and_the_quartets_that_are_missing_are_named(archive, monkeypatch):
    monkeypatch.setattr("nngen.analysis.figure_style.plotly_script", str)
    report = collect(archive, "seeds")
    text = render(report)
    assert "more cannot be told from the best (95 %)" in report.limits[0]
    assert "families rank like after 50" in report.limits[-1]
    for clause in report.limits:
        assert f"{sentence(clause)}</li>" in text
    # Two of the seven families cannot be trained at all.
    assert collect(archive, "full").more_quartets == (
        "an effect with an interval for each of 5 families needs at least 6 trained quartets, and they make only 5: "
        "widen the pool"
    )
    assert collect(archive, "single").more_quartets.endswith("nngen campaign run single --size 8 draws more")


def test_a_family_without_measured_seconds_is_not_fast(archive, monkeypatch):
    monkeypatch.setattr("nngen.analysis.figure_style.plotly_script", str)
    report = collect(archive, "full")
    name = next(name for name, seconds in report.measured.seconds.items() if seconds)
    clipped = replace(report.measured, seconds={**report.measured.seconds, name: 0.0})
    pages = [render(replace(report, measured=measured)) for measured in (report.measured, clipped)]
    assert pages[1].count("not measured") == pages[0].count("not measured") + 1


def test_experts_of_one_bar_have_different_colours():
    names = [f"F{number}" for number in range(34)]
    bars = [dict.fromkeys(names[start : start + 4], 0.25) for start in range(0, 31, 3)]
    colours = gate_colours(bars)
    assert all(len({colours[name] for name in bar}) == 4 for bar in bars)


def test_pairs_inside_their_intervals_have_no_strong_colour(archive):
    effects = collect(archive, "seeds").effects
    matrix, veil = json.loads(pair_figure(effects))["data"]
    widest = max((pair.interval.high - pair.interval.low) / 2 for pair in effects.pairs)
    assert matrix["zmax"] == -matrix["zmin"] >= 100 * widest
    unclear = sum(pair.kind is PairKind.UNCLEAR for pair in effects.pairs)
    assert sum(cell is not None for line in veil["z"] for cell in line) == 2 * unclear
