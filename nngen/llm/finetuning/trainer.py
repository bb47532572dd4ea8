"""Rows, trainer and progress of a tuning: trl's trainers with tokens and dialogues made here.

Dialogues become tokens here and not in trl's ``completion_only_loss``. trl also learns the line break
that the chat template writes after the end-of-turn mark, and merges tokens across the border of prompt
and answer, so its prompts would not be the tokens that proposing sends.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nngen.errors import RewriterError
from nngen.llm import optional_import
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.splits import Row
from nngen.llm.rewriters.chat import SWITCHES, Chat
from nngen.text import listed, one_line

_MAX_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids of a dialogue's prompt, and of its answer with the end-of-turn mark."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the whole dialogue."""
        return self.prompt + self.answer


def tokenize(chat: Chat, turns: Sequence[Mapping[str, str]], answer: str) -> Tokens:
    """Turn a dialogue into tokens: the turns before the answer and the answer apart, so no token crosses their border.

    Raises:
        RewriterError: If the chat template cannot write the turns.
    """
    head, tail = chat.dialogue(turns, answer)
    return Tokens(prompt=tuple(chat.ids(head)), answer=tuple(chat.ids(tail)))


def sft_tokens(chat: Chat, rows: Sequence[Row], limit: int) -> list[Tokens]:
    """Tokenize the dialogues of at most ``limit`` tokens."""
    tokens = (tokenize(chat, row["messages"][:-1], row["messages"][-1]["content"]) for row in rows)
    return [row for row in tokens if len(row.ids) <= limit]


def trainer_rows(method: str, chat: Chat, rows: Sequence[Row], limit: int) -> list[Row]:
    """Make the trainer's rows: tokens with labels for SFT, dialogues of allowed length for DPO and KTO."""
    if method == "sft":
        return [
            {"input_ids": list(row.ids), "labels": [-100] * len(row.prompt) + list(row.answer)}
            for row in sft_tokens(chat, rows, limit)
        ]
    keys = ("chosen", "rejected") if method == "dpo" else ("completion",)
    table = []
    for row in rows:
        if max(len(tokenize(chat, row["prompt"], row[key][0]["content"]).ids) for key in keys) <= limit:
            kept = {key: row[key] for key in ("label", *keys) if key in row}
            # trl writes the dialogue itself; it must be that of a proposal.
            table.append({**kept, "prompt": chat.known(row["prompt"]), "chat_template_kwargs": SWITCHES})
    return table


def make_trainer(
    tuning: Tuning, model: Any, tokenizer: Any, train: Sequence[Row], validation: Sequence[Row], folder: Path
) -> Any:
    """Make trl's trainer for a method, and add an adapter to the model.

    Raises:
        RewriterError: If the model has no layer that can be tuned.
    """
    trl, peft, datasets = optional_import("trl"), optional_import("peft"), optional_import("datasets")
    datasets.disable_progress_bars()
    # The kernels of state-space models read these weights without the adapter's.
    fused = getattr(model, "_is_stateful", False) and any(
        name.endswith("out_proj") for name, _ in model.named_modules()
    )
    lora = peft.LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=list(tuning.targets) or "all-linear",
        exclude_modules=["out_proj"] if fused else None,
        task_type="CAUSAL_LM",
    )
    config, trainer = (getattr(trl, f"{tuning.method.upper()}{kind}") for kind in ("Config", "Trainer"))
    more: dict[str, Any] = {"beta": tuning.beta} if tuning.method != "sft" else {"packing": tuning.packing}
    # KTO estimates a divergence from the other rows of a batch, so it cannot score one row.
    judges = len(validation) >= (2 if tuning.method == "kto" else 1)
    torch.manual_seed(tuning.seed)
    try:
        built = trainer(
            model=model,
            args=config(
                output_dir=str(folder),
                num_train_epochs=tuning.epochs,
                per_device_train_batch_size=tuning.batch,
                per_device_eval_batch_size=tuning.batch,
                gradient_accumulation_steps=tuning.accumulate,
                learning_rate=tuning.lr,
                lr_scheduler_type="cosine",
                warmup_steps=0.05,
                max_length=tuning.max_tokens,
                gradient_checkpointing=tuning.checkpointing,
                use_cpu=not tuning.device.startswith("cuda"),
                bf16=tuning.device.startswith("cuda"),
                seed=tuning.seed,
                data_seed=tuning.seed,
                logging_steps=5,
                save_steps=tuning.save_every,
                save_total_limit=1,
                eval_strategy="steps" if judges else "no",
                eval_steps=tuning.save_every,
                load_best_model_at_end=judges,
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
                **more,
            ),
            train_dataset=datasets.Dataset.from_list(list(train)),
            eval_dataset=datasets.Dataset.from_list(list(validation)) if judges else None,
            processing_class=tokenizer,
            peft_config=None if hasattr(model, "peft_config") else lora,
        )
    except ValueError as error:
        raise RewriterError(f"{tuning.base} cannot be tuned: {one_line(str(error), 200)}") from error
    if tuning.packing and "labels" not in built.train_dataset.column_names:
        # The questions would be learned too.
        raise RewriterError("this version of trl packs rows without their labels: pip install 'trl>=1.16'")
    return built


def tuned_layers(model: Any) -> str:
    """Name the layers that have an adapter, with the number of their weights."""
    layers = [name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A")]
    tuned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return f"LoRA on {len(layers)} layers ({listed(sorted(set(layers)), 8)}): {tuned:,} weights"


def progress_clock(file: Path, note: Callable[[str], None]) -> Any:
    """Make a callback that reports progress, and keeps the seconds of training beside each checkpoint."""

    class Clock(optional_import("transformers").TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.before = 0.0
            # The seconds are a measurement: a tuning goes on without those of a damaged file.
            with contextlib.suppress(OSError, ValueError):
                self.before = min(max(float(file.read_text()), 0.0), _MAX_S)
            self.start = time.perf_counter()
            self.first = 0

        def spent(self) -> float:
            return self.before + time.perf_counter() - self.start

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.first = state.global_step

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step >= state.max_steps and args.load_best_model_at_end:
                control.should_evaluate = control.should_save = True  # the last weights are among those chosen from

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if "loss" not in logs or state.global_step <= self.first:
                return
            pace = (time.perf_counter() - self.start) / (state.global_step - self.first)
            left = pace * (state.max_steps - state.global_step) / 60
            progress = f"{state.global_step} of {state.max_steps} updates, loss {float(logs['loss']):.3f}"
            note(f"{progress}, {pace:.1f} s an update, {left:.0f} min left")

        def on_save(self, *_: Any, **__: Any) -> None:
            file.write_text(f"{self.spent():.3f}")

    return Clock()
