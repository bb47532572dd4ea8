"""Command ``nngen train``."""

import json
import subprocess
import sys

import pytest

from nngen.archive import Archive
from nngen.checks.rules.sample_nets import net_source
from nngen.lemur.layout import nn_id

KEYS = [
    *("verdict", "validation_accuracy", "seconds", "epochs", "seed", "augment", "batch", "parameters", "message"),
    *(
        "suspect",
        "id",
        "train_size",
        "quality",
        "curve",
        "batches_tried",
        "prm",
        "energy_j",
        "data_fingerprint",
        "isolation",
        "environment",
    ),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "linear.py"
    path.write_text(net_source())
    return path


def test_one_trial_as_json(nngen, file):
    result = nngen(
        "train",
        file,
        "--epochs",
        "2",
        "--lr",
        "0.05",
        "--shape",
        "1x8x8",
        "--seed",
        "3",
        "--isolation",
        "process",
        "--json",
    )
    trial = json.loads(result.out)
    assert result.code == 0
    assert list(trial) == KEYS
    assert trial["verdict"] == "valid"
    assert trial["validation_accuracy"] > 0.8
    assert trial["validation_accuracy"] == trial["curve"][-1]["validation_accuracy"]
    assert trial["id"] == nn_id(net_source())
    assert (trial["epochs"], trial["seed"], trial["parameters"]) == (2, 3, 650)
    assert len(trial["curve"]) == 2


def test_two_processes_agree_to_the_last_digit(file):
    command = [sys.executable, "-m", "nngen", "train", str(file), "--shape", "1x16x16", "--isolation", "process"]
    command += ["--test", "--json"]
    first, second = (json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL)) for _ in range(2))
    for key in ("validation_accuracy", "test_accuracy", "parameters"):
        assert first[key] == second[key]
    assert [point["validation_accuracy"] for point in first["curve"]] == [
        point["validation_accuracy"] for point in second["curve"]
    ]


def test_a_file_that_makes_many_passes_is_suspect(nngen, file):
    loop = "for inputs, labels in train_data:"
    many = "for inputs, labels in (batch for _ in range(50) for batch in train_data):"
    file.write_text(net_source().replace(loop, many))
    result = nngen("train", file, "--shape", "1x8x8", "--isolation", "process")
    assert result.code == 0, result.err
    assert "suspect" in result.out
    assert "50 passes in epoch 1" in result.out
    file.write_text(net_source())
    assert "suspect" not in nngen("train", file, "--shape", "1x8x8", "--isolation", "process").out


def test_a_table_with_the_test_accuracy(nngen, file):
    result = nngen("train", file, "--shape", "1x8x8", "--isolation", "process", "--test")
    assert result.code == 0
    assert "test" in result.out.splitlines()[0].split()
    assert result.err == "nngen: isolation process: as asked with --isolation\n"


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        (net_source(init="import os; os._exit(0)"), "crashed"),
        (net_source(init="any(iter(int, 1))"), "timeout"),
    ],
)
def test_a_failed_trial_says_its_verdict_and_ends_with_1(source, verdict, nngen, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(source)
    result = nngen("train", path, "--shape", "1x8x8", "--time-limit", "3", "--isolation", "process", "--json")
    trial = json.loads(result.out)
    assert result.code == 1
    assert trial["verdict"] == verdict
    assert trial["validation_accuracy"] is None
    level, line = result.err.splitlines()
    assert level == "nngen: isolation process: as asked with --isolation"
    assert line.startswith(f"nngen: {path}: {verdict}: ")


@pytest.mark.parametrize(
    ("tokens", "code", "message"),
    [
        (["missing.py"], 2, "no file or folder missing.py"),
        (["{file}", "--dataset", "imagenet"], 2, "no data set is called 'imagenet'"),
        (["{file}", "--dataset", "folder:/nowhere"], 1, "/nowhere is not a folder"),
        (["{file}", "--shape", "0x8x8"], 2, "is not a shape"),
        (["{file}", "--epochs", "0"], 2, "epochs"),
        (["{file}", "--train-size", "0"], 2, "--train-size must be a whole number from 1"),
        (["{file}", "--train-size", "9"], 2, "--train-size 9: digits has 10 classes, and each needs an image"),
        (["{file}", "--train-size", "2000"], 2, "digits has 1,151 training images; leave it out for all"),
        (["{file}", "--device", "cuda"], 2, "no CUDA device"),
    ],
)
def test_mistakes_get_one_line(tokens, code, message, nngen, file):
    if "cuda" in tokens:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
    result = nngen("train", *(token.format(file=file) for token in tokens))
    assert result.code == code
    assert result.out == ""
    assert message in result.err
    assert len(result.err.splitlines()) == 1


@pytest.fixture
def two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, width in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}.py").write_text(f"WIDTH = {width}\n" + net_source())
    return ("train", "one.py", "two.py", "--shape", "1x8x8", "--isolation", "process")


def test_files_with_a_name_are_a_campaign_that_resumes(nngen, two, tmp_path):
    begun = nngen(*two, "--name", "mine", "--max-trials", "1")
    assert (begun.code, "mine 1/2" in begun.err) == (0, True), begun.err
    assert "1 of 2 trials done" in nngen("campaign", "status", "mine").out
    done = nngen(*two, "--name", "mine", "--max-trials", "2", "--json")
    rows = json.loads(done.out)
    assert [row["path"] for row in rows] == ["one.py", "two.py"]
    assert "mine: 1 of 2 trials are done already" in done.err
    assert nngen("leaderboard", "mine").out.count("digits  ") == 2
    assert "nngen leaderboard mine ranks them" in nngen("report", "mine", "--out", "mine.html").err
    with Archive.open(tmp_path / "nngen.db", readonly=True) as archive:
        assert [trial.validation_accuracy for trial in archive.trials("mine")] == [
            row["validation_accuracy"] for row in rows
        ]
    other = nngen(*two, "--name", "mine", "--epochs", "2")
    assert (other.code, "mine began with --epochs 1" in other.err) == (2, True)
    fewer = nngen(*two[:2], *two[3:], "--name", "mine")
    assert (fewer.code, "began with other candidates" in fewer.err) == (2, True)


def test_several_files_are_several_rows_and_a_failed_one_ends_with_3(nngen, two, tmp_path):
    (tmp_path / "two.py").write_text(net_source(init="raise ValueError('no')"))
    result = nngen(*two, "--workers", "2")
    assert result.code == 3
    assert result.err.splitlines()[-1] == "nngen: 1 of 2 failed"
    assert not (tmp_path / "nngen.db").exists()
    assert result.out.count(".py") == 2
