"""Rankings after few epochs against those after fifty, recomputed from LEMUR's learning curves on six data sets.

Kendall's tau of the 34 base families (each by the best of its trainings) and of all runs, with bootstrap intervals over
models, the overlap of the best five, and regret. On CIFAR-10 the families' taus are expected to be .44, .58, .66 and
.77 after 1, 2, 5 and 10 epochs, within .02; exit code 1 otherwise, or if it takes a minute.

    python eval/fidelity.py [--write]    # --write also writes the package's table, lemur_fidelity.json
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from _page import Evaluation, note, table

from nngen.analysis.ranking import fidelity
from nngen.analysis.ranking.fidelity import LAST, Agreement, Curve, agreements, by_family, curves_of, ranks
from nngen.files import write_atomically
from nngen.lemur.source import open_lemur

SETS = ("cifar-10", "cifar-100", "svhn", "mnist", "imagenette", "celeba-gender")
EXPECTED = {1: 0.44, 2: 0.58, 5: 0.66, 10: 0.77}
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Recompute, compare with what is expected, print, and write the package's table if asked."""
    given = EVALUATION.arguments(argv)
    began = time.monotonic()
    lemur, curves, found = open_lemur(), dict[str, list[Curve]](), dict[str, list[Agreement]]()
    for name in SETS:
        curves[name] = curves_of(lemur.long_trainings(LAST, name))
        found[name] = agreements(curves[name])
        note(f"{name}: {time.monotonic() - began:.0f} s")
    took = time.monotonic() - began
    families = by_family(curves["cifar-10"], (1, LAST))
    first, last = (ranks(families, epoch)["FractalNet"] for epoch in (1, LAST))
    example = f"FractalNet is {first} of {len(families)} after one epoch and {last} after {LAST}."
    if given.write:
        kept = {
            name: [
                [round(value, 3) for value in (row.tau, row.low, row.high)]
                for row in agreements(some, epochs=range(1, LAST), runs=False)
            ]
            for name, some in curves.items()
        }
        text = json.dumps(kept).replace("]], ", "]],\n ") + "\n"
        write_atomically(fidelity._PUBLISHED, text.encode())
    taus = {row.epochs: row.tau for row in found["cifar-10"] if row.what == "families"}
    close = all(abs(taus[epoch] - value) <= 0.02 for epoch, value in EXPECTED.items())
    blocks = []
    for what in ("families", "runs"):
        cells = [
            (name, row.models, row.runs, row.epochs, f"{row.tau:.3f}", _span(row), row.top, f"{row.regret:.4f}")
            for name, rows in found.items()
            for row in rows
            if row.what == what
        ]
        blocks += [
            f"## {what.capitalize()}",
            table(("set", "models", "runs", "epochs", "tau", "95 %", "top 5", "regret"), cells),
        ]
    about = (
        "LEMUR 2.1.2; hyperparameters mixed; families by the best of all their trainings at each epoch, runs with"
        f" accuracies after 1 to {LAST} epochs; read and computed in {took:.0f} s. {example} Regret is the accuracy"
        " that the first of the short ranking lacks to the best."
    )
    text = EVALUATION.page(f"Rankings after few epochs against those after {LAST}", about, *blocks)
    return EVALUATION.finish(text, good=close and took < 60)


def _span(row: Agreement) -> str:
    return f"{row.low:.2f} to {row.high:.2f}"


if __name__ == "__main__":
    sys.exit(main())
