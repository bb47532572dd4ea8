"""Model cards as they are read: golden texts of each kind of export, and what in them depends on a trial."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.assembly.assemble import assemble
from nngen.export.model_card import card, config
from nngen.export.selection import TrainedFiles
from nngen.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = TrainedFiles(
    export=None,  # type: ignore[arg-type]
    weights=b"w",
    onnx=b"g",
    reason="",
    difference=1.25e-6,
    kept=True,
    same=True,
    test_accuracy=0.25,
)


@pytest.fixture
def measured(exports):
    """A trial with all that a card tells of one, named data, and classes with long names."""
    first = exports[0]
    trial = replace(
        first.trial,
        batch=32,
        batches_tried=(64, 48),
        energy_j=12.5,
        isolation="sandbox",
        predicted_mib=123.6,
        suspect="50 passes\n in epoch 1",
        environment={"cpu": "a\nprocessor", "device": "", "cores": 2, "driver": None},
        spec=replace(first.trial.spec, train_size=1000, seed=7),
    )
    names = ("a" * 60, "b" * 61, *(f"class {number}" for number in range(40)))
    preprocessing = replace(first.preprocessing, class_names=names)
    return replace(first, trial=trial, preprocessing=preprocessing, results=first.results._replace(dataset="cifar-10"))


def kinds(exports, measured):
    """Return the arguments of each card that has a golden file."""
    other = replace(
        exports[1], candidate=exports[0].candidate, trial=replace(exports[1].trial, suspect="it is too good")
    )
    no_graph = replace(FILES, export=other, onnx=None, reason="an operator is missing", difference=None)
    again = replace(FILES, export=measured, onnx=None, difference=None, kept=False, same=False)
    return {
        "card": ([exports[0], other], [], False),
        "card_with_weights": ([measured, other], [again, no_graph], False),
        "card_for_a_hub": ([measured], [replace(FILES, export=measured)], True),
    }


@pytest.mark.parametrize("name", ["card", "card_with_weights", "card_for_a_hub"])
def test_golden_cards(exports, measured, name):
    """After a change that was meant, write the text of the message to the golden file."""
    given, files, hub = kinds(exports, measured)[name]
    assert card(given, files, hub=hub) == (GOLDEN / f"{name}.md").read_text()


@pytest.mark.parametrize("accuracy", [None, 0.0])
def test_a_trial_without_a_right_answer_has_an_accuracy_of_zero(exports, accuracy):
    export = replace(exports[0], trial=replace(exports[0].trial, validation_accuracy=accuracy))
    assert "| 0.0000 (0.0000 to 0.0132) | 0.8357 (" in card([export])


def test_a_hub_is_told_whose_code_it_gets(exports):
    dense = assemble(Plan(experts=("Dense", "Dense"), kind="homogeneous", repeats=True), [])
    licences = {"is under the MIT licence": dense.source, "is not from nn-dataset's pinned release": "x = 1\n"}
    for licence, source in licences.items():
        export = replace(exports[0], candidate=replace(exports[0].candidate, source=source))
        found = card([export], [replace(FILES, export=export)], hub=True)
        assert [text for text in licences if text in found] == [licence]
        assert not any(text in card([export]) for text in licences)


def test_a_configuration_is_json_that_people_can_read(exports):
    names = tuple("äöüßéèçñø日")
    export = replace(exports[0], preprocessing=replace(exports[0].preprocessing, class_names=names))
    text = config(replace(FILES, export=export), "model.py")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert all(name in text for name in names)
