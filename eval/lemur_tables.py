"""Last and best accuracy on CIFAR-10 of the companion study's models, recomputed from LEMUR's records.

An epoch's accuracy is the best of its trials. Every row is computed twice, by the function of ``nngen lemur history``
and directly from the wheel's JSON files; exit code 1 if the two differ or a model has no records.

    python eval/lemur_tables.py [--dataset cifar-10] [--write]
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from _page import Evaluation, table

from nngen.lemur.fetch import fetch
from nngen.lemur.records import History
from nngen.lemur.source import open_lemur

MIXTURES = (
    "MoE-0707",
    *(f"MoEv{number}" for number in range(2, 9)),
    "MoEv9-AlexNet",
    "MoEv9-AlexNetv2",
    "MoEv9-AlexNetv3",
    "MoEv9-AlexNetv4",
    "MoE-hetero4-Alex-Dense-Air-Bag",
)
SINGLES = ("AlexNet", "DenseNet", "AirNext", "BagNet")
COLUMNS = ("model", "last epoch", "accuracy", "best epoch", "best accuracy")
EVALUATION = Evaluation(__file__, __doc__)


def directly(wheel: zipfile.ZipFile, model: str, dataset: str) -> tuple[int, float, int, float]:
    """Return the last and the best epoch with their accuracies, from the JSON files alone."""
    folder = f"ab/nn/stat/train/img-classification_{dataset}_acc_{model}/"
    epochs = {
        int(Path(name).stem): max(trial["accuracy"] for trial in json.loads(wheel.read(name)))
        for name in wheel.namelist()
        if name.startswith(folder) and name.endswith(".json")
    }
    last, best = max(epochs), max(epochs.values())
    return last, epochs[last], min(epoch for epoch, accuracy in epochs.items() if accuracy == best), best


def history_table(rows: Iterable[History]) -> str:
    """Write the rows as Markdown."""
    cells = [
        (row.model, row.final_epoch, f"{row.final_accuracy:.4f}", row.best_epoch, f"{row.best_accuracy:.4f}")
        for row in rows
    ]
    return table(COLUMNS, cells, right=COLUMNS[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Recompute, compare, print."""
    given = EVALUATION.arguments(argv, dataset="cifar-10")
    path = fetch()
    lemur = open_lemur(path)
    rows = [lemur.history(model, given.dataset) for model in (*MIXTURES, *SINGLES)]
    with zipfile.ZipFile(path) as wheel:
        wrong = [
            row.model
            for row in rows
            if directly(wheel, row.model, given.dataset)
            != (row.final_epoch, row.final_accuracy, row.best_epoch, row.best_accuracy)
        ]
    title = f"{given.dataset}: last and best accuracy recorded in nn-dataset 2.1.2"
    differing = f"Computed twice, differing: {', '.join(wrong) or 'none'}."
    return EVALUATION.finish(EVALUATION.page(title, "", history_table(rows), differing), good=not wrong)


if __name__ == "__main__":
    sys.exit(main())
