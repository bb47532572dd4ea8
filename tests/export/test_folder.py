"""Folders of an export: what is returned and written, what of others is kept, and the folder for a hub."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lemur import source

from nngen.errors import ExportError
from nngen.export.folder import Written, _is_own, export_to_folder, export_to_hub_folder
from nngen.export.model_card import card, config
from nngen.export.selection import Export, TrainedFiles
from nngen.files import package_folder
from nngen.lemur.layout import LemurVersion

OLD = LemurVersion.V2_1_2
PROGRAM = (package_folder("templates") / "classify.py").read_bytes()


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def trained(export: Export, **changes: object) -> TrainedFiles:
    files = TrainedFiles(
        export=export,
        weights=b"weights",
        onnx=None,
        reason="",
        difference=None,
        kept=True,
        same=True,
        test_accuracy=0.5,
    )
    return replace(files, **changes)


# LEMUR's layout


def test_the_results_of_an_export_are_returned_in_the_order_given(tmp_path, exports):
    place = "ab/nn/stat/train/img-classification_digits_acc_{}/2.json"
    mixed = [exports[2], exports[0].standing_in()]
    rows = tuple(Written(export=one, new=True, place=place.format(one.candidate.id)) for one in mixed)
    assert export_to_folder(tmp_path, mixed, OLD) == rows
    assert export_to_folder(tmp_path, mixed, OLD) == tuple(replace(row, new=False) for row in rows)
    own = mixed[1].transform
    assert (tmp_path / f"ab/nn/transform/{own.name}.py").read_text() == own.source


def test_a_configuration_leads_to_the_source_and_the_card_tells_of_all_exports_of_a_model(tmp_path, exports):
    first, other = exports[:2]
    second = replace(first, results=first.results._replace(dataset="mine"))
    made = [trained(first), trained(second, weights=None, onnx=b"graph", difference=1e-6), trained(other, weights=None)]
    export_to_folder(tmp_path, [first, other, second], OLD, made)
    for one, graph in ((first, False), (second, True)):
        folder = tmp_path / "weights" / one.candidate.id / one.results.dataset
        there = json.loads((folder / "config.json").read_text())
        assert os.path.normpath(folder / there["source"]) == str(tmp_path / f"ab/nn/nn/{first.candidate.id}.py")
        assert there["source"] == f"../../../ab/nn/nn/{first.candidate.id}.py"
        assert contents(folder) == {
            **({"model.onnx": b"graph"} if graph else {"model.safetensors": b"weights"}),
            "classify.py": PROGRAM,
            "config.json": (folder / "config.json").read_bytes(),
        }
    assert [folder.name for folder in (tmp_path / "weights").iterdir()] == [first.candidate.id]
    cards = {file.stem: file.read_text() for file in (tmp_path / "cards").iterdir()}
    assert cards == {first.candidate.id: card([first, second], made[:2]), other.candidate.id: card([other], made[2:])}


def test_a_model_that_differs_is_never_replaced(tmp_path, exports):
    root = tmp_path / "out"
    path = root / f"ab/nn/nn/{exports[0].candidate.id}.py"
    path.parent.mkdir(parents=True)
    for text, what in (
        (source(99).encode(), "a different source"),
        (b"\xff", "a different source"),
        (source(8).replace("\n", "\n\n").encode(), "a source that differs in white space only"),
    ):
        path.write_bytes(text)
        with pytest.raises(ExportError) as failure:
            export_to_folder(root, exports[:1], OLD)
        assert str(failure.value) == f"{path} is {what}: move it away, or export to another folder"
        assert contents(root) == {path.relative_to(root).as_posix(): text}


@pytest.mark.parametrize(
    ("names", "own"),
    [
        ((), False),
        (("__init__", "nngen-3x32x32"), False),
        (("norm", "norm_32"), False),
        (("norm", "nngen-3x32x32"), True),
        (("norm_32_flip",), True),
    ],
)
def test_the_transform_is_lemurs_where_the_folder_has_it_or_has_none(tmp_path, exports, names, own):
    (tmp_path / "ab/nn/transform").mkdir(parents=True)
    for name in names:
        (tmp_path / f"ab/nn/transform/{name}.py").touch()
    (written,) = export_to_folder(tmp_path, exports[:1], OLD)
    assert written.export == (exports[0].standing_in() if own else exports[0])


def test_a_long_reason_is_cut_to_100_characters(tmp_path, exports):
    path = tmp_path / "ab/nn/stat/train" / "_".join(exports[0].results) / "2.json"
    path.parent.mkdir(parents=True)
    path.write_text("[" + "9" * 5000 + "]")
    with pytest.raises(ExportError) as failure:
        export_to_folder(tmp_path, exports[:1], OLD)
    reason = "Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max"
    assert str(failure.value) == f"{path} does not hold LEMUR's results ({reason[:99]}…): move it away"


# A folder for a hub


def hub(export: Export, files: TrainedFiles) -> dict[str, bytes]:
    """Return the files that such a folder holds."""
    found = {"model.safetensors": files.weights, "model.onnx": files.onnx, "classify.py": PROGRAM}
    return {
        **{name: content for name, content in found.items() if content is not None},
        "README.md": card([export], [files], hub=True).encode(),
        "config.json": config(files, "model.py").encode(),
        "model.py": export.candidate.source.encode(),
        "requirements.txt": b"torch\nsafetensors\nnumpy\npillow\n",
    }


def test_a_folder_for_a_hub_is_written_and_replaced_as_a_whole(tmp_path, exports):
    names = ("README.md", "model.py", "requirements.txt", "model.safetensors", "classify.py", "config.json")
    for export, content in ((exports[0], b"one"), (exports[1], b"two")):
        files = trained(export, weights=content)
        assert export_to_hub_folder(tmp_path / "out", files) == names
        assert contents(tmp_path / "out") == hub(export, files)
    for content in (b"three", b"four"):
        graph = trained(exports[1], weights=content, onnx=content, difference=1e-6)
        with_graph = (*names[:4], "model.onnx", *names[4:])
        assert export_to_hub_folder(tmp_path / "out", graph) == with_graph
        assert contents(tmp_path / "out") == hub(exports[1], graph)
    before = contents(tmp_path / "out")
    with pytest.raises(ExportError) as failure:
        export_to_hub_folder(tmp_path / "out", trained(exports[1]))
    graph_path = tmp_path / "out/model.onnx"
    assert str(failure.value) == f"{graph_path} is of an earlier export: remove it, or replace it with --onnx"
    assert contents(tmp_path / "out") == before


OWN = {"model": "m", "source": "model.py", "class_names": []}


@pytest.mark.parametrize(
    ("there", "own"),
    [
        (OWN, True),
        (OWN | {"more": 1}, True),
        ({"model": "m", "class_names": []}, False),
        (["model", "source", "class_names"], False),
        ("", False),
        (None, False),
    ],
)
def test_a_model_of_others_is_not_replaced(tmp_path, exports, there, own):
    text, root = json.dumps(there), tmp_path / "out"
    root.mkdir()
    (root / "config.json").write_text(text)
    assert _is_own(text.encode()) is own
    if own:
        export_to_hub_folder(root, trained(exports[0]))
        assert contents(root) == hub(exports[0], trained(exports[0]))
        return
    with pytest.raises(ExportError) as failure:
        export_to_hub_folder(root, trained(exports[0]))
    reason = "is not of an export of nngen: name another folder with --out"
    assert str(failure.value) == f"{root / 'config.json'} {reason}"
    assert contents(root) == {"config.json": text.encode()}


@pytest.mark.parametrize("there", [b"{", b"\xff", b"[" * 100_000])
def test_a_configuration_that_cannot_be_read_is_of_others(there):
    assert _is_own(there) is False
