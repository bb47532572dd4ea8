"""Metrics of classifiers from stored predictions, labels and logits."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.quality.metrics import kept_logits, measure, quality_of
from nngen.archive import Archive
from nngen.testing.fakes import fake_campaign
from nngen.training.state.checkpoints import LOGITS


def classes(*values):
    return np.array(values, "<u2")


def test_metrics_of_unequal_classes():
    labels = classes(*[0] * 8, 1, 1)
    found = measure(classes(*[0] * 9, 1), labels, class_names=["cat", "dog"])
    assert (found.images, found.accuracy, found.balanced_accuracy) == (10, 0.9, 0.75)
    assert found.macro_f1 == pytest.approx((16 / 17 + 2 / 3) / 2)
    assert found.confusion == ((8, 0), (1, 1))
    cat, dog = found.classes
    assert (cat.name, cat.images, cat.accuracy, cat.mistakes) == ("cat", 8, 1.0, "")
    assert (dog.name, dog.images, dog.accuracy, dog.mistakes) == ("dog", 2, 0.5, "cat (1)")
    assert found.top5_accuracy is found.calibration_error is None
    assert json.loads(json.dumps(found.to_dict()))["per_class"][1]["taken_for"] == {"cat": 1}


def test_classes_without_images_and_classes_that_are_never_right():
    found = measure(classes(3, 3, 0), classes(1, 1, 0))
    assert found.balanced_accuracy == 0.5
    assert [one.accuracy for one in found.classes] == [1.0, 0.0, None, None]
    assert found.class_names == ("0", "1", "2", "3")


def test_top_five_and_calibration():
    logits = np.zeros((4, 7), np.float32)
    logits[:, :5] = [5, 4, 3, 2, 1]
    found = measure(classes(0, 0, 0, 0), classes(0, 4, 5, 6), logits=logits)
    assert found.top5_accuracy == 0.5
    confidence = np.exp(5) / np.exp([5, 4, 3, 2, 1, 0, 0]).sum()
    assert found.calibration_error == pytest.approx(abs(confidence - 0.25))


def test_certain_and_right_predictions_are_calibrated():
    logits = np.eye(6, dtype=np.float32) * 100
    found = measure(classes(*range(6)), classes(*range(6)), logits=logits)
    assert (found.calibration_error, found.top5_accuracy) == (pytest.approx(0.0, abs=1e-6), 1.0)


def test_metrics_of_many_classes_as_a_whole():
    labels = classes(0, 0, 0, 0, 0, 0, 0, 0, 1, 2)
    found = measure(classes(0, 1, 1, 2, 3, 4, 4, 4, 1, 1), labels, class_names=["a", "b", "c", "d", "e"])
    first = found.classes[0]
    assert (first.images, first.accuracy) == (8, 0.125)
    assert first.taken_for == (("e", 3), ("b", 2), ("c", 1), ("d", 1))
    assert first.mistakes == "e (3), b (2) and 2 more"
    assert found.classes[2].taken_for == (("b", 1),)
    assert found.summary == {
        "images": 10,
        "accuracy": 0.2,
        "balanced_accuracy": pytest.approx((1 / 8 + 1 + 0) / 3),
        "macro_f1": pytest.approx((2 / 9 + 2 / 5 + 0 + 0 + 0) / 5),
        "top5_accuracy": None,
        "calibration_error": None,
    }
    written = found.to_dict()
    assert written["per_class"][2] == {"class": "c", "images": 1, "accuracy": 0.0, "taken_for": {"b": 1}}
    assert [row["class"] for row in written["per_class"]] == list("abcde") == list(written["class_names"])
    assert written["confusion"][0] == (1, 2, 1, 1, 3)
    many = replace(found, confusion=((2000, 0), (1500, 0)), class_names=("a", "b"))
    assert many.classes[1].mistakes == "a (1,500)"


@pytest.mark.parametrize(("width", "top5"), [(4, None), (5, None), (6, 1.0)])
def test_five_most_likely_are_told_of_six_classes_and_more(width, top5):
    logits = np.eye(width, dtype=np.float32)
    found = measure(classes(0, 1, 2), classes(0, 1, 2), logits=logits[:3])
    assert (found.top5_accuracy, found.calibration_error is not None) == (top5, True)
    assert found.class_names == tuple(map(str, range(width)))
    named = measure(classes(0, 1, 2), classes(0, 1, 2), logits=logits[:3], class_names=["x"] * (width + 1))
    assert (named.calibration_error, named.top5_accuracy) == (None, None)  # logits of other classes


def test_the_calibration_error_is_over_fifteen_bins_of_confidence():
    confidence = np.array([0.51, 0.52, 0.54, 0.61, 0.66, 0.9, 0.92, 1.0])
    right = np.array([1, 0, 0, 1, 0, 1, 1, 1], bool)
    logits = np.log(np.column_stack([np.maximum(1 - confidence, 1e-30), confidence])).astype(np.float32)
    found = measure(np.ones(8, "<u2"), right.astype("<u2"), logits=logits)
    # Bins of a fifteenth: from 7/15 to 8/15, to 9/15, to 10/15, and the last two.
    bins = [[0, 1], [2], [3, 4], [5, 6], [7]]
    assert [int(value * 15) for value in confidence] == [7, 7, 8, 9, 9, 13, 13, 15]
    distances = [abs(right[members].sum() - confidence[members].sum()) for members in bins]
    assert found.calibration_error == pytest.approx(sum(distances) / 8, rel=1e-5)


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as store:
        yield store


def named(campaign, names):
    inputs = replace(campaign.inputs, dataset=replace(campaign.inputs.dataset, class_names=names))
    return replace(campaign, inputs=inputs)


def test_every_campaign_stores_what_metrics_need(archive):
    names = tuple("abcdefghij")
    named(fake_campaign(archive), names).run()
    trial = next(one for one in archive.trials("one") if one.trained)
    found = quality_of(archive, trial)
    assert found.accuracy == trial.validation_accuracy
    assert (found.class_names, found.images) == (names, 40)


def test_a_campaign_of_an_earlier_version_gets_them_when_it_is_resumed(archive):
    fake_campaign(archive).run()
    trial = archive.trials("one")[0]
    for table in ("labels", "class_names"):
        archive._db.execute(f"DROP TRIGGER {table}_no_delete")
        archive._db.execute(f"DELETE FROM {table}")
    archive._db.commit()
    assert quality_of(archive, trial) is None
    fake_campaign(archive).run()
    assert quality_of(archive, trial) is not None


def test_logits_beside_the_weights_count_where_they_agree_with_the_predictions(archive):
    from safetensors.numpy import save_file

    fake_campaign(archive).run()
    trial = archive.trials("one")[0]
    predicted = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
    assert kept_logits(archive, trial, predicted) is None
    folder = archive.weights / f"trial-{trial.id}"
    folder.mkdir(parents=True)
    save_file({"validation": np.eye(10, dtype=np.float16)[predicted]}, folder / f"{LOGITS}.safetensors")
    assert quality_of(archive, trial).calibration_error is not None
    save_file({"validation": np.eye(10, dtype=np.float16)[(predicted + 1) % 10]}, folder / f"{LOGITS}.safetensors")
    assert quality_of(archive, trial).calibration_error is None
    (folder / f"{LOGITS}.safetensors").write_bytes(b"damaged")
    assert quality_of(archive, trial).calibration_error is None


def test_logits_are_read_from_a_plain_file_of_their_size(archive, tmp_path):
    from safetensors.numpy import save_file

    fake_campaign(archive).run()
    trial = archive.trials("one")[0]
    predicted = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
    (archive.weights / f"trial-{trial.id}").mkdir(parents=True)
    path = archive.weights / f"trial-{trial.id}" / f"{LOGITS}.safetensors"
    save_file({"validation": np.eye(10, dtype=np.float16)[predicted]}, tmp_path / "elsewhere")
    # The candidate's process wrote what stands there: a link is not followed, and a pipe is not waited for.
    path.symlink_to(tmp_path / "elsewhere")
    assert kept_logits(archive, trial, predicted) is None
    path.unlink()
    os.mkfifo(path)
    assert kept_logits(archive, trial, predicted) is None
    path.unlink()
    shutil.copy(tmp_path / "elsewhere", path)
    assert kept_logits(archive, trial, predicted) is not None


def test_a_trial_without_an_accuracy_or_with_other_images_has_no_quality(archive):
    fake_campaign(archive).run()
    trial = archive.trials("one")[0]
    assert quality_of(archive, trial).images == 40
    assert quality_of(archive, replace(trial, validation_accuracy=None)) is None
    assert quality_of(archive, replace(trial, data_fingerprint="other")) is None
    assert quality_of(archive, replace(trial, id=10**6)) is None


def test_logits_of_another_trial_count_for_its_copy_where_their_number_fits(archive):
    fake_campaign(archive).run()
    trial = archive.trials("one")[0]
    predicted = np.frombuffer(archive.predictions(trial.id, "validation"), "<u2")
    logits = np.eye(10, dtype="<f2")[predicted]

    class Kept:
        """An archive that keeps these logits, with a folder of weights or without one."""

        weights, content = None, b""
        campaign = staticmethod(archive.campaign)

        def logits(self, trial_id):
            assert trial_id == trial.id
            return self.content

    kept = Kept()
    kept.content = logits.tobytes()
    assert np.array_equal(kept_logits(kept, trial, predicted), logits.astype(np.float32))
    assert kept_logits(kept, trial, predicted).dtype == np.float32
    assert kept_logits(kept, trial, predicted[:-1]) is None
    assert kept_logits(kept, trial, predicted[:0]) is None
    assert kept_logits(kept, trial, np.r_[predicted[:-1], 10].astype("<u2")) is None  # a class too many
    kept.content = np.where(logits > 0, np.inf, logits).astype("<f2").tobytes()
    assert kept_logits(kept, trial, predicted) is None
    kept.content = b""
    assert kept_logits(kept, trial, predicted) is None
    folder = archive.weights / f"trial-{trial.id}"
    folder.mkdir(parents=True)
    (folder / f"{LOGITS}.safetensors").write_bytes(b"header" + logits.tobytes())
    copy = replace(trial, id=10**6, copied_from=trial.id)
    assert kept_logits(archive, replace(trial, copied_from=None), predicted) is not None
    assert kept_logits(archive, copy, predicted) is not None
    assert kept_logits(archive, replace(copy, copied_from=None), predicted) is None
    (folder / f"{LOGITS}.safetensors").write_bytes(b" " * 2**16 + logits.tobytes())
    assert kept_logits(archive, copy, predicted) is not None
    (folder / f"{LOGITS}.safetensors").write_bytes(b" " * (2**16 + 1) + logits.tobytes())
    assert kept_logits(archive, copy, predicted) is None  # no header of nngen is so long
