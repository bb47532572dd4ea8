"""Prediction of accuracies by ridge regression and a frozen language model, compared with mean and family effects.

Predictors are compared on LEMUR's imported models by their code (``--archive``, written by ``nngen lemur import``), and
on mixtures by their plans (``--trials``, archives with trials of one fidelity, as written by ``eval/closed_loop.py``).
All figures are from five-fold cross-validation with held-out groups. Exit code 1 if no predictor beats the mean.

    python eval/predict_accuracy.py --archive lemur.db --trials loops/*/loop.db [--count 240] [--write]
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from _page import Evaluation, table

from nngen.archive import Archive, StoredTrial
from nngen.llm.embedding import Embedder
from nngen.surrogate.plan_accuracy import PredictorScore, compare_predictors, plan_cases
from nngen.surrogate.records import compare_on_records, recorded_cases
from nngen.testing.tiny_model import fetch

EVALUATION = Evaluation(__file__, __doc__)
LONGEST = 512


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the predictors on both kinds of cases, print the page, and write it if requested."""
    given = EVALUATION.arguments(
        argv,
        archive={"type": Path, "required": True, "help": "archive that ``nngen lemur import`` wrote"},
        trials={"type": Path, "nargs": "*", "default": [], "help": "archives of this project's own trials"},
        count=(240, "models of LEMUR that are drawn"),
        dataset="cifar-10",
        epoch=1,
        threads=1,
    )
    torch.set_num_threads(given.threads)
    base = fetch()
    embed = Embedder(str(base), max_tokens=LONGEST)
    with Archive.open(given.archive, readonly=True) as store:
        drawn = recorded_cases(store, given.dataset, given.epoch, given.count)
    start = time.perf_counter()
    recorded = compare_on_records(drawn, embed)
    blocks = [
        f"## {len(drawn)} of LEMUR's imported models, from their code",
        f"{given.dataset} after {given.epoch} epoch(s), the best recorded trial of each model, drawn uniformly; models"
        " whose code differs in constants alone are one group"
        f" ({len({case.group for case in drawn})} groups), `families` is the name without its hash:"
        f" {len({case.family for case in drawn})} of them. {time.perf_counter() - start:,.0f} s.",
        _table(recorded),
    ]
    trials = _trials(given.trials)
    if trials:
        known = plan_cases(trials)
        blocks += [
            f"## {len(known)} mixtures, from their plans",
            f"{len(trials)} trials of the closed loops (`eval/closed_loop.py`); no quartet is on both sides of a fold.",
            _table(compare_predictors(known, embed)),
        ]
    blocks.append("""NNGPT's published predictor reaches RMSE 0.14 and r 0.78 over LEMUR. Its protocol is another: a
language model tuned for the task, over LEMUR as a whole, split in its own way. Here nothing is tuned, one data set
and one epoch are looked at, the question holds code alone, and models that differ in constants alone are not on both
sides (kin that differ in more may be). The figures are not to be ranked against one another.""")
    about = (
        f"The language model is {base.name}, frozen, its last hidden states averaged over the first {LONGEST} tokens,"
        f" ridge regression over them; {platform.machine()}, {given.threads} CPU thread(s). Five folds, whole groups"
        " held out."
    )
    mean, *others = sorted(recorded, key=lambda row: row.predictor != "mean")
    text = EVALUATION.page("Predicting accuracies", about, *blocks)
    return EVALUATION.finish(text, good=min(row.rmse for row in others) < mean.rmse)


def _trials(files: Sequence[Path]) -> list[StoredTrial]:
    """Read the trained mixtures of several archives; the common start of loops with one seed counts once."""
    found: dict[tuple[str, int, float | None], StoredTrial] = {}
    for file in files:
        with Archive.open(file, readonly=True) as store:
            for trial in store.trials():
                if trial.trained and trial.spec is not None:
                    found[trial.candidate_id or "", trial.spec.seed, trial.validation_accuracy] = trial
    return list(found.values())


def _table(rows: Sequence[PredictorScore]) -> str:
    cells = [
        (row.predictor, row.cases, f"{row.rmse:.4f}", *("-" if v is None else f"{v:.3f}" for v in (row.rank, row.r)))
        for row in rows
    ]
    return table(("predictor", "cases", "RMSE", "rank correlation", "r"), cells)


if __name__ == "__main__":
    sys.exit(main())
