"""Use of kept weights beyond prediction: exports with them, a folder for the model hub, means of several models."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from nngen.training import LocalEngine

pytestmark = [pytest.mark.engine, pytest.mark.long]

LEVEL = ("--isolation", "process")


def without_nngen(code, folder):
    """Run Python code in a folder, in a process where nngen cannot be imported; return its output."""
    program = f"import sys\nsys.modules['nngen'] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snippet(folder):
    """Return the program of the model card in a folder."""
    (found,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return found


def images(folder, split="val"):
    return sorted((folder / "images" / split).glob("*/*.png"))


@pytest.fixture
def untrained(monkeypatch):
    """Fail where anything is trained again."""
    monkeypatch.setattr(LocalEngine, "train", lambda *_, **__: pytest.fail("trained again"))


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("campaign", ["mixture", "linear"])
def test_the_exported_folder_gives_the_classes_that_the_trial_recorded(
    campaign, nngen, archive, folder, recorded, tmp_path
):
    found, wanted = recorded(archive, campaign)
    out = tmp_path / "out"
    told = nngen("export", campaign, "--format", "hf", "--out", out, *LEVEL, "--json")
    (row,) = json.loads(told.out)
    assert told.code == 0, told.err
    assert (row["model"], row["kept_weights"], row["same_predictions"]) == (found, True, True)
    names = {"README.md", "classify.py", "config.json", "model.py", "model.safetensors", "requirements.txt"}
    assert {file.name for file in out.iterdir()} == names
    shutil.copy(images(folder)[0], out / "photo.jpg")
    assert without_nngen(snippet(out), out) == f"['{wanted[0]}']\n"
    everyone = f"{[str(file) for file in images(folder)]!r}"
    code = snippet(out).replace('["photo.jpg"]', everyone)
    assert without_nngen(code, out) == f"{wanted}\n"


def test_the_card_is_one_of_the_hub_and_names_no_folder_of_this_machine(nngen, archive, folder, recorded, tmp_path):
    cards = pytest.importorskip("huggingface_hub").ModelCard
    found, _ = recorded(archive, "linear")
    nngen("export", found[:12], "--format", "hf", "--out", tmp_path, *LEVEL)
    (trial,) = archive.trials("linear")
    loaded = cards.load(tmp_path / "README.md")
    (result,) = loaded.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("images", "accuracy", trial.test_accuracy)
    assert loaded.data.pipeline_tag == "image-classification"
    # 50 images of validation: Wilson's interval of the trial's accuracy.
    assert re.search(rf"\| {trial.validation_accuracy:.4f} \(0\.\d{{4}} to [01]\.\d{{4}}\) \|", loaded.text)
    assert "120 to train on, 50 for validation, 30 for the test" in loaded.text
    assert "digit 0, digit 1, " in loaded.text
    assert "its licence is that of its authors" in loaded.text
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert str(folder).encode() not in everything


@pytest.mark.slow
@pytest.mark.usefixtures("untrained")
def test_the_graph_gives_the_classes_that_the_trial_recorded(nngen, archive, folder, recorded, tmp_path):
    pytest.importorskip("onnxscript")
    _, wanted = recorded(archive, "linear")
    assert nngen("export", "linear", "--format", "hf", "--onnx", "--out", tmp_path, *LEVEL).code == 0
    files = [str(file) for file in images(folder)]
    assert "`Classifier(onnx=True)` runs `model.onnx`" in (tmp_path / "README.md").read_text()
    code = snippet(tmp_path).replace('["photo.jpg"]', repr(files)).replace("Classifier()", "Classifier(onnx=True)")
    assert without_nngen(code, tmp_path) == f"{wanted}\n"


def test_another_model_in_the_folder_is_not_overwritten(nngen, archive, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    before = [file.name for file in tmp_path.iterdir()]
    told = nngen("export", "linear", "--format", "hf", "--out", tmp_path, *LEVEL)
    assert (told.code, told.out) == (1, "")
    assert "config.json is not of an export of nngen: name another folder with --out" in told.err
    assert [file.name for file in tmp_path.iterdir()] == before
    (tmp_path / "config.json").unlink()
    assert nngen("export", "linear", "--format", "hf", "--out", tmp_path, *LEVEL).code == 0
    (tmp_path / "model.onnx").write_bytes(b"of an earlier export")
    told = nngen("export", "mixture", "--format", "hf", "--out", tmp_path, *LEVEL)
    assert "model.onnx is of an earlier export: remove it, or replace it with --onnx" in told.err
    (tmp_path / "model.onnx").unlink()
    assert nngen("export", "mixture", "--format", "hf", "--out", tmp_path, *LEVEL).code == 0
    assert (tmp_path / "model.py").read_text().startswith('"""')


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("--format", "hub", "--out", "x"), "--format is lemur or hf, not 'hub'"),
        (("--format", "hf", "--out", "x.db"), "a database holds no weights"),
    ],
)
def test_other_formats_are_refused(tokens, words, nngen, archive):
    told = nngen("export", "linear", *tokens)
    assert (told.code, told.out) == (2, "")
    assert words in told.err


