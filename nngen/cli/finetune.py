"""``nngen feedback``, ``finetune`` and ``adapter``: a data set from the archive, and adapters tuned on it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from nngen.analysis.formatting import duration
from nngen.cli.options import ArchiveOptions, Arguments, Count, Flag, Names, OutputOptions, ThreadsOption
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.errors import UsageError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.config import presets as shipped
from nngen.llm.finetuning.dataset import build_from_archive, counter

if TYPE_CHECKING:
    from nngen.llm.finetuning.finetune import Outlook  # loads torch

feedback = App(name="feedback", help="Build a data set from the archive for tuning a model.")
adapters = App(name="adapter", help="Merge an adapter into its base.")


_FEW_ROWS = 50
_PLANS = "train changes of plans (nngen llm-propose --rewriter mutate --from-top 4 -n 32 --train)"
_MORE = {
    "sft": f"{_PLANS} or propose code (nngen llm-propose --kind region)",
    "dpo": f"it pairs answers to one question: {_PLANS}, or propose regions again",
    "kto": f"{_PLANS} or propose code (nngen llm-propose --kind region)",
    "source": f"{_PLANS}, or raise --file-limit where files are left out",
}


@feedback.command
def build(
    *,
    out: Path,
    tokenizer: str | None = None,
    limit: Count = 1024,
    file_limit: Count = 32_768,
    tasks: Names = None,
    writers: Names = None,
    seed: int = 0,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Write a feedback set: Parquet and JSONL for SFT, DPO, KTO and whole files in three splits, with a data card.

    No quartet, and no near-duplicate of one, is in two splits. Examples over the limit are left out whole; no answer
    is cut.

    Args:
        out: Folder to write; an earlier feedback set there is replaced.
        tokenizer: Base model whose tokenizer counts the tokens; by default three characters count as one token.
        limit: Most tokens of question and answer together.
        file_limit: The same for the view source, whose rows hold whole files.
        tasks: Tasks to include, separated by commas: region, improve, summary, accuracy, and code, source, delta and
            lemur of the view source; all by default.
        writers: Rewriters whose regions to include, separated by commas, such as a model without the baselines; all by
            default.
        seed: Seed of the split.

    Examples:
        nngen feedback build --out generated/feedback
        nngen feedback build --out generated/regions --tasks region --tokenizer model.gguf --json
    """
    with output.read() as store:
        built = build_from_archive(
            store,
            out,
            count=counter(tokenizer),
            limit=limit,
            file_limit=file_limit,
            tasks=tasks,
            writers=writers,
            seed=seed,
        )
    drops = built.drops
    for view, counts in built.counts.items():
        if counts["train"] < _FEW_ROWS:
            note(f"{view} has {counts['train']} rows to learn from: {_MORE[view]}")
    if output.json:
        row = {"folder": str(built.folder), "fingerprint": built.fingerprint, "counts": dict(built.counts)}
        print_json(row | {"tasks": dict(built.tasks), "answers": dict(built.answers), "dropped": asdict(drops)})
        return
    print_table([{"view": view, **counts} for view, counts in built.counts.items()], ("view", *built.counts["sft"]))
    print_table([{"task": task, "good": good, "answers": built.answers[task]} for task, good in built.tasks.items()])
    reasons = f"{drops.split:,} because of the splits, {drops.twice:,} repeats, {drops.often:,} with a common answer"
    say(f"left out: {drops.long:,} too long, {drops.files:,} files too long, {reasons}")
    say(f"{out}: fingerprint {built.fingerprint[:12]}")
    suggest("finetune", "--data", out, "--base", tokenizer or "MODEL", "--out", "generated/adapter")


class TuningOptions(Arguments, of=Tuning):
    """Arguments of a tuning that were typed; they override those of the file or the preset."""


