"""Sources of LEMUR: equal results from wheel, checkout and database; other files are refused with one line."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nngen.errors import LemurError, UsageError
from nngen.families.catalogue import load_families
from nngen.lemur.database import DatabaseLemur
from nngen.lemur.reader import CheckoutLemur, Lemur
from nngen.lemur.source import install, open_lemur
from nngen.lemur.wheel import WheelLemur
from nngen.types import Record


@pytest.fixture(params=["checkout", "database"])
def part(request: pytest.FixtureRequest) -> Lemur:
    return open_lemur(request.getfixturevalue(request.param))


def ordered(records: tuple[Record, ...]) -> list[Record]:
    return sorted(records, key=lambda r: (r.epoch, -r.accuracy, r.duration_s, str(r.hyperparameters)))


def test_the_wheel_holds_what_it_is_known_to_hold(lemur: Lemur) -> None:
    assert isinstance(lemur, WheelLemur)
    assert len(lemur.models()) == 10_482
    assert len(lemur.records("ResNet")) == 7_672
    assert "class Net(" in lemur.source("ResNet")
    assert lemur.datasets("LSTM") == ("wikitext",)


@pytest.mark.parametrize("model", ["AirNet", "ComplexNet", "SqueezeNet-2"])
@pytest.mark.parametrize("dataset", ["cifar-10", "mnist"])
def test_the_three_agree(part: Lemur, lemur: Lemur, model: str, dataset: str) -> None:
    assert part.source(model) == lemur.source(model)
    assert ordered(part.records(model, dataset)) == ordered(lemur.records(model, dataset))
    assert part.datasets(model) == lemur.datasets(model)


def test_the_three_agree_on_families(part: Lemur, lemur: Lemur) -> None:
    whole = load_families(lemur)
    assert load_families(part) == {name: whole[name] for name in ("AirNet", "ComplexNet", "SqueezeNet-2")}


def test_the_three_agree_on_long_trainings(checkout: Path, database: Path, lemur: Lemur) -> None:
    files, rows = open_lemur(checkout), open_lemur(database)
    last = lemur.last_epochs()
    assert files.last_epochs() == rows.last_epochs() == {results: last[results] for results in files.results()}
    assert last["img-classification", "cifar-10", "acc", "AirNet"] >= 50
    for epochs, dataset in ((50, "mnist"), (50, None), (200, "cifar-10")):
        try:
            found = ordered(tuple(files.long_trainings(epochs, dataset)))
        except UsageError as error:
            with pytest.raises(UsageError, match=re.escape(str(error).split(" ", 1)[1])):
                rows.long_trainings(epochs, dataset)
        else:
            assert found and found == ordered(tuple(rows.long_trainings(epochs, dataset)))
    with pytest.raises(UsageError, match="has no trainings of 50 epochs on nothing; data sets with some: celeba"):
        files.long_trainings(50, "nothing")


def test_a_record_is_read_as_lemur_wrote_it(checkout: Path) -> None:
    folder = checkout / "ab/nn/stat/train/img-classification_cifar-10_acc_AirNet"
    first = json.loads((folder / "1.json").read_text())[0]
    record = open_lemur(checkout).records("AirNet")[0]
    assert (record.epoch, record.accuracy, record.duration_s) == (1, first["accuracy"], first["duration"] / 1e9)
    assert dict(record.hyperparameters) == {key: first[key] for key in ("batch", "lr", "momentum", "transform")}


def test_results_of_newer_versions_are_read_without_their_nested_statistics(tmp_path: Path) -> None:
    root = tmp_path / "newer"
    (root / "ab/nn/nn").mkdir(parents=True)
    (root / "ab/nn/nn/ResNet.py").write_text("class Net: ...\n")
    trial = {"accuracy": 0.5, "duration": 10**9, "duration_seconds": 1.0, "epoch": 3, "lr": 0.1, "metric_acc": 0.5}
    trial |= {"model": "ResNet", "dataset": "cifar-10", "task": "img-classification", "metric": "acc", "uid": "0"}
    folder = root / "ab/nn/stat/train/img-classification_cifar-10_acc_ResNet"
    folder.mkdir(parents=True)
    (folder / "3.json").write_text(json.dumps([trial | {"transform": "norm_32", "train_stat": {"best_epoch": 3}}]))
    (record,) = open_lemur(root).records("ResNet")
    assert dict(record.hyperparameters) == {"lr": 0.1, "transform": "norm_32"}


def test_a_model_that_is_not_there_is_named(part: Lemur) -> None:
    with pytest.raises(LemurError, match="no model 'AlexNet'"):
        part.source("AlexNet")
    assert part.records("AlexNet") == ()


def test_a_truncated_wheel_is_refused(cache: Path, wheel: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.whl"
    with wheel.open("rb") as whole:
        half.write_bytes(whole.read(1_000_000))
    with pytest.raises(LemurError, match="not a whole wheel"):
        open_lemur(half)
    with pytest.raises(LemurError, match="truncated"):
        install(half)


def test_a_wheel_damaged_after_it_was_indexed_is_found_out(cache: Path, wheel: Path, tmp_path: Path) -> None:
    import shutil
    import zipfile

    copy = tmp_path / "copy.whl"
    shutil.copyfile(wheel, copy)
    lemur = open_lemur(copy)
    assert lemur.models()
    with zipfile.ZipFile(copy) as archive:
        info = archive.getinfo("ab/nn/nn/AirNet.py")
    with copy.open("r+b") as file:
        file.seek(info.header_offset + 30 + len(info.filename) + info.compress_size // 2)
        file.write(b"\0\0\0\0")
    with pytest.raises(LemurError, match="is broken"):
        lemur.source("AirNet")


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE nn (name TEXT, code TEXT)")
    torn = tmp_path / "torn.db"
    torn.write_bytes(other.read_bytes()[:100] + b"\xff" * 4000)
    for path, message in (
        (text, "is not LEMUR: name the wheel"),
        (other, "not a database of nn-dataset 2.1.2: it has no table stat"),
        (torn, "cannot be read as LEMUR's database"),
        (tmp_path, "not a checkout of nn-dataset: it has no ab/nn/nn"),
        (tmp_path / "missing", "cannot be read .No such file or directory."),
    ):
        with pytest.raises(LemurError, match=message):
            install(path)


def test_a_wheel_without_models_is_refused(cache: Path, tmp_path: Path) -> None:
    import zipfile

    newer = tmp_path / "nn_dataset-2.2.11-py3-none-any.whl"
    with zipfile.ZipFile(newer, "w") as archive:
        archive.writestr("ab/nn/api.py", "")
    with pytest.raises(LemurError, match=r"holds no models .* needs nn-dataset 2\.1\.2"):
        open_lemur(newer).models()


def test_a_checkout_or_database_is_remembered_and_forgotten(
    cache: Path, wheel: Path, checkout: Path, database: Path
) -> None:
    install(checkout)
    assert isinstance(open_lemur(), CheckoutLemur)
    install(database)
    assert isinstance(open_lemur(), DatabaseLemur)
    install(wheel)
    assert isinstance(open_lemur(), WheelLemur)


def test_the_environment_names_another(cache: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNGEN_LEMUR", str(checkout))
    assert open_lemur().name == checkout.name


def test_a_remembered_source_that_went_away_is_named(cache: Path, tmp_path: Path) -> None:
    (cache / "lemur").mkdir(parents=True)
    (cache / "lemur" / "source.json").write_text(json.dumps({"path": str(tmp_path / "gone.db")}))
    with pytest.raises(LemurError, match=r"gone\.db cannot be read"):
        open_lemur()
    (cache / "lemur" / "source.json").write_text("{")
    with pytest.raises(LemurError, match=r"source\.json is broken"):
        open_lemur()


def test_a_broken_result_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ab/nn/nn").mkdir(parents=True)
    folder = tmp_path / "ab/nn/stat/train/img-classification_cifar-10_acc_ResNet"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text('[{"accuracy": 0.5')
    assert open_lemur(tmp_path).records("ResNet") == ()
    assert "1.json is broken" in caplog.text
    (folder / "1.json").write_text('{"accuracy": 0.5}')
    assert open_lemur(tmp_path).records("ResNet") == ()
    assert "list of trials" in caplog.text
