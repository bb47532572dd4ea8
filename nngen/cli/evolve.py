"""``nngen evolve``: runs the closed loop of proposing, training and tuning."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nngen.analysis.loop_report import LoopCycle
from nngen.campaign.budget import Budget, last_budget
from nngen.cli.options import ArchiveOptions, Arguments, Flag, PositiveOption
from nngen.cli.options.dry_run import DryRun, foresee_proposals
from nngen.cli.options.engine import BudgetOptions, EngineOptions, TrialOptions, usable_pool
from nngen.cli.options.family import FamilyOptions
from nngen.cli.options.rewriter import RewriterOptions
from nngen.cli.options.table import Table
from nngen.cli.output import note, print_json, print_table
from nngen.cli.progress import trial_progress
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution, Tuner, stored_loop
from nngen.llm.finetuning.config import Tuning
from nngen.llm.rewriters.factory import tunable_base
from nngen.training import pick_device


class LoopOptions(Arguments, of=Evolution, only=("cycles", "start", "number", "top", "judges", "patience")):
    """Size of the loop, as typed."""


def evolve(
    name: str,
    /,
    *,
    source: RewriterOptions,
    loop: LoopOptions = LoopOptions(),
    tune: Flag = False,
    tune_epochs: PositiveOption = 1.0,
    work: Path | None = None,
    trials: TrialOptions = TrialOptions(),
    selection: FamilyOptions = FamilyOptions(),
    machines: EngineOptions = EngineOptions(),
    budget: BudgetOptions = BudgetOptions(),
    table: Table = None,
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Propose plans, check and train them, judge the best on fresh seeds, tune the model, and repeat.

    The first cycle follows a common start of random plans. The loop stops early when the gain of the judged best stays
    inside the noise. Of several rewriters (--rewriter random,mutate,tpe) those whose children gain more are asked more
    often; the table shows their shares. Every stage is a campaign: budgets count over all of them, and the same command
    continues a loop that was stopped.

    Args:
        name: Name of the loop; its stages are the campaigns NAME-0, NAME-1, ... and NAME-judge-0, ...
        tune: Tune the model on the archive between cycles (a model in this process only).
        tune_epochs: Passes of each tuning over its data.
        work: Folder for feedback sets and adapters; generated/NAME by default.

    Examples:
        nngen evolve loop --rewriter mutate --families ShuffleNet,MobileNetV3,ICNet,DPN68,ComplexNet
        nngen evolve ranked --rewriter random,mutate --pool 64 --cycles 5
        nngen evolve tuned --rewriter model.gguf --tune --cycles 3 --json
        nngen evolve replayed --rewriter mutate --table moe4.json
    """
    if dry_run:
        sizes: dict[str, Any] = {item.name: item.default for item in fields(Evolution)} | loop.typed()
        judged = (sizes["cycles"] + 1) * sizes["judges"]
        count = sizes["start"] + sizes["cycles"] * sizes["number"] + judged
        with (
            output.peek() as store,
            machines.session(name, None, machines.settle(trials, selection, table=table), usable_pool(selection)) as (
                settled,
                inputs,
                engine,
            ),
        ):
            foresee_proposals(
                count,
                settled,
                inputs,
                engine,
                archive=store,
                budget=budget.change(Budget()),
                isolation=machines.isolation,
                output=output,
            )
        return
    device = pick_device(trials.typed().get("device", "auto"))
    tuner = _tuner(source, work or Path("generated") / name, tune_epochs, device) if tune else None
    with output.open() as store:
        limits = budget.change(last_budget(store.events(name)))
        stored, typed = stored_loop(store, name), machines.settle(trials, selection, table=table)
        with (
            machines.session(name, stored, typed, usable_pool(selection)) as (spec, inputs, engine),
            trial_progress(compiled=machines.compiled) as watcher,
        ):
            found = Evolution(
                spec=spec,
                archive=store,
                inputs=inputs,
                engine=engine,
                rewriter=source.open(device),
                **loop.typed(),
                tune=tuner,
                budget=limits,
                watcher=watcher,
                note=note,
                isolation=machines.isolation,
                max_reply_tokens=source.max_reply_tokens,
                pool=source.pool,
            ).run()
    if output.json:
        print_json([asdict(cycle) | {"mean": cycle.mean, "best": cycle.best} for cycle in found])
    elif found:
        print_table([_row(cycle) for cycle in found], list(_row(found[0])))


def _tuner(source: RewriterOptions, folder: Path, epochs: float, device: str) -> Tuner:
    base = tunable_base(source.rewriter)
    if base is None:
        raise UsageError(f"--tune tunes a model in this process, and {source.rewriter} is not one")
    # Loads torch and transformers.
    from nngen.llm.finetuning.finetune import AdapterTuner

    tuning = Tuning(
        base=base,
        epochs=epochs,
        device=device,
        quantize=source.quantize,
        chat_template=source.template,
    )
    return AdapterTuner(tuning=tuning, folder=folder, note=note)


def _row(cycle: LoopCycle) -> dict[str, object]:
    return {
        "cycle": cycle.number,
        "rewriter": cycle.shares,
        "asked": cycle.valid.tries,
        "valid": cycle.valid.successes,
        "new": cycle.new.successes,
        "trained": len(cycle.accuracies),
        "left_out": cycle.left_out,
        "mean": cycle.mean,
        "95 %": "-" if cycle.span is None else "{:.4f} to {:.4f}".format(*cycle.span),
        "best": cycle.best,
        "judged": cycle.judged,
        "gain": cycle.gain,
        "noise": cycle.noise,
    }
