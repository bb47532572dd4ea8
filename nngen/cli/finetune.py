"""``nngen finetune``: tune a model on a feedback set."""

from __future__ import annotations

import sys
from pathlib import Path

from nngen.cli.output import print_json, print_table

__all__ = ["finetune"]


def finetune(
    *,
    data: Path | None = None,
    out: Path | None = None,
    base: str | None = None,
    method: str | None = None,
    config: Path | None = None,
    preset: str | None = None,
    adapter: str | None = None,
    tasks: str | None = None,
    epochs: float | None = None,
    lr: float | None = None,
    batch: int | None = None,
    accumulate: int | None = None,
    rank: int | None = None,
    max_tokens: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    seed: int | None = None,
    presets: bool = False,
    json: bool = False,
) -> None:
    """Tune a LoRA adapter on a feedback set; the same command again goes on where it stopped.

    The adapter is kept with the data's fingerprint, the prompts' versions and its loss on the held-out
    split before and after. Arguments come from a TOML file or a preset; what is typed stands above.

    Args:
        data: Folder that nngen dataset build wrote.
        out: Folder for the adapter.
        base: A hub id, a folder or a GGUF file.
        method: sft (default), dpo or kto.
        config: TOML file with the fields of a tuning.
        preset: Instead of a file: one of the shipped ones.
        adapter: Folder of an adapter to begin from.
        tasks: Only examples of these tasks, separated by commas.
        epochs: How often the train split is shown.
        lr: Highest learning rate.
        batch: Dialogues per step.
        accumulate: Steps whose gradients make one update.
        rank: Of the LoRA matrices.
        max_tokens: Longer dialogues are left out.
        device: cpu or cuda.
        threads: CPU threads; torch's own choice by default.
        seed: Of the first weights and of the order.
        presets: List the presets and do nothing else.
        json: Print the result as JSON.

    Examples:
        nngen finetune --presets
        nngen finetune --data generated/feedback --base model.gguf --out generated/adapter --epochs 2
        nngen finetune --data generated/feedback --preset coder-7b-24gb --out generated/adapter
    """
    from nngen.errors import UsageError
    from nngen.llm.finetuning.config import Tuning
    from nngen.llm.finetuning.config import presets as shipped

    if presets:
        _list(json=json)
        return
    if data is None or out is None:
        raise UsageError("say what to learn and where to keep it: --data FOLDER --out FOLDER")
    if preset is not None and (config is not None or preset not in shipped()):
        raise UsageError(f"--preset takes one of {', '.join(shipped())}, and goes without --config")
    file = shipped()[preset] if preset is not None else config
    chosen = None if tasks is None else tuple(name.strip() for name in tasks.split(","))
    tuning = Tuning.load(
        file,
        base=base,
        method=method,
        adapter=adapter,
        tasks=chosen,
        epochs=epochs,
        lr=lr,
        batch=batch,
        accumulate=accumulate,
        rank=rank,
        max_tokens=max_tokens,
        device=device,
        seed=seed,
    )
    _tune(tuning, data, out, threads, json=json)


def _tune(tuning: object, data: Path, out: Path, threads: int | None, *, json: bool) -> None:
    from dataclasses import asdict
    from typing import cast

    import torch

    from nngen.llm.finetuning.config import Tuning
    from nngen.llm.finetuning.finetune import finetune as tune

    if threads is not None:
        torch.set_num_threads(threads)
    tuned = tune(
        cast(Tuning, tuning), data, out, note=lambda line: print(f"nngen: {line}", file=sys.stderr, flush=True)
    )
    if json:
        print_json(asdict(tuned) | {"adapter": str(tuned.adapter)})
        return
    rows = [{"when": "before", **asdict(tuned.before)}, {"when": "after", **asdict(tuned.after)}]
    print_table(rows, ("when", "rows", "tokens", "loss", "token_accuracy"))
    print(f"{tuned.adapter}: {tuned.rows:,} rows, {tuned.updates:,} updates, {tuned.seconds:.0f} s")


def _list(*, json: bool) -> None:
    import tomllib

    from nngen.llm.finetuning.config import presets

    rows = []
    for name, file in presets().items():
        text = file.read_text(encoding="utf-8")
        about = text.splitlines()[0].lstrip("# ")
        rows.append({"preset": name, **tomllib.loads(text), "about": about})
    if json:
        print_json(rows)
    else:
        print_table(rows, ("preset", "base", "quantize", "max_tokens", "about"))
