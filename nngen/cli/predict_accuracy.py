"""``nngen predict-accuracy``: what a plan will reach, from what the archive knows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.archive import StoredTrial
    from nngen.plan import Plan
    from nngen.surrogate.plan_accuracy import Embed

__all__ = ["predict_accuracy"]


def predict_accuracy(
    *,
    families: str | None = None,
    plan: Path | None = None,
    early: str | None = None,
    campaign: str | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
    model: str = "ridge",
    base: str | None = None,
    adapter: Path | None = None,
    records: int = 0,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Predict the validation accuracy of a plan that was not trained, and say how far to believe it.

    Ridge regression on families, the plan's numbers and early epochs, fitted on the archive's trials of
    one fidelity. Its error is measured on quartets that it never saw, beside two trivial predictors:
    always the mean, and family effects alone. Without a plan, only that is printed. With --model lm the
    plan's text is read by a frozen language model, and ridge regression is fitted on what it makes of it.

    Args:
        families: Four experts, separated by commas, with the default gate, losses and recipe.
        plan: JSON file of a plan.
        early: Validation accuracies after its first epochs, separated by commas.
        campaign: Learn from this campaign only.
        dataset: Learn from trials on this data set; the commonest by default.
        epochs: Learn from trials of this length; the commonest by default.
        model: ridge (families, the plan's numbers, early epochs) or lm (a language model's view of the text).
        base: For --model lm: a hub id, a folder or a GGUF file.
        adapter: For --model lm: folder of an adapter tuned on the base.
        records: Judge on this many of LEMUR's imported models instead, by their code (cifar-10 and 1 epoch
            by default); 0 for the archive's own trials.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print prediction and errors as JSON.

    Examples:
        nngen predict-accuracy
        nngen predict-accuracy --families ShuffleNet,MobileNetV3,ICNet,DPN68 --json
        nngen predict-accuracy --records 300 --model lm --base model.gguf
    """
    from dataclasses import asdict

    from nngen.archive import Archive, default_path
    from nngen.surrogate.plan_accuracy import Case, PlanRegressor, TextRegressor, compare_predictors, plan_cases
    from nngen.surrogate.records import compare_on_records, recorded_cases

    _require_consistent(model, base, records, asked=bool(families or plan or early or campaign))
    if records:
        with Archive.open(archive or default_path(), readonly=True) as store:
            drawn = recorded_cases(store, dataset or "cifar-10", epochs or 1, records)
        scores = compare_on_records(drawn, _embedder(model, base, adapter, plans=False))
        _show([asdict(row) for row in scores], len(drawn), None, json)
        return
    with Archive.open(archive or default_path(), readonly=True) as store:
        if campaign is not None:
            store.campaign(campaign)
        trials = _one_fidelity(store.trials(campaign), dataset, epochs)
    known = plan_cases(trials)
    seen = _early(early)
    asked = _plan(families, plan)
    if asked is not None:
        _require_known(asked, {name for case in known for name in case.plan.experts})
    embed = _embedder(model, base, adapter, plans=True)
    judged = compare_predictors(known, embed)
    told = None
    if asked is not None:
        depth = min(len(seen), *(len(case.early) for case in known))
        fitted = PlanRegressor(known, early=depth) if embed is None else TextRegressor(known, embed)
        told = fitted.predict([Case(plan=asked, early=seen, accuracy=0.0)])[0]
    _show([asdict(row) for row in judged], len(known), told, json)


def _show(rows: list[dict[str, object]], count: int, told: float | None, json: bool) -> None:
    if json:
        print_json({"prediction": told, "cases": count, "held_out": rows})
        return
    print_table(rows, ("predictor", "cases", "rmse", "rank", "r"))
    if told is not None:
        print(f"predicted validation accuracy {told:.4f}")


def _require_consistent(model: str, base: str | None, records: int, *, asked: bool) -> None:
    from nngen.errors import UsageError

    if model not in ("ridge", "lm"):
        raise UsageError(f"no predictor is called {model!r}: --model takes ridge or lm")
    if (model == "lm") != (base is not None):
        raise UsageError("--model lm and --base NAME go together: say which language model is to read")
    if records < 0 or (records and asked):
        raise UsageError("--records N judges on N imported models; it takes no plan, no early epochs and no campaign")


def _embedder(model: str, base: str | None, adapter: Path | None, *, plans: bool) -> Embed | None:
    if model != "lm" or base is None:
        return None
    from nngen.llm.embedding import Embedder, accuracy_question

    return Embedder(base, adapter, question=accuracy_question if plans else str)


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
    from nngen.families.catalogue import LIST_FAMILIES
    from nngen.text import did_you_mean

    for name in plan.experts:
        if name not in families:
            near = did_you_mean(name, families, otherwise=LIST_FAMILIES)
            raise FamilyError(f"no trained mixture holds {name}, so nothing is known of it: {near}")


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
    from nngen.plan import Plan

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