@pytest.mark.usefixtures("untrained")
def test_an_export_to_lemur_takes_kept_weights(nngen, archive, folder, recorded, tmp_path):
    found, wanted = recorded(archive, "mixture")
    told = nngen("export", "mixture", "--weights", "--out", tmp_path, "--dataset-name", "mine", *LEVEL, "--json")
    assert told.code == 0, told.err
    (row,) = json.loads(told.out)
    assert (row["kept_weights"], row["same_predictions"]) == (True, True)
    card = (tmp_path / "cards" / f"{found}.md").read_text()
    assert "kept; with them the network predicts every test image as the trial did" in card
    (command,) = re.findall(r"^python (weights/.*classify\.py) photo\.jpg$", card, re.MULTILINE)
    files = [str(file) for file in images(folder)]
    code = f"import runpy\nsys.argv = ['', *{files!r}]\nrunpy.run_path({command!r}, run_name='__main__')"
    answers = without_nngen(code, tmp_path).splitlines()
    assert [line.split("\t")[:2] for line in answers] == [list(pair) for pair in zip(files, wanted, strict=True)]


@pytest.fixture
def moved(folder, tmp_path, monkeypatch):
    """A copy of the archive with its weights."""
    shutil.copy(folder / "a.db", tmp_path / "a.db")
    shutil.copytree(folder / "a.db.weights", tmp_path / "a.db.weights")
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    return tmp_path


def test_without_usable_weights_an_export_trains_again_and_says_so(nngen, archive, moved):
    (trial,) = archive.trials("linear")
    kept = moved / "a.db.weights" / f"trial-{trial.id}"
    tokens = ("export", "linear", "--format", "hf", "--out", moved / "out", *LEVEL, "--json")
    (kept / "weights.safetensors").write_bytes(b"x")
    told = nngen(*tokens)
    assert f"{trial.candidate_id} is trained again: no prediction with " in told.err
    (row,) = json.loads(told.out)
    assert (row["kept_weights"], row["same_predictions"]) == (False, True)
    shutil.rmtree(kept)
    told = nngen(*tokens)
    assert "1 of 1 trials kept no weights and are trained again" in told.err
    assert (told.code, json.loads(told.out)[0]["same_predictions"]) == (0, True)


# Means of several models


def shares(archive, campaign):
    """Return the probabilities of the validation images by the logits that a campaign's trial kept."""
    (trial,) = archive.trials(campaign)
    stored = load_file(archive.weights / f"trial-{trial.id}" / "logits.safetensors")["validation"]
    return stored.double().softmax(1).numpy()


