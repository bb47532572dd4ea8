"""``nngen evolve``: runs the closed loop of proposing, training and tuning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from nngen.analysis.loop_report import LoopCycle
from nngen.campaign.budget import last_budget
from nngen.cli.options import ArchiveOptions, Arguments, Flag, Names
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.engine import BudgetOptions, EngineOptions, TrialOptions, usable_pool
from nngen.cli.options.family import FamilyOptions
from nngen.cli.options.rewriter import RewriterOptions, foresee_proposals, read_kinds
from nngen.cli.options.table import Table
from nngen.cli.output import note, print_json, print_table, suggest
from nngen.cli.progress import trial_progress
from nngen.errors import UsageError
from nngen.llm.evolve import Evolution, Tuner, stored_loop
from nngen.llm.finetuning.config import Tuning
from nngen.llm.rewriters.factory import tunable_base
from nngen.training import pick_device


class LoopOptions(Arguments, of=Evolution, only=("cycles", "start", "number", "top", "islands", "judges", "patience")):
    """Size of the loop, as typed."""


class LimitOptions(Arguments, of=Evolution, only=("max_new", "max_tokens"), panel="Budget"):
    """Limits of the loop beside those of a campaign, as typed."""


def evolve(
    name: str,
    /,
    *,
    source: RewriterOptions,
    kind: Names = ("plan",),
    loop: LoopOptions = LoopOptions(),
    tune: Flag = False,
    config: Path | None = None,
    settings: Annotated[
        tuple[str, ...], Parameter(name="--set", negative="", show_default=False, metavar="KEY=VALUE")
    ] = (),
    test_at_end: Flag = False,
    work: Path | None = None,
    trials: TrialOptions = TrialOptions(),
    selection: FamilyOptions = FamilyOptions(),
    machines: EngineOptions = EngineOptions(),
    budget: BudgetOptions = BudgetOptions(),
    limits: LimitOptions = LimitOptions(),
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
        kind: Kinds of proposals, separated by commas, which the cycles take in turn: plan, region, file.
        tune: Tune the model on the archive between cycles (a model in this process only).
        config: TOML file with the fields of the tuning, as for finetune; the base is that of --rewriter.
        settings: Field of the tuning, as in the file, such as epochs=2 or rank=32; one per flag. One pass over the data
            by default, with neither file nor field.
        test_at_end: Compute the test accuracy of the candidate that was judged last, once the loop is over.
        work: Folder for feedback sets and adapters; generated/NAME by default.

    Examples:
        nngen evolve loop --rewriter mutate --families ShuffleNet,MobileNetV3,ICNet,DPN68,ComplexNet
        nngen evolve ranked --rewriter random,mutate --pool 64 --cycles 5
        nngen evolve tuned --rewriter model.gguf --tune --set rank=32 --set lr=1e-3 --cycles 3 --json
        nngen evolve coded --rewriter mutate --kind plan,region --islands 3 --max-new 40
        nngen evolve replayed --rewriter mutate --table moe4.json
    """
    if table is not None and kind != ("plan",):
        raise UsageError("--table answers for plans, not for code: leave out --kind")
    kinds = read_kinds(kind, source.rewriter, machines.isolation)
    if test_at_end and table is not None:
        raise UsageError("a recorded table has no test images: leave out --test-at-end")
    if dry_run:
        sizes: dict[str, Any] = {item.name: item.default for item in fields(Evolution)} | loop.typed()
        judged = (sizes["cycles"] + 1) * sizes["judges"]
        count = sizes["start"] + sizes["cycles"] * sizes["number"] + judged
        foresee_proposals(
            count,
            name,
            trials,
            machines=machines,
            selection=selection,
            budget=budget,
            output=output,
            table=table,
        )
        return
    if (config is not None or settings) and not tune:
        raise UsageError("--config and --set are for --tune: add it")
    typed = machines.settle(trials, selection, table=table)
    device = pick_device(typed.get("device", "auto"))
    tuner = _tuner(source, work or Path("generated") / name, config, settings, device) if tune else None
    rewriter = source.open(device)
    with (
        output.open() as store,
        machines.session(name, stored_loop(store, name), typed, usable_pool(selection)) as (spec, inputs, engine),
        trial_progress(compiled=machines.compiled) as watcher,
    ):
        recorded = getattr(engine, "table", None)
        found = Evolution(
            spec=spec,
            archive=store,
            inputs=inputs,
            engine=engine,
            rewriter=rewriter,
            **loop.typed(),
            **limits.typed(),
            kinds=kinds,
            recorded=recorded.trainings if recorded else (),
            tune=tuner,
            budget=budget.change(last_budget(store.events(name))),
            watcher=watcher,
            note=note,
            isolation=machines.isolation,
            max_reply_tokens=source.max_reply_tokens,
            pool=source.pool,
            reveal=test_at_end,
        ).run()
    if output.json:
        print_json([asdict(cycle) | {"mean": cycle.mean, "best": cycle.best} for cycle in found])
    elif found:
        print_table([_row(cycle) for cycle in found], list(_row(found[0])))
    if found:
        suggest("report", name, *output.place)


def _tuner(source: RewriterOptions, folder: Path, config: Path | None, settings: Sequence[str], device: str) -> Tuner:
    base = tunable_base(source.rewriter)
    if base is None:
        raise UsageError(f"--tune tunes a model in this process, and {source.rewriter} is not one")
    own = {"base": base, "device": device, "quantize": source.quantize, "chat_template": source.template}
    if taken := sorted(own.keys() & {text.partition("=")[0].strip() for text in settings}):
        raise UsageError(f"--set {taken[0]} is not for evolve: it follows from --rewriter and its options")
    tuning = Tuning.load(config, [*(["epochs=1"] if config is None else []), *settings], **own)
    # Loads torch and transformers.
    from nngen.llm.finetuning.finetune import AdapterTuner

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
