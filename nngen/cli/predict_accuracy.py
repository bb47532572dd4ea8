"""``nngen predict-accuracy``: predicts the accuracy of a plan from the archive's trials, or that of a long training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from nngen.archive import StoredTrial
from nngen.assembly.plan_toml import read_plan
from nngen.assembly.plan_validation import check_plan
from nngen.cli.options import ArchiveOptions, Assignments, Count, DataName, Index, Names, hyperparameters
from nngen.cli.output import note, print_json, print_table, say
from nngen.errors import FamilyError, UsageError
from nngen.families.catalogue import LIST_FAMILIES
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.surrogate.early import COVERAGE, LONG, EarlyPredictor, Run, compare_early, long_runs
from nngen.surrogate.plan_accuracy import (
    Case,
    Embed,
    PlanRegressor,
    PredictorScore,
    TextRegressor,
    compare_predictors,
    plan_cases,
)
from nngen.surrogate.records import compare_on_records, recorded_cases
from nngen.text import did_you_mean, split_names
from nngen.types import Hyperparameters


def predict_accuracy(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    families: Names = None,
    plan: Path | None = None,
    early: str | None = None,
    dataset: DataName | None = None,
    epochs: Count | None = None,
    model: str = "ridge",
    base: str | None = None,
    adapter: Path | None = None,
    records: Index = 0,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    prm: Assignments = (),
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Predict the validation accuracy of a plan that was not trained, and measure the error of such predictions.

    Ridge regression on families, the plan's numbers and early epochs, fitted to the archive's trials of one fidelity.
    Its error is measured on quartets left out of the fit, beside two references: the mean, and family effects alone.
    Without a plan, only the errors are printed. With --model lm, ridge regression is fitted to a frozen language
    model's vectors of the plans' texts.

    With --from lemur and --early, the best accuracy that a training reaches later is predicted instead, by trees that
    learned from LEMUR's trainings of 50 epochs and more, with a 90 % interval; the error is measured on whole models
    left out of the fit, beside the last early accuracy as it is and ridge regression.

    Args:
        campaign: Campaign whose trials are used; the whole archive by default.
        families: Four experts, separated by commas, with the default gate, losses and recipe.
        plan: TOML file of a plan.
        early: Validation accuracies after the plan's first epochs, separated by commas.
        dataset: Data set of the trials used; the most frequent by default.
        epochs: Epochs of the trials used; the most frequent by default.
        model: ridge (families, the plan's numbers, early epochs) or lm (a language model's vectors of the text).
        base: Language model for --model lm: a hub id, a folder or a GGUF file.
        adapter: Folder of an adapter tuned on the base, for --model lm.
        records: Measure the errors on this many of LEMUR's imported models instead, by their code (cifar-10 and 1
            epoch by default); 0 for the archive's own trials.
        source: lemur: learn from LEMUR's learning curves instead of the archive's trials.
        prm: With --from lemur, a hyperparameter of the training as NAME=VALUE: lr, momentum, batch, dropout, transform.

    Examples:
        nngen predict-accuracy
        nngen predict-accuracy --families ShuffleNet,MobileNetV3,ICNet,DPN68 --json
        nngen predict-accuracy --records 300 --model lm --base model.gguf
        nngen predict-accuracy --from lemur --early 0.41,0.52 --dataset cifar-10 --prm lr=0.01 --prm batch=64
    """
    if source is not None:
        if source != "lemur":
            raise UsageError(f"--from takes lemur, not {source!r}")
        if families or plan or campaign or records or base or epochs:
            raise UsageError("--from lemur goes with --early, --dataset and --prm alone")
        _predict_long(_accuracies(early), dataset or "cifar-10", hyperparameters(prm), output)
        return
    if prm:
        raise UsageError("--prm goes with --from lemur")
    if model not in ("ridge", "lm"):
        raise UsageError(f"no predictor is called {model!r}: --model takes ridge or lm")
    if (model == "lm") != (base is not None):
        raise UsageError("--model lm and --base NAME go together: name the language model")
    if records and (families or plan or early or campaign):
        raise UsageError("--records N uses N imported models; it takes no plan, no early epochs and no campaign")
    if records:
        with output.read() as store:
            drawn = recorded_cases(store, dataset or "cifar-10", epochs or 1, records)
        embed = _embedder(base, adapter, plans=False) if base else None
        _print(compare_on_records(drawn, embed), len(drawn), None, output)
        return
    with output.read() as store:
        if campaign is not None:
            store.campaign(campaign)
        known = plan_cases(_one_fidelity(store.trials(campaign), dataset, epochs))
    accuracies = _accuracies(early)
    asked = _plan(families, plan)
    if asked is not None:
        _require_known(asked, {name for case in known for name in case.plan.experts})
    embed = _embedder(base, adapter, plans=True) if base else None
    scores = compare_predictors(known, embed)
    prediction = None
    if asked is not None:
        depth = min(len(accuracies), *(len(case.early) for case in known))
        fitted = PlanRegressor(known, early=depth) if embed is None else TextRegressor(known, embed)
        prediction = fitted.predict([Case(plan=asked, early=accuracies, accuracy=0.0)])[0]
    _print(scores, len(known), prediction, output)


