"""``nngen predict-accuracy``: what a plan will reach, from what the archive knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.archive import StoredTrial
    from nngen.types import Plan

__all__ = ["predict_accuracy"]


def predict_accuracy(
    *,
    families: str | None = None,
    plan: Path | None = None,
    early: str | None = None,
    campaign: str | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Predict the validation accuracy of a plan that was not trained, and say how far to believe it.

    Ridge regression on families, the plan's numbers and early epochs, fitted on the archive's trials of
    one fidelity. Its error is measured on quartets that it never saw, beside two trivial predictors:
    always the mean, and family effects alone. Without a plan, only that is printed.

    Args:
        families: Four experts, separated by commas, with the default gate, losses and recipe.
        plan: JSON file of a plan.
        early: Validation accuracies after its first epochs, separated by commas.
        campaign: Learn from this campaign only.
        dataset: Learn from trials on this data set; the commonest by default.
        epochs: Learn from trials of this length; the commonest by default.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print prediction and errors as JSON.

    Examples:
        nngen predict-accuracy
        nngen predict-accuracy --families ShuffleNet,MobileNetV3,ICNet,DPN68 --json
    """
    from dataclasses import asdict

    from nngen.archive import Archive, default_path
    from nngen.llm.accuracy import Case, Predictor, cases, judge_predictors

    with Archive.open(archive or default_path(), readonly=True) as store:
        if campaign is not None:
            store.campaign(campaign)
        trials = _one_fidelity(store.trials(campaign), dataset, epochs)
    known = cases(trials)
    judged = judge_predictors(known)
    seen = _early(early)
    asked = _plan(families, plan)
    told = None
    if asked is not None:
        _require_known(asked, {name for case in known for name in case.plan.experts})
        depth = min(len(seen), *(len(case.early) for case in known))
        told = Predictor(known, early=depth).predict([Case(plan=asked, early=seen, accuracy=0.0)])[0]
    rows = [asdict(row) for row in judged]
    if json:
        print_json({"prediction": told, "cases": len(known), "held_out": rows})
        return
    print_table(rows, ("predictor", "cases", "rmse", "rank", "r"))
    if told is not None:
        print(f"predicted validation accuracy {told:.4f}")


def _one_fidelity(trials: tuple[StoredTrial, ...], dataset: str | None, epochs: int | None) -> list[StoredTrial]:
    """Pick the trials of one data set, shape and length: the commonest that fits."""
    from collections import Counter

    from nngen.errors import UsageError

    done = [
        trial
        for trial in trials
        if trial.trained
        and trial.spec is not None
        and dataset in (None, trial.spec.dataset)
        and epochs in (None, trial.spec.epochs)
    ]
    counted = Counter((t.spec.dataset, t.spec.shape, t.spec.epochs) for t in done if t.spec is not None)
    if not counted:
        raise UsageError("the archive holds no trained mixture to learn from: nngen campaign run trains some")
    chosen = counted.most_common(1)[0][0]
    return [t for t in done if t.spec is not None and (t.spec.dataset, t.spec.shape, t.spec.epochs) == chosen]


def _require_known(plan: Plan, families: set[str]) -> None:
    """Refuse families that nothing was learned about."""
    from nngen.errors import FamilyError
    from nngen.lemur.families import nearest

    for name in plan.experts:
        if name not in families:
            raise FamilyError(f"no trained mixture holds {name}, so nothing is known of it: {nearest(name, families)}")


def _early(text: str | None) -> tuple[float, ...]:
    from nngen.errors import UsageError

    try:
        values = tuple(float(item) for item in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--early takes accuracies separated by commas, not {text!r}") from None
    if not all(0 <= value <= 1 for value in values):
        raise UsageError("--early takes accuracies between 0 and 1")
    return values


def _plan(families: str | None, file: Path | None) -> Plan | None:
    """Read the plan that is asked about; None where only the errors are."""
    from json import JSONDecodeError, loads

    from nngen.assembly.assemble import check_plan
    from nngen.errors import UsageError
    from nngen.types import Plan

    if families is not None and file is not None:
        raise UsageError("--families and --plan are two ways to say the same: give one of them")
    if families is None and file is None:
        return None
    if file is None:
        plan = Plan(experts=tuple(name.strip() for name in str(families).split(",")))
    else:
        try:
            plan = Plan.from_dict(loads(file.read_text(encoding="utf-8")))
        except (OSError, JSONDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} is no plan in JSON: {error}") from error
    check_plan(plan)
    return plan
