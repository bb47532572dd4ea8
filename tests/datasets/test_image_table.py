"""Data sets ``csv:FILE`` and ``hf:NAME``: classes and splits of a table, or one line that says what it lacks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from nngen.datasets import Dataset, load_dataset
from nngen.datasets.registry import dataset_name
from nngen.errors import DataError, MissingExtraError, UsageError


def image(number: int) -> Image.Image:
    """Return a grey image whose brightness is its number."""
    return Image.new("L", (8, 6), number)


def write(folder: Path, lines: list[str], *, count: int = 24, name: str = "table.csv") -> str:
    """Write images and the table that lists them; return the name of the data set."""
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        image(number).save(folder / "images" / f"{number}.png")
    (folder / name).write_text("\n".join(lines) + "\n")
    return f"csv:{folder / name}"


def contents(data: Dataset) -> dict[str, dict[int, str]]:
    """Return the classes by the numbers of the images, by split."""
    return {
        split: {
            int(pixels.mean()): data.class_names[label]
            for pixels, label in zip(
                getattr(data, f"{split}_images"), getattr(data, f"{split}_labels").tolist(), strict=True
            )
        }
        for split in ("train", "validation", "test")
    }


def test_a_table_gives_paths_classes_and_splits(tmp_path, cache):
    splits = ["train"] * 16 + ["valid"] * 4 + ["Test"] * 3 + ["extra"]
    rows = [f"images/{number}.png,{'cat' if number % 2 else 'dog'},{split}" for number, split in enumerate(splits)]
    data = load_dataset(write(tmp_path, ["File Name,Label,Split", *rows]))
    assert data.class_names == ("cat", "dog")
    assert contents(data) == {
        split: {number: "cat" if number % 2 else "dog" for number in numbers}
        for split, numbers in (("train", range(16)), ("validation", range(16, 20)), ("test", range(20, 23)))
    }
    assert "left out: 1 image of other splits than train, val and test: extra" in data.notes


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_numbers_of_classes_are_sorted_by_value_and_splits_drawn(sign, tmp_path, cache):
    rows = [sign.join((str(tmp_path / f"images/{number}.png"), str(number % 12))) for number in range(60)]
    data = load_dataset(write(tmp_path, [f"path{sign}class", *rows, ""], count=60))
    assert data.class_names == tuple(map(str, range(12)))
    assert [len(labels) for labels in (data.train_labels, data.validation_labels, data.test_labels)] == [36, 12, 12]
    found = contents(data)
    assert {number: name for part in found.values() for number, name in part.items()} == {
        number: str(number % 12) for number in range(60)
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["images/0.png,cat", "images/1.png,dog"],
            "names the columns images/0.png and cat; call the one",
        ),
        (["path,label", "images/0.png,cat", "images/1.png,"], "line 3 has no label"),
        (["path,label", "images/0.png,cat"], "has images of 1 classes; 2 at least are needed"),
        (["path,label"], "lists no images"),
        (
            ["path,label", "images/0.png,cat", "no.png,dog"],
            "1 image cannot be read: no.png cannot be read: No",
        ),
        (
            ["path,label,split", "images/0.png,cat,val", "images/1.png,dog,test"],
            "the splits test and val: it lacks train",
        ),
        (
            ["path,label,split", *(f"images/{n}.png,{n % 2},train" for n in range(9)), "images/9.png,7,test"],
            "test has classes that train lacks: 7",
        ),
    ],
)
def test_a_table_that_will_not_do_is_explained_in_one_line(lines, message, tmp_path, cache):
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(write(tmp_path, lines))
    assert "\n" not in str(caught.value)


def test_a_table_that_cannot_be_read_is_one_line(tmp_path, cache):
    with pytest.raises(DataError, match="No such file"):
        load_dataset(f"csv:{tmp_path / 'none.csv'}")
    (tmp_path / "bad.csv").write_bytes(b"path,label\n\xff\xfe\x00,1\n")
    with pytest.raises(DataError, match=r"bad\.csv is not UTF-8 text"):
        load_dataset(f"csv:{tmp_path / 'bad.csv'}")
    with pytest.raises(UsageError, match=f"for a file of images write csv:{tmp_path / 'bad.csv'}"):
        dataset_name(str(tmp_path / "bad.csv"))


def test_images_of_a_table_that_are_missing_may_be_left_out(tmp_path, cache):
    rows = [f"images/{number}.png,{number % 2}" for number in range(26)]
    name = write(tmp_path, ["path,label", *rows])
    data = load_dataset(f"readable-{name}")
    assert sum(map(len, contents(data).values())) == 24
    assert [note for note in data.notes if note.startswith("left out: images/2")] != []
    image(24).save(tmp_path / "images/24.png")
    assert sum(map(len, contents(load_dataset(f"readable-{name}")).values())) == 25


@pytest.fixture(scope="module")
def hub() -> ModuleType:
    return pytest.importorskip("datasets", reason="the library datasets is not installed")


def table(
    hub: ModuleType, numbers: range, *, names: tuple[str, ...] = ("cat", "dog", "unused"), **more: list[object]
) -> object:
    """Return a data set of the library, whose class is the number's remainder by 2."""
    features = hub.Features({"img": hub.Image(), "label": hub.ClassLabel(names=list(names))})
    features |= {name: hub.Value("string") for name in more}
    rows = {"img": [image(number) for number in numbers], "label": [number % 2 for number in numbers], **more}
    return hub.Dataset.from_dict(rows, features=hub.Features(features))


