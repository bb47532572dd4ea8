"""Names, ids and files in LEMUR's layout, compared with its wheel."""

import json
import random
import zipfile

import pytest

from nngen.errors import UsageError
from nngen.lemur.layout import (
    EpochScore,
    LemurVersion,
    check_names,
    digest,
    entry,
    merge_entries,
    nn_id,
    stat_id,
    uid,
    write_entries,
)
from nngen.lemur.records import Results

MODEL = "MoE4-" + "0" * 32
RESULTS = Results("img-classification", "cifar-10", "acc", MODEL)
SCORE = EpochScore(
    epoch=1,
    accuracy=0.5,
    duration_ns=2_000_000_000,
    prm={"transform": "norm_32", "lr": 0.01, "batch": 64, "momentum": 0.9, "epoch": 1},
    train_stat={"train_loss": 1.5, "test_loss": None},
)


# A trial shipped in nn-dataset 2.1.2, whose uid is that of a dictionary in unsorted order.
SHIPPED = {"lr": 0.01, "batch": 64, "dropout": 0.2, "momentum": 0.9, "transform": "norm_256_flip"}


def test_a_uid_depends_on_the_order_of_the_keys_and_ours_is_sorted():
    assert digest(SHIPPED) == "268985784c034788d34ad31d0305cb7f"
    assert uid(SHIPPED) == digest(dict(sorted(SHIPPED.items()))) != digest(SHIPPED)
    assert uid(dict(reversed(SHIPPED.items()))) == uid(SHIPPED)
    assert uid(SHIPPED | {"accuracy": 0.5, "duration": 3, "epoch": 7, "uid": "x"}) == uid(SHIPPED)
    assert uid(SHIPPED | {"lr": 0.02}) != uid(SHIPPED)


def test_the_uids_of_a_shipped_family(wheel):
    with zipfile.ZipFile(wheel) as file:
        shipped = json.loads(file.read("ab/nn/stat/train/img-classification_cifar-10_acc_UNet2D/1.json"))
    assert len(shipped) > 20
    assert all(uid(trial) == trial["uid"] for trial in shipped)


def test_generated_names_of_the_wheel_equal_the_hash_of_their_code(wheel):
    with zipfile.ZipFile(wheel) as file:
        members = [name for name in file.namelist() if name.startswith("ab/nn/nn/ast-dimension-AlexNet-")]
        for member in random.Random(0).sample(members, 50):
            name = member.removeprefix("ab/nn/nn/").removesuffix(".py")
            assert f"ast-dimension-AlexNet-{nn_id(file.read(member).decode())}" == name


def test_white_space_does_not_count():
    assert nn_id("if x:\n    y\nz") == nn_id("if x:\n    y\n    z") == nn_id("ifx:yz")


def test_an_entry_of_2_1_2_is_flat_and_sorted():
    written = entry(RESULTS, SCORE, LemurVersion.V2_1_2)
    assert list(written) == sorted(written)
    assert set(written) == {"accuracy", "batch", "duration", "epoch", "lr", "momentum", "transform", "uid"}
    assert (written["accuracy"], written["duration"], written["epoch"]) == (0.5, 2_000_000_000, 1)


def test_an_entry_of_2_2_11_has_its_figures_beside():
    written = entry(RESULTS, SCORE, LemurVersion.V2_2_11)
    assert list(written) == sorted(written)
    assert written["uid"] == entry(RESULTS, SCORE, LemurVersion.V2_1_2)["uid"]
    assert written["metric_acc"] == 0.5
    assert written["duration_seconds"] == 2.0
    assert [written[key] for key in ("task", "dataset", "metric", "model")] == list(RESULTS)
    assert written["train_stat"] == {"train_loss": 1.5, "test_loss": None}


def test_merging_is_idempotent_and_best_first():
    worse = entry(RESULTS, SCORE, LemurVersion.V2_1_2)
    better = worse | {"accuracy": 0.75}
    once = merge_entries(RESULTS, 1, [worse], [better])
    assert once == [better, worse]
    assert merge_entries(RESULTS, 1, once, [better, worse]) == once
    assert json.loads(write_entries(once)) == once


def test_the_key_of_a_row_tells_trials_apart():
    same = stat_id(RESULTS, SCORE)
    assert same == stat_id(RESULTS, SCORE)
    assert same != stat_id(RESULTS._replace(dataset="mnist"), SCORE)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (RESULTS._replace(dataset="my_data"), "data set 'my_data' has an underscore"),
        (RESULTS._replace(model="MoE_4-" + "0" * 32), "has an underscore"),
        (RESULTS._replace(task="img classification"), "cannot be a name"),
        (RESULTS._replace(model="ResNet"), "not named as LEMUR names"),
    ],
)
def test_names_that_lemur_cannot_read_are_refused(results, message):
    check_names(RESULTS)
    with pytest.raises(UsageError, match=message):
        check_names(results)
