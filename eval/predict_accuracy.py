"""Predicting accuracies: ridge regression and a frozen language model, beside the mean and family effects.

On LEMUR's imported models by their code (--archive, written by ``nngen lemur import``), and on mixtures by their plans
(--trials, archives of this project's own trials of one fidelity, as ``eval/closed_loop.py`` leaves them). Every figure
is of held-out groups, five folds. Ends with exit code 1 if no predictor beats the mean.

    python eval/accuracy.py --archive lemur.db --trials loops/*/loop.db [--count 240] [--write]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from nngen.archive import Archive, StoredTrial
from nngen.llm.embedding import Embedder
from nngen.surrogate.plan_accuracy import PredictorScore, compare_predictors, plan_cases
from nngen.surrogate.records import compare_on_records, recorded_cases
from nngen.testing.tiny_model import fetch

OUT = Path(__file__).parent / "results" / "accuracy.md"
LONGEST = 512


def main() -> int:
    """Judge every predictor on both kinds of cases, print the page, and write it if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--trials", type=Path, nargs="*", default=[])
    parser.add_argument("--count", type=int, default=240, help="models of LEMUR that are drawn")
    parser.add_argument("--dataset", default="cifar-10")
    parser.add_argument("--epoch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    base = fetch()
    embed = Embedder(str(base), max_tokens=LONGEST)
    today = datetime.now(UTC)
    lines = [
        f"# Predicting accuracies, measured on {today.day} {today:%B %Y}",
        "",
        f"`python eval/accuracy.py {_told(sys.argv[1:])}`; the language model is {base.name}, frozen, its last hidden",
        f"states averaged over the first {LONGEST} tokens, ridge regression over them; {platform.machine()}, "
        f"{given.threads} CPU thread(s). Five folds, whole groups held out.",
        "",
    ]
    with Archive.open(given.archive, readonly=True) as store:
        drawn = recorded_cases(store, given.dataset, given.epoch, given.count)
    start = time.perf_counter()
    recorded = compare_on_records(drawn, embed)
    lines += [
        f"## {len(drawn)} of LEMUR's imported models, from their code",
        "",
        f"{given.dataset} after {given.epoch} epoch(s), the best recorded trial of each model, drawn uniformly; models "
        "whose code differs in constants",
        f"alone are one group ({len({case.group for case in drawn})} groups), `families` is the name without its hash: "
        f"{len({case.family for case in drawn})} of them. {time.perf_counter() - start:,.0f} s.",
        "",
        *_table(recorded),
        "",
    ]
    trials = _trials(given.trials)
    if trials:
        known = plan_cases(trials)
        lines += [
            f"## {len(known)} mixtures, from their plans",
            "",
            f"{len(trials)} trials of the closed loops (`eval/closed_loop.py`); no quartet is on both sides of a fold.",
            "",
            *_table(compare_predictors(known, embed)),
            "",
        ]
    lines += [
        "NNGPT's published predictor reaches RMSE 0.14 and r 0.78 over LEMUR. Its protocol is another: a language",
        "model tuned for the task, over LEMUR as a whole, split in its own way. Here nothing is tuned, one data set",
        "and one epoch are looked at, the question holds code alone, and no models that differ in constants alone are",
        "on both sides (kin that differ in more may be). The figures are not to be ranked against one another.",
        "",
    ]
    page = "\n".join(lines)
    print(page)
    if given.write:
        OUT.write_text(page, encoding="utf-8")
    mean, *others = sorted(recorded, key=lambda row: row.predictor != "mean")
    return 0 if min(row.rmse for row in others) < mean.rmse else 1


def _trials(files: Sequence[Path]) -> list[StoredTrial]:
    """Gather the trained mixtures of several archives; loops of one seed share their start, which counts once."""
    found: dict[tuple[str, int, float | None], StoredTrial] = {}
    for file in files:
        with Archive.open(file, readonly=True) as store:
            for trial in store.trials():
                if trial.trained and trial.spec is not None:
                    found[trial.candidate_id or "", trial.spec.seed, trial.validation_accuracy] = trial
    return list(found.values())


def _table(rows: Sequence[PredictorScore]) -> list[str]:
    lines = ["| predictor | cases | RMSE | rank correlation | r |", "|---|---|---|---|---|"]
    for row in rows:
        rank, r = ("-" if value is None else f"{value:.3f}" for value in (row.rank, row.r))
        lines.append(f"| {row.predictor} | {row.cases} | {row.rmse:.4f} | {rank} | {r} |")
    return lines


def _told(arguments: Sequence[str]) -> str:
    """Write the command without this machine's folders."""
    return " ".join(Path(item).name if "/" in item else item for item in arguments)


if __name__ == "__main__":
    sys.exit(main())