def test_an_ensemble_has_the_accuracy_of_the_mean_of_probabilities(nngen, archive, folder):
    labels = [int(file.parent.name.split()[1]) for file in images(folder)]
    told = nngen("ensemble", "mixture", "linear", "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    names = ("mixture", "linear")
    single = [float(np.mean(shares(archive, name).argmax(1) == labels)) for name in names]
    assert [row["validation_accuracy"] for row in found["members"]] == single
    assert single == [archive.trials(name)[0].validation_accuracy for name in names]
    together = (shares(archive, "mixture") + shares(archive, "linear")).argmax(1) == labels
    assert found["mean"]["validation_accuracy"] == together.mean()
    assert found["over_best"]["mean"] == pytest.approx(together.mean() - max(single))
    assert found["mean"]["low"] < together.mean() < found["mean"]["high"]
    told = nngen("ensemble", "mixture", "linear")
    assert "mean of 2" in told.out and f"{together.mean():.4f}" in told.out
    assert told.next.startswith("nngen ensemble mixture linear --images FOLDER")


def test_an_ensemble_without_kept_logits_runs_the_weights(nngen, archive, moved):
    before = json.loads(nngen("ensemble", "mixture", "linear", "--json").out)
    for file in (moved / "a.db.weights").glob("*/logits.safetensors"):
        file.write_bytes(b"damaged")
    told = nngen("ensemble", "mixture", "linear", *LEVEL, "--json")
    assert told.code == 0, told.err
    assert json.loads(told.out) == before


def test_an_ensemble_classifies_images(nngen, archive, folder):
    place = folder / "images" / "test"
    told = nngen("ensemble", "mixture", "linear", "--images", place, "--top", "10", *LEVEL, "--json")
    assert told.code == 0, told.err

    def table(text):
        rows = json.loads(text)
        return [{one["class"]: one["probability"] for one in row["classes"]} for row in rows]

    each = [table(nngen("predict", name, place, "--top", "10", *LEVEL, "--json").out) for name in ("mixture", "linear")]
    for mean, first, second in zip(table(told.out), *each, strict=True):
        assert mean == pytest.approx({name: (first[name] + second[name]) / 2 for name in first}, abs=1e-6)


def test_what_is_no_ensemble_is_refused(nngen, archive, folder, recorded, moved):
    found, _ = recorded(archive, "linear")
    digits = ("--name", "other", "--dataset", "digits", "--shape", "1x16x16", "--epochs", "1", *LEVEL)
    assert nngen("train", folder / "linear.py", *digits, "--prm", "dropout=0.1").code == 0
    (moved / "a.db.weights" / "notes.txt").write_text("no image")
    for words, tokens in (
        ("an ensemble has two models at least", ("linear",)),
        (f"{found} is named 2 times", ("linear", found[:10])),
        ("on digits, with other images or classes: an ensemble needs", ("mixture", "other")),
        ("--csv is for --images", ("linear", "mixture", "--csv")),
        ("no candidate 'nothing'", ("linear", "nothing")),
        ("has no image", ("linear", "mixture", "--images", moved / "a.db.weights")),
    ):
        told = nngen("ensemble", *tokens)
        assert (told.code, told.out) == (2, ""), words
        assert words in told.err


def test_a_data_set_that_vanished_between_two_runs_is_named(nngen, archive, folder, moved):
    shutil.copytree(folder / "images", moved / "images")
    begun = ("train", folder / "linear.py", "--name", "again", *LEVEL)
    settings = ("--dataset", f"folder:{moved / 'images'}", "--epochs", "1", "--batch", "16")
    assert nngen(*begun, *settings).code == 0
    (moved / "images").rename(moved / "elsewhere")
    told = nngen(*begun)
    assert (told.code, told.out) == (1, "")
    assert told.err == (
        f"nngen: {moved / 'images'} is not a folder: put it back, or name its place with --dataset folder:PATH\n"
    )
    assert nngen(*begun, "--dataset", f"folder:{moved / 'elsewhere'}").code == 0
    (moved / "elsewhere" / "train" / "digit 0" / "00.png").unlink()
    told = nngen(*begun, "--dataset", f"folder:{moved / 'elsewhere'}")
    assert (told.code, told.out) == (1, "")
    assert "has changed since campaign again began: choose another name" in told.err
