"""Line on stderr about the isolation level of code, with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nngen.cli.options.family import note_family_levels, note_levels
from nngen.families.catalogue import make_family
from nngen.families.trust import LevelChoice
from nngen.isolation import Isolation
from nngen.types import Family

FOREIGN = LevelChoice(Isolation.SANDBOX, "not assembled by nngen")
OWN = LevelChoice(Isolation.PROCESS, "assembled by nngen")


@pytest.mark.parametrize(
    ("choices", "lines"),
    [
        ([FOREIGN], ["nngen: isolation sandbox: not assembled by nngen"]),
        ([OWN, OWN], ["nngen: isolation process: assembled by nngen"]),
        (
            [FOREIGN, OWN, FOREIGN],
            [
                "nngen: isolation sandbox: not assembled by nngen (2 of 3 files)",
                "nngen: isolation process: assembled by nngen (1 of 3 files)",
            ],
        ),
        ([], []),
    ],
)
def test_each_level_is_one_line(
    capsys: pytest.CaptureFixture[str], choices: list[LevelChoice], lines: list[str]
) -> None:
    note_levels(choices, "files")
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == ("", lines)


def test_foreign_families_are_named_and_pinned_ones_where_mixtures_are_trained(
    capsys: pytest.CaptureFixture[str], families: dict[str, Family]
) -> None:
    pinned = list(families.values())[:2]
    note_family_levels(pinned, "auto", trains=False)
    assert capsys.readouterr().err == ""
    note_family_levels(pinned, "auto")
    assert capsys.readouterr().err == "nngen: isolation process: every family is from the pinned LEMUR wheel\n"
    note_family_levels([*pinned, make_family("Mine", "class Net: ...")], "auto", trains=False)
    assert "isolation sandbox: family Mine is not from the pinned LEMUR wheel (1 of 3" in capsys.readouterr().err


def test_a_foreign_family_is_measured_in_the_sandbox_or_refused_in_one_line(
    nngen, wheel, tmp_path, monkeypatch
) -> None:
    example = Path(__file__).parents[2] / "examples" / "families" / "Pebble.py"
    (tmp_path / "Mine.py").write_text(example.read_text() + "\n# mine\n")
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NNGEN_LEMUR", str(wheel))
    arguments = ("families", "--families", "Mine", "--families-from", tmp_path, "--shape", "3x32x32", "--json")
    monkeypatch.setenv("PATH", str(tmp_path))
    refused = nngen(*arguments)
    assert refused.code == 2 and "bubblewrap" in refused.err and "--isolation process" in refused.err
    measured = nngen(*arguments, "--isolation", "process")
    assert (measured.code, json.loads(measured.out)[0]["usable"]) == (0, True), measured.err
    assert measured.err.startswith("nngen: isolation process: as asked with --isolation")
