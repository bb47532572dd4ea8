"""Command ``nngen check``."""

import json

import pytest

from nngen.checks.rules.sample_nets import mixture_source, net_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("candidates")
    (place / "good.py").write_text(mixture_source())
    (place / "loops.py").write_text("while True: pass\n" + net_source())
    (place / "text.py").write_bytes(b"x = '\xff'\n")
    (place / "wide.py").write_text(net_source().replace("'momentum'}", "'momentum', 'width'}"))
    (place / "notes.txt").write_text("no candidate")
    return place


def test_rows_of_a_folder(nngen, folder):
    result = nngen("check", folder, "--shape", "1x8x8", "--time-limit", "3", "--isolation", "process", "--json")
    rows = {row["path"].rpartition("/")[2]: row for row in json.loads(result.out)}
    assert result.code == 3
    assert result.err.splitlines() == ["nngen: isolation process: as asked with --isolation", "nngen: 3 of 4 failed"]
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "good.py": "valid",
        "loops.py": "timeout",
        "text.py": "syntax",
        "wide.py": "contract",
    }
    assert all(set(row) == {"path", "valid", "verdict", "message", "isolation", "warning"} for row in rows.values())
    assert [row["valid"] for row in rows.values()] == [True, False, False, False]
    assert "3 s" in rows["loops.py"]["message"]
    assert rows["wide.py"]["message"].endswith("--prm width=VALUE")


def test_a_hyperparameter_from_the_command_line(nngen, folder):
    result = nngen(
        "check",
        folder / "wide.py",
        folder / "good.py",
        "--shape",
        "1x8x8",
        "--prm",
        "width=3",
        "--isolation",
        "process",
    )
    assert result.code == 0
    assert "good.py" in result.out
    assert result.err == "nngen: isolation process: as asked with --isolation\n"


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["missing.py"], "no file or folder missing.py"),
        (["{empty}"], "has no .py file"),
        (["{folder}", "--shape", "32"], "'32' is not a shape"),
        (["{folder}", "--prm", "width"], "'width' is not NAME=VALUE"),
        (["{folder}", "--isolation", "jail"], "choose auto, process, sandbox, none"),
        (["{folder}", "--device", "tpu"], "choose auto, cpu or cuda"),
    ],
)
def test_mistakes_get_one_line(tokens, message, nngen, folder, tmp_path):
    result = nngen("check", *(token.format(folder=folder, empty=tmp_path) for token in tokens))
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_file_from_outside_is_not_run_without_a_sandbox(command, nngen, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = nngen(command, folder / "good.py", "--shape", "1x8x8")
    assert result.code == 2
    assert "apt-get install bubblewrap, or take the risk with --isolation process" in result.err
    assert result.out == ""


def test_large_constants_of_a_foreign_file_are_a_warning(nngen, tmp_path):
    path = tmp_path / "table.py"
    path.write_text("ANSWERS = [" + "7, " * 400 + "]\n" + net_source())
    result = nngen("check", path, "--shape", "1x8x8", "--isolation", "process", "--json")
    (row,) = json.loads(result.out)
    assert row["valid"] and "line 1 holds a table of 400 constants" in row["warning"]
    assert f"{path}: it may carry the answers to a data set" in result.err
