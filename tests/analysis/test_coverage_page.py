"""Page of the coverage of a sample."""

import json
import re
from pathlib import Path

import pytest

from nngen.analysis.figure_style import label
from nngen.analysis.figures import coverage_figure, write_coverage_page
from nngen.errors import NngenError, UsageError
from nngen.space import coverage, draw

AUDIT = coverage("ABCDEF", draw("random", "ABCDEF", 8, 0))


def test_the_page_opens_without_a_network(tmp_path):
    write_coverage_page(AUDIT, tmp_path / "pairs.html")
    page = (tmp_path / "pairs.html").read_text()
    assert "Plotly.newPlot" in page
    assert not re.search('<(script|link|img)[^>]{0,200}(src|href)="http', page)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.html"]


def test_the_page_has_the_verdict_above_the_picture(tmp_path):
    write_coverage_page(AUDIT, tmp_path / "PAIRS.HTM")
    page = (tmp_path / "PAIRS.HTM").read_text()
    (call,) = re.findall(
        r"Plotly\.newPlot\(\s*\"[-\w]+\",\s*(\[.*?\]),\s*(\{.*?\}),\s*\{\"responsive\"", page, re.DOTALL
    )
    data, layout = map(json.loads, call)
    assert layout["title"] == {"text": label(AUDIT.verdict, 1000), "font": {"size": 14}}
    assert layout["margin"] == {"l": 10, "r": 10, "t": 60, "b": 10}
    assert data[0]["z"] == json.loads(coverage_figure(AUDIT))["data"][0]["z"]


def test_a_sample_without_quartets_has_a_page(tmp_path):
    write_coverage_page(coverage("ABCDE", []), tmp_path / "empty.html")
    assert "no quartet was sampled" in (tmp_path / "empty.html").read_text()


def test_refusals_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="must end in"):
        write_coverage_page(AUDIT, tmp_path / "pairs.txt")
    with pytest.raises(NngenError, match="cannot write"):
        write_coverage_page(AUDIT, Path(__file__) / "pairs.html")
