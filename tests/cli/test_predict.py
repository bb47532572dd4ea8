"""Prediction with kept weights: ``nngen predict`` and ``nngen.load`` give the classes that the trial recorded."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import nngen
from nngen.archive import Archive
from nngen.errors import DataError, UsageError

pytestmark = [pytest.mark.engine, pytest.mark.long]


@pytest.mark.parametrize("campaign", ["mixture", "linear"])
def test_the_classes_are_those_that_the_trial_recorded(campaign, nngen, archive, folder, recorded):
    found, wanted = recorded(archive, campaign)
    predicted = nngen("predict", found, folder / "images" / "val", "--isolation", "process", "--json")
    rows = json.loads(predicted.out)
    assert predicted.code == 0
    assert [row["classes"][0]["class"] for row in rows] == wanted
    assert len(set(wanted)) > 2 or campaign == "mixture"
    stored = load_file(archive.weights / f"trial-{archive.trials(campaign)[0].id}" / "logits.safetensors")["validation"]
    shares = stored.float().softmax(1).amax(1).tolist()
    assert [row["classes"][0]["probability"] for row in rows] == pytest.approx(shares, abs=0.01)
    assert rows[0]["image"] == str(folder / "images" / "val" / "digit 0" / "12.png")


@pytest.mark.parametrize("campaign", ["mixture", "linear"])
def test_a_loaded_model_gives_the_same_classes(campaign, archive, folder, recorded):
    found, wanted = recorded(archive, campaign)
    before = torch.get_rng_state()
    model = nngen.load(found, trust=campaign == "linear")
    assert torch.equal(before, torch.get_rng_state())
    files = sorted((folder / "images" / "val").glob("*/*.png"))
    assert model.classify(files) == wanted
    assert not model.training
    assert torch.allclose(model.probabilities(files[:3]).sum(1), torch.ones(3))
    assert model.class_names[0] == "digit 0"


def test_a_file_of_others_is_loaded_only_if_it_is_trusted(archive, recorded):
    found, _ = recorded(archive, "linear")
    with pytest.raises(UsageError, match="not assembled by nngen: its code would run in this process, so say trust=T"):
        nngen.load(found)


def test_top_csv_and_what_is_not_an_image(nngen, archive, folder, tmp_path, recorded):
    found, wanted = recorded(archive, "mixture")
    first = folder / "images" / "val" / "digit 0" / "12.png"
    told = nngen("predict", found, first, "--top", "3", "--csv")
    head, row = told.out.splitlines()
    assert head == "image,class,probability,class_2,probability_2,class_3,probability_3"
    assert row.startswith(f"{first},{wanted[0]},")
    # A photograph with other channels and another size is brought to the form of the training's images.
    Image.new("RGB", (90, 40), "red").save(tmp_path / "red.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "torn.png").write_bytes(first.read_bytes()[:60])
    told = nngen("predict", found[:8], tmp_path)
    assert told.code == 3
    assert "red.jpg" in told.out and "torn.png" not in told.out and "notes" not in told.out + told.err
    torn, last = told.err.splitlines()[-2:]
    assert "torn.png" in torn
    assert last == "nngen: 1 of 2 images cannot be read"


def test_a_campaign_stands_for_its_best_candidate_and_show_names_the_file(nngen, archive, folder, recorded):
    found, wanted = recorded(archive, "linear")
    image = folder / "images" / "val" / "digit 0" / "12.png"
    told = nngen("predict", "linear", image, "--isolation", "process", "--json")
    assert json.loads(told.out)[0]["classes"][0]["class"] == wanted[0]
    file = archive.weights / f"trial-{archive.trials('linear')[0].id}" / "weights.safetensors"
    assert f"weights    {file} (0.0 MiB)" in nngen("show", found).out
    assert json.loads(nngen("show", found, "--json").out)["trials"][0]["weights"] == str(file)


def test_training_goes_on_from_kept_weights(nngen, archive, folder, recorded):
    found, _ = recorded(archive, "linear")
    before = archive.trials("linear")[0].validation_accuracy
    told = nngen("train", "--from", found, "--epochs", "1", "--lr", "0.0001", "--isolation", "process", "--json")
    trial = json.loads(told.out)
    assert "started from kept weights: 2 of 2 tensors kept; optimizer and schedule made anew" in told.err
    assert (told.code, trial["batch"]) == (0, 16)
    # From new weights such a rate teaches nothing in one epoch.
    assert before > 0.8
    assert trial["validation_accuracy"] > before - 0.1


def test_weights_are_transferred_to_other_classes(nngen, archive, folder, tmp_path):
    for split in ("train", "val", "test"):
        for label in range(5):
            shutil.copytree(folder / "images" / split / f"digit {label}", tmp_path / split / f"{label}")
    tokens = ("train", "--from", "mixture", "--dataset", f"folder:{tmp_path}", "--epochs", "1", "--archive")
    shutil.copy(folder / "a.db", tmp_path / "a.db")
    shutil.copytree(archive.weights, tmp_path / "a.db.weights")
    told = nngen(*tokens, tmp_path / "a.db", "--name", "other", "--isolation", "process")
    assert told.code == 0
    assert "kept weights: 78 of 94 tensors kept; made anew: experts.0.5.bias, experts.0.5.weight," in told.err
    with Archive.open(tmp_path / "a.db", readonly=True) as store:
        (trial,) = store.trials("other")
        assert trial.environment["started_from"].startswith("78 of 94 tensors kept; made anew: experts.0.5.bias")
        assert len(trial.spec.start) == 64
        assert trial.spec.fidelity() != replace(trial.spec, start="").fidelity()
    # What a plain campaign would train from new weights is another trial.
    told = nngen("campaign", "run", "other", "--archive", tmp_path / "a.db")
    assert told.code != 0 or "1 of 1 trials done" in told.out


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ((), "say what to train"),
        (("x.py", "--from", "linear"), "say what to train"),
        (("--from", "linear", "--engine", "ray"), "--from is for --engine local"),
        (("--from", "nothing"), "nothing"),
    ],
)
def test_other_starts_are_refused(tokens, words, nngen, archive):
    told = nngen("train", *tokens)
    assert (told.code, told.out) == (2, "")
    assert words in told.err


def test_bad_input_is_one_line(nngen, archive, folder, tmp_path, recorded):
    found, _ = recorded(archive, "mixture")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    for words, tokens, code in (
        ("notes.txt is not an image", (found, tmp_path / "notes.txt"), 1),
        ("has no image", (found, tmp_path / "empty"), 2),
        ("no file or folder", (found, tmp_path / "none.png"), 2),
        ("candidate", ("MoE9", tmp_path), 2),
        ("choose one", (found, tmp_path, "--csv", "--json"), 2),
    ):
        told = nngen("predict", *tokens)
        assert (told.code, bool(told.out)) == (code, "--json" in tokens)
        assert words in told.err


def test_weights_that_are_missing_damaged_or_of_another_file(nngen, archive, folder, tmp_path, monkeypatch, recorded):
    found, _ = recorded(archive, "mixture")
    image = folder / "images" / "val" / "digit 0" / "12.png"
    root = folder / "a.db.weights"
    names = [f"trial-{archive.trials(name)[0].id}" for name in ("mixture", "linear")]
    copy = tmp_path / "a.db"
    shutil.copy(folder / "a.db", copy)
    monkeypatch.setenv("NNGEN_ARCHIVE", str(copy))
    kept = tmp_path / "a.db.weights" / names[0]

    def refused(words):
        with pytest.raises((DataError, UsageError), match=words):
            nngen_module.load(found)
        told = nngen("predict", found, image)
        assert told.code in (1, 2)
        assert told.out == ""
        assert words in told.err.splitlines()[-1]

    nngen_module = __import__("nngen")
    refused("its 1 trials kept none")
    shutil.copytree(root / names[0], kept)
    shutil.copy(root / names[1] / "weights.safetensors", kept)
    refused("Error")
    (kept / "weights.safetensors").write_bytes(b"x")
    refused("not a safetensors file")
    (kept / "weights.safetensors").unlink()
    refused("weights.safetensors is missing")
    shutil.copy(root / names[0] / "weights.safetensors", kept)
    (kept / "config.json").write_text("{}")
    refused("config.json is missing or damaged")
