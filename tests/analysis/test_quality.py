"""Tests of metrics from stored predictions, and of the trivial baselines beside the best accuracy."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from nngen.analysis.quality.baselines import baselines_of
from nngen.analysis.quality.metrics import kept_logits, measure, quality_of
from nngen.archive import Archive
from nngen.campaign.summary import summarise
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_families
from nngen.training.state.checkpoints import LOGITS
from nngen.types import Record


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


def test_the_most_frequent_class_and_the_best_family_alone_stand_beside_the_best(archive):
    main = named(fake_campaign(archive), tuple("abcdefghij"))
    before = main.run().baselines
    assert (before.majority, before.majority_class, before.alone, before.record) == (0.1, "a", None, None)
    main.baselines().run()
    alone = {trial.experts[0]: trial.validation_accuracy for trial in archive.trials("one-alone-2")}
    after = summarise(archive, "one").baselines
    assert after.alone == alone[after.family] == max(alone.values())
    assert after.lines[0] == "0.1000 always the most frequent class, a"


def test_families_alone_at_another_fidelity_are_not_compared(archive):
    fake_campaign(archive, epochs=3).run()
    fake_campaign(archive, epochs=3).baselines().run()
    fake_campaign(archive, name="two", epochs=1).run()
    assert summarise(archive, "two").baselines.alone is None


def test_a_record_of_lemur_is_one_on_the_same_data(archive):
    campaign = fake_campaign(archive, engine=FakeEngine())
    families = {
        name: (replace(family, best=record("digits" if name == "A" else "cifar-10", name)), accepts)
        for name, (family, accepts) in fake_families("ABCDEFG").items()
    }
    replace(campaign, inputs=replace(campaign.inputs, families=families)).run()
    found = baselines_of(archive, archive.campaign("one"), None)
    assert (found.record.model, found.record.accuracy) == ("A", 0.9)
    assert "LEMUR's record, A, 3 epochs" in found.lines[-1]


def record(dataset, model):
    return Record(model=model, dataset=dataset, epoch=3, accuracy=0.9, duration_s=1.0, hyperparameters={})