def _predict_long(early: tuple[float, ...], dataset: str, prm: Hyperparameters, output: ArchiveOptions) -> None:
    """Predict the best later accuracy of a training from its first ones."""
    if not 0 < len(early) < LONG:
        raise UsageError(f"--from lemur needs the accuracies after the first epochs: --early 0.41,0.52; under {LONG}")
    runs = long_runs(open_lemur().long_trainings(LONG))
    if dataset not in (known := sorted({run.dataset for run in runs})):
        raise UsageError(f"LEMUR has no trainings of {LONG} epochs on {dataset!r}: choose {', '.join(known)}")
    note(f"learning from {len(runs):,} trainings of LEMUR's, and measuring the error on models left out")
    scores, coverage = compare_early(runs, len(early))
    asked = Run(model="", dataset=dataset, accuracies=early, hyperparameters=prm)
    found = EarlyPredictor(runs, len(early)).predict([asked])[0]
    if output.json:
        held_out = [asdict(row) for row in scores]
        print_json({"prediction": asdict(found), "runs": len(runs), "held_out": held_out, "coverage": coverage})
        return
    print_table([asdict(row) for row in scores], ("predictor", "cases", "rmse", "rank", "r"))
    say(f"{coverage:.0%} of the accuracies of models left out are in their intervals of {COVERAGE:.0%}")
    say(f"best accuracy later {found.accuracy:.4f} ({COVERAGE:.0%} interval {found.low:.4f} to {found.high:.4f})")


def _print(scores: Sequence[PredictorScore], cases: int, prediction: float | None, output: ArchiveOptions) -> None:
    rows = [asdict(row) for row in scores]
    if output.json:
        print_json({"prediction": prediction, "cases": cases, "held_out": rows})
        return
    print_table(rows, ("predictor", "cases", "rmse", "rank", "r"))
    if prediction is not None:
        say(f"predicted validation accuracy {prediction:.4f}")


def _embedder(base: str, adapter: Path | None, *, plans: bool) -> Embed:
    # Loads torch and transformers.
    from nngen.llm.embedding import Embedder, accuracy_question

    return Embedder(base, adapter, question=accuracy_question if plans else str)


def _one_fidelity(trials: Iterable[StoredTrial], dataset: str | None, epochs: int | None) -> list[StoredTrial]:
    """Select the trials of one fidelity: the most frequent that fits."""
    done = [
        (trial, trial.fidelity)
        for trial in trials
        if trial.trained
        and trial.spec is not None
        and dataset in (None, trial.spec.dataset)
        and epochs in (None, trial.spec.epochs)
    ]
    counted = Counter(fidelity for _, fidelity in done)
    if not counted:
        raise UsageError("the archive holds no trained mixture to learn from: nngen campaign run trains some")
    chosen = counted.most_common(1)[0][0]
    return [trial for trial, fidelity in done if fidelity == chosen]


def _require_known(plan: Plan, families: set[str]) -> None:
    """Refuse families without a trained mixture: their effects are unknown."""
    for name in plan.experts:
        if name not in families:
            near = did_you_mean(name, families, otherwise=LIST_FAMILIES)
            raise FamilyError(f"no trained mixture holds {name}, so its effect is unknown: {near}")


def _accuracies(text: str | None) -> tuple[float, ...]:
    try:
        values = tuple(float(item) for item in split_names(text or ""))
    except ValueError:
        raise UsageError(f"--early takes accuracies separated by commas, not {text!r}") from None
    if not all(0 <= value <= 1 for value in values):
        raise UsageError("--early takes accuracies between 0 and 1")
    return values


def _plan(families: Names, file: Path | None) -> Plan | None:
    """Read the plan to predict; None where only the errors are measured."""
    if families is not None and file is not None:
        raise UsageError("--families and --plan both name the plan: give one of them")
    if file is not None:
        plan = read_plan(file)
    elif families is not None:
        plan = Plan(experts=families)
    else:
        return None
    check_plan(plan)
    return plan
