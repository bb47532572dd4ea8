import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from nngen.analysis.figures import curves_figure, family_figure, gate_figure, pair_figure
from nngen.analysis.report import collect, write_report
from nngen.archive import Archive
from nngen.campaign.fake import FakeEngine, fake_bench, fake_campaign
from nngen.errors import MissingExtraError, NngenError, UsageError
from nngen.types import Outcome, Shape

ALL = dict.fromkeys("ABCDEFG", Outcome.MEMORY)


@pytest.fixture(scope="module")
def archive():
    with Archive.in_memory() as archive:
        ground = fake_bench(left_out={"<b>X": "needs </script> channels"})
        engine = FakeEngine(checks={"A": Outcome.SHAPE}, trials={"B": Outcome.TIMEOUT})
        fake_campaign(archive, name="full", size=35, bench=ground, engine=engine).run()
        # Other shapes, for the archive would hand over what the first campaign found.
        fake_campaign(archive, name="single", size=1, shape=Shape(1, 9, 9)).run()
        fake_campaign(archive, name="failed", size=3, shape=Shape(3, 9, 9), engine=FakeEngine(checks=ALL)).run()
        archive.add_campaign("empty", archive.campaign("single").spec, [])
        yield archive


class Page(HTMLParser):
    """Collects headings, links to elsewhere and whether every element is closed."""

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


@pytest.mark.parametrize(
    ("name", "plots", "words"),
    [
        ("full", ["families", "pairs", "curves", "gates"], "one seed"),
        ("single", ["families", "pairs", "curves", "gates"], "Only one candidate was trained"),
        ("failed", ["pairs"], "No candidate could be trained"),
        ("empty", [], "has no trials"),
    ],
)
def test_every_campaign_has_a_report_that_says_what_is_missing(archive, tmp_path, name, plots, words):
    write_report(archive, name, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.plots == plots
    assert page.outside == []
    assert page.heads == [
        "Leaderboard",
        "Families",
        "Verdicts",
        "Coverage",
        "Learning curves",
        "Gate usage",
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
    cells = json.loads(pair_figure(report.coverage))["data"][0]["z"]
    assert cells[0][0] is None
    assert cells[0][1] == cells[1][0] == 10
    assert [len(line["x"]) for line in json.loads(curves_figure(report.trials))["data"]] == [2] * 5
    bars = json.loads(gate_figure(report.trials))["data"]
    assert sum(len(bar["x"]) for bar in bars) == 20


def test_half_done(archive):
    trials = list(collect(archive, "single").trials)
    archive.add_campaign("half", archive.campaign("single").spec, [trials[0].plan])
    assert "1 of 1 trials are not done yet" in collect(archive, "half").missing[0]


def test_bad_requests(archive, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="did you mean full"):
        write_report(archive, "ful", tmp_path / "r.html")
    with pytest.raises(NngenError, match="cannot write the report"):
        write_report(archive, "full", tmp_path / "no" / "r.html")
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nngen-moe\[report\]'"):
        write_report(archive, "full", tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


PROBE = """<script>
addEventListener("error", event => { document.title = "error: " + event.message; });
addEventListener("load", () => setTimeout(() => {
  const plots = Array.from(document.querySelectorAll(".plot"));
  const drawn = plots.filter(plot => plot.querySelector("svg .plot, svg .hm, svg .scatterlayer, svg .barlayer")).length;
  const table = document.querySelector("table.sortable");
  const column = () => Array.from(table.tBodies[0].rows).map(row => parseFloat(row.cells[2].textContent));
  table.tHead.rows[0].cells[2].click();
  const rising = column();
  table.tHead.rows[0].cells[2].click();
  const told = { plots: plots.length, drawn, rising, falling: column(), wide: document.documentElement.scrollWidth,
                 view: document.documentElement.clientWidth, problem: document.title };
  document.body.innerHTML = "<pre id=told>" + JSON.stringify(told) + "</pre>";
}, 500));
</script></head>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Debian's package chromium")
@pytest.mark.parametrize("width", [412, 1280])
def test_a_real_browser_draws_and_sorts_it_without_error(archive, tmp_path, width):
    write_report(archive, "full", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    (tmp_path / "probed.html").write_text(text.replace("</head>", PROBE, 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    done = subprocess.run(
        [
            "chromium",
            *options,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},2000",
            "--virtual-time-budget=10000",
            "--dump-dom",
            f"file://{tmp_path / 'probed.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    told = json.loads(re.search(r'<pre id="told">(.*?)</pre>', done.stdout).group(1))
    assert told["problem"] == "full: nngen report"
    assert (told["plots"], told["drawn"]) == (4, 4)
    assert told["rising"] == sorted(told["rising"])
    assert told["falling"] == sorted(told["rising"], reverse=True)
    assert told["wide"] <= told["view"]