def finetune(
    *,
    data: Path | None = None,
    out: Path | None = None,
    config: Path | None = None,
    preset: str | None = None,
    tuning: TuningOptions = TuningOptions(),
    threads: ThreadsOption | None = None,
    presets: Flag = False,
    dry_run: Flag = False,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Tune a LoRA adapter on a feedback set; the same command continues a tuning that was stopped.

    The adapter is stored with the data's fingerprint, the prompts' versions and its loss on the held-out split before
    and after. Arguments come from a TOML file or a preset; those typed override them.

    Args:
        data: Folder that nngen feedback build wrote.
        out: Folder for the adapter.
        config: TOML file with the fields of a tuning.
        preset: Shipped configuration, instead of a file.
        threads: CPU threads; torch's own choice by default.
        presets: List the presets and exit.
        dry_run: Tune nothing: print the dialogues, the updates, and the time by earlier tunings of this base in
            folders beside OUT.

    Examples:
        nngen finetune --presets
        nngen finetune --data generated/feedback --base model.gguf --out generated/adapter --epochs 2
        nngen finetune --data generated/feedback --preset coder-7b-24gb --out generated/adapter
    """
    if presets:
        _list(output)
        return
    if data is None or out is None:
        raise UsageError("name the data and the folder for the adapter: --data FOLDER --out FOLDER")
    if preset is not None and (config is not None or preset not in shipped()):
        raise UsageError(f"--preset takes one of {', '.join(shipped())}, without --config")
    arguments = Tuning.load(shipped()[preset] if preset is not None else config, **tuning.typed())

    # Both load torch.
    import torch

    from nngen.llm.finetuning.finetune import finetune as tune
    from nngen.llm.finetuning.finetune import outlook

    if threads is not None:
        torch.set_num_threads(threads)
    if dry_run:
        _print_outlook(outlook(arguments, data, out), out, output)
        return
    tuned = tune(arguments, data, out, note=note)
    if output.json:
        print_json(asdict(tuned) | {"adapter": str(tuned.adapter)})
        return
    rows = [{"when": "before", **asdict(tuned.before)}, {"when": "after", **asdict(tuned.after)}]
    print_table(rows, ("when", "rows", "tokens", "loss", "token_accuracy"))
    say(f"{tuned.adapter}: {tuned.rows:,} rows, {tuned.updates:,} updates, {tuned.seconds:.0f} s")
    suggest("llm-propose", "--rewriter", arguments.base, "--adapter", tuned.adapter, "-n", 8)


@adapters.command
def merge(
    adapter: Path,
    /,
    *,
    base: str,
    out: Path,
    precision: str = "float32",
    chat_template: Path | None = None,
    output: OutputOptions = OutputOptions(),
) -> None:
    """Write a base and its adapter as one model, for servers and programs that do not load adapters.

    Args:
        adapter: Folder of the adapter, such as the one that finetune names at its end.
        base: The base that it was tuned on: a GGUF file, a folder or a hub id.
        out: Folder to write, in the layout of transformers.
        precision: Precision of the weights: float32, bfloat16, or auto for that of proposals on this machine.
        chat_template: File with a Jinja chat template, for a base that has none.

    Examples:
        nngen adapter merge generated/adapter/adapter --base model.gguf --out generated/merged
    """
    # Loads torch.
    from nngen.llm.rewriters.causal_models import merge_adapter

    merge_adapter(base, adapter, out, precision=precision, chat_template=str(chat_template or ""))
    size = sum(file.stat().st_size for file in out.iterdir()) / 2**20
    if output.json:
        print_json({"folder": str(out), "base": base, "adapter": str(adapter), "mib": round(size, 1)})
    else:
        say(f"{out}: {size:,.0f} MiB")
    suggest("llm-propose", "--rewriter", out, "-n", 8)


def _print_outlook(found: Outlook, out: Path, output: OutputOptions) -> None:
    if output.json:
        print_json(asdict(found))
        return
    say(f"dry run of {out}: nothing is tuned or stored")
    say(f"rows      {found.rows:,}")
    say(f"updates   {found.updates:,} at most")
    if found.seconds is None:
        say("time      not known: no tuning of this base with these settings is beside it")
    else:
        expected, low, high = map(duration, found.seconds)
        say(f"time      {expected} (from {low} to {high}), by {found.tunings:,} earlier tunings")


def _list(output: OutputOptions) -> None:
    rows = []
    for name, file in shipped().items():
        text = file.read_text(encoding="utf-8")
        about = text.splitlines()[0].lstrip("# ")
        rows.append({"preset": name, **tomllib.loads(text), "about": about})
    output.print_rows(rows, ("preset", "base", "quantize", "max_tokens", "about"))