def test_a_saved_data_set_with_its_splits(hub, tmp_path, cache):
    parts = {"train": table(hub, range(20)), "validation": table(hub, range(20, 26)), "test": table(hub, range(26, 30))}
    hub.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(f"hf:{tmp_path / 'saved'}")
    assert data.class_names == ("cat", "dog")
    assert contents(data) == {
        split: {number: ("cat", "dog")[number % 2] for number in numbers}
        for split, numbers in (("train", range(20)), ("validation", range(20, 26)), ("test", range(26, 30)))
    }
    assert "classes without an image to train on are left out: unused" in data.notes
    again = load_dataset(f"hf:{tmp_path / 'saved'}")
    assert again.folder == data.folder
    with pytest.raises(DataError, match="is a saved Hugging Face data set: write --dataset hf:"):
        load_dataset(f"folder:{tmp_path / 'saved'}")


def test_one_table_is_divided_or_has_a_column_of_splits(hub, tmp_path, cache):
    table(hub, range(30)).save_to_disk(str(tmp_path / "one"))
    data = load_dataset(f"hf:{tmp_path / 'one'}")
    assert [len(part) for part in contents(data).values()] == [20, 4, 6]
    table(hub, range(30), split=["train"] * 24 + ["test"] * 6).save_to_disk(str(tmp_path / "own"))
    assert sorted(contents(load_dataset(f"hf:{tmp_path / 'own'}"))["test"]) == list(range(24, 30))


def test_parquet_files_and_images_without_a_class(hub, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub.config, "HF_DATASETS_CACHE", tmp_path / "home")
    plain = table(hub, range(24))
    plain.to_parquet(str(tmp_path / "all.parquet"))
    assert [len(part) for part in contents(load_dataset(f"hf:{tmp_path / 'all.parquet'}")).values()] == [16, 4, 4]
    (tmp_path / "set").mkdir()
    plain.to_parquet(str(tmp_path / "set/train-00000-of-00001.parquet"))
    unlabelled = plain.map(lambda row: {"label": -1})
    unlabelled.to_parquet(str(tmp_path / "set/test-00000-of-00001.parquet"))
    data = load_dataset(f"hf:{tmp_path / 'set'}")
    assert [len(part) for part in contents(data).values()] == [16, 4, 4]
    assert "left out: 24 images of test without a class" in data.notes


def test_tables_without_images_or_classes_are_explained(hub, tmp_path, cache):
    hub.Dataset.from_dict({"a": [1, 2], "label": [0, 1]}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"has no column of images: a \(Value\) and label \(Value\); call"):
        load_dataset(f"hf:{tmp_path / 'none'}")
    table(hub, range(8)).remove_columns("label").save_to_disk(str(tmp_path / "plain"))
    with pytest.raises(DataError, match="has no column of classes: img"):
        load_dataset(f"hf:{tmp_path / 'plain'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is not readable: ") as caught:
        load_dataset(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_without_a_network_is_one_line(hub, cache, monkeypatch):
    def fail(*_: object) -> None:
        raise ConnectionError("no network\nhere")

    monkeypatch.setattr(hub, "load_dataset", fail)
    with pytest.raises(DataError, match="hf:some/name is no folder or file of this name, and") as caught:
        load_dataset("hf:some/name")
    assert "\n" not in str(caught.value)


def test_the_library_that_lacks_is_named(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[hf\]'"):
        load_dataset("hf:some/name")


@pytest.mark.long
def test_the_command_trains_on_a_table(tmp_path, cache, nngen):
    from test_image_folder import LINEAR

    rows = [f"images/{number}.png,{'dark' if number < 60 else 'bright'}" for number in range(120)]
    name = write(tmp_path, ["path,label", *rows, "gone.png,dark"], count=120)
    (tmp_path / "Linear.py").write_text(LINEAR)
    command = ("train", tmp_path / "Linear.py", "--dataset", name, "--threads", "1", "--epochs", "5", "--lr", "0.01")
    refused = nngen(*command)
    assert (refused.code, "gone.png cannot be read" in refused.err) == (1, True)
    done = nngen(*command, "--skip-unreadable", "--json")
    assert "120 images in 2 classes: bright 60 and dark 60" in done.err
    assert json.loads(done.out)["validation_accuracy"] > 0.8
