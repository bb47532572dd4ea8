import pytest

from nngen.analysis.heat_map import heat_map_text, write_heat_map
from nngen.errors import NngenError
from nngen.space import coverage, draw

AUDIT = coverage("ABCDEF", draw("random", "ABCDEF", 8, 0))


def test_the_triangle_shows_each_pair_once():
    lines = heat_map_text(AUDIT).splitlines()
    assert [len(line.partition("|")[2]) for line in lines[:6]] == [1, 3, 5, 7, 9, 11]
    assert lines[-1].startswith("quartets per pair: blank for none")


def test_blank_means_never():
    text = heat_map_text(coverage("ABCDE", ["ABCD"]))
    assert text.splitlines()[4].partition("|")[2].strip(" \\") == ""
    assert "@" in heat_map_text(coverage("ABCDE", ["ABCD", "ABCE"])).splitlines()[1]


def test_no_quartet_at_all():
    assert "blank for none" in heat_map_text(coverage("ABCDE", []))


def test_files(tmp_path):
    pytest.importorskip("plotly")
    write_heat_map(AUDIT, tmp_path / "pairs.txt")
    write_heat_map(AUDIT, tmp_path / "pairs.html")
    assert (tmp_path / "pairs.txt").read_text().startswith("1 A")
    page = (tmp_path / "pairs.html").read_text()
    assert "Plotly.newPlot" in page
    assert 'src="http' not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.html", "pairs.txt"]


def test_an_unwritable_place_is_one_line(tmp_path):
    with pytest.raises(NngenError, match="cannot write"):
        write_heat_map(AUDIT, tmp_path / "missing" / "pairs.txt")
