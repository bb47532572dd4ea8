"""The companion study's models, recomputed from LEMUR's own records: last and best accuracy on CIFAR-10.

An epoch's accuracy is the best of its trials. Every line is computed twice, by `nngen lemur history`'s
function and from the wheel's JSON files directly; exit code 1 if the two differ or a model has no records.

    python eval/lemur_tables.py [--dataset cifar-10] [--write]
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from nngen.lemur.fetch import fetch
from nngen.lemur.history import History, history
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
OUT = Path(__file__).parent / "results" / "lemur_tables.md"


def directly(wheel: zipfile.ZipFile, model: str, dataset: str) -> tuple[int, float, int, float]:
    """Last epoch with its accuracy, best epoch with its accuracy, from the JSON files alone."""
    folder = f"ab/nn/stat/train/img-classification_{dataset}_acc_{model}/"
    epochs = {
        int(Path(name).stem): max(trial["accuracy"] for trial in json.loads(wheel.read(name)))
        for name in wheel.namelist()
        if name.startswith(folder) and name.endswith(".json")
    }
    last, best = max(epochs), max(epochs.values())
    return last, epochs[last], min(epoch for epoch, accuracy in epochs.items() if accuracy == best), best


def table(rows: Iterable[History]) -> str:
    """Write the rows as Markdown."""
    lines = ["| model | last epoch | accuracy | best epoch | accuracy |", "|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row.model} | {row.final_epoch} | {row.final_accuracy:.4f} | {row.best_epoch} | {row.best_accuracy:.4f} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Recompute, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar-10")
    parser.add_argument("--write", action="store_true", help="write eval/results/lemur_tables.md")
    asked = parser.parse_args()
    path = fetch()
    lemur = open_lemur(path)
    rows = [history(lemur, model, asked.dataset) for model in (*MIXTURES, *SINGLES)]
    with zipfile.ZipFile(path) as wheel:
        wrong = [
            row.model
            for row in rows
            if directly(wheel, row.model, asked.dataset)
            != (row.final_epoch, row.final_accuracy, row.best_epoch, row.best_accuracy)
        ]
    print(table(rows))
    print(f"\nread twice, differing: {', '.join(wrong) or 'none'}")
    if asked.write:
        head = f"# {asked.dataset}: last and best accuracy recorded in nn-dataset 2.1.2\n\n"
        note = f"`python eval/lemur_tables.py --write`, {datetime.now(UTC).date()}\n"
        OUT.write_text(head + note + "\n" + table(rows) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
