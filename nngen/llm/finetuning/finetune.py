"""Tunes a model on a feedback set: trl's trainers over a peft adapter, resumable, judged on held-out rows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch

from nngen.errors import RewriterError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import Row, read_view
from nngen.llm.finetuning.masks import Tokens, tokenize
from nngen.llm.optional_imports import load
from nngen.llm.rewriters.base import Message
from nngen.llm.rewriters.transformers_local import adapted, load_model, load_tokenizer
from nngen.seeds import derive

__all__ = ["ADAPTER", "NOTE", "HeldOut", "Tuned", "finetune", "held_out", "temper"]

ADAPTER = "adapter"
NOTE = "tuning.json"
_CHECKPOINTS = "checkpoints"
_SPENT = "seconds"
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_IGNORED = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How well a model writes the answers of held-out rows.

    Attributes:
        rows: Dialogues looked at.
        tokens: Learned tokens in them.
        loss: Mean negative log-likelihood of a token of an answer, in nats.
        token_accuracy: Share of those tokens that are the likeliest, in [0, 1].
    """

    rows: int
    tokens: int
    loss: float
    token_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a fine-tuning came to.

    Attributes:
        adapter: Folder of the adapter, for ``--adapter``.
        rows: Different dialogues that it learned from.
        updates: Steps of the optimizer in all.
        seconds: Of training, over all parts that a checkpoint closed and the last one.
        before: Held-out rows with the model it began from.
        after: Held-out rows with the tuned model.
    """

    adapter: Path
    fingerprint: str
    rows: int
    updates: int
    seconds: float
    before: HeldOut
    after: HeldOut


def finetune(tuning: Tuning, dataset: Path, out: Path, note: Callable[[str], None] = lambda _: None) -> Tuned:
    """Tune an adapter, or go on with it where it stopped.

    Args:
        tuning: Every argument.
        dataset: A folder that ``nngen dataset build`` wrote.
        out: Gets ``adapter/``, ``tuning.json`` and, until it is done, ``checkpoints/``.
        note: Told what is going on.

    Raises:
        RewriterError: If the folder holds another tuning, the data set has too little, or the base cannot be loaded.
    """
    meta = _meta(dataset)
    begun = {"tuning": tuning.to_dict() | {"base": base_name(tuning.base)}, "fingerprint": meta["fingerprint"]}
    held = _begin(out, begun)
    if held is not None:
        return held
    tokenizer = load_tokenizer(tuning.base)
    train = temper(_rows(dataset, tuning, "train"), tuning.temper, tuning.seed)
    judge = [row for row in read_view(dataset, "sft", "test") if not tuning.tasks or row["task"] in tuning.tasks]
    test = _short([_tokens(tokenizer, row) for row in judge], tuning.max_tokens)[: tuning.judged]
    adapter = Path(tuning.adapter) if tuning.adapter else None
    model = load_model(tuning.base, device=tuning.device, precision=tuning.precision, quantize=tuning.quantize)
    if adapter is not None:
        model = adapted(model, adapter, tuning.base, trainable=True)
    note(f"{len(train)} rows to learn, {len(test)} held out")
    before = held_out(model, test)
    note(f"before: loss {before.loss:.4f} nats a token, {before.token_accuracy:.1%} of the tokens right")
    with _calm():
        trainer = _trainer(tuning, model, tokenizer, train, out / _CHECKPOINTS)
    last = load("transformers.trainer_utils").get_last_checkpoint(str(out / _CHECKPOINTS))
    if last is not None:
        note(f"going on from {Path(last).name}")
    clock = _clock(out / _CHECKPOINTS / _SPENT)
    trainer.add_callback(clock)
    with _calm():
        done = trainer.train(resume_from_checkpoint=last)
    seconds = clock.spent()
    after = held_out(trainer.model, test)
    note(f"after: loss {after.loss:.4f} nats a token, {after.token_accuracy:.1%} of the tokens right")
    _save(trainer, tuning, out)
    tuned = Tuned(
        adapter=out / ADAPTER,
        fingerprint=meta["fingerprint"],
        rows=len({json.dumps(row, sort_keys=True) for row in train}),
        updates=int(done.global_step),
        seconds=seconds,
        before=before,
        after=after,
    )
    _write(out / NOTE, {**begun, "prompts": meta["prompts"], "result": _result(tuned), "versions": _versions()})
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return tuned


def held_out(model: Any, rows: Sequence[Tokens]) -> HeldOut:
    """Judge a model on dialogues, one at a time."""
    loss, right, tokens = 0.0, 0, 0
    training = model.training
    model.eval()
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids], device=model.device)
            count = sum(row.learned)
            # The logit before a token predicts it.
            logits = model(ids, logits_to_keep=count + 1).logits[0, :-1].float()  # (count, V)
            answer = ids[0, -count:]
            loss += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
            right += int((logits.argmax(-1) == answer).sum())
            tokens += count
    model.train(training)
    whole = max(tokens, 1)
    return HeldOut(rows=len(rows), tokens=tokens, loss=loss / whole, token_accuracy=right / whole)


def base_name(base: str) -> str:
    """Name a base without saying where it lies on this machine."""
    path = Path(base)
    return path.name if path.exists() else base


def _begin(out: Path, begun: dict[str, Any]) -> Tuned | None:
    """Return a finished tuning; refuse another one's folder."""
    out.mkdir(parents=True, exist_ok=True)
    note = out / NOTE
    if not note.is_file():
        if any(item.name != _CHECKPOINTS for item in out.iterdir()):
            raise RewriterError(f"{out} holds something else: choose another folder for the adapter")
        _write(note, begun)
        return None
    held = json.loads(note.read_text(encoding="utf-8"))
    # Through JSON, so that 2 and 2.0, or a list and a tuple, do not count as different.
    if {key: held.get(key) for key in begun} != json.loads(json.dumps(begun)):
        raise RewriterError(f"{out} holds a tuning with other arguments or other data: choose another folder")
    if "result" not in held:
        return None
    told = held["result"]
    return Tuned(
        **{**told, "adapter": out / ADAPTER, "before": HeldOut(**told["before"]), "after": HeldOut(**told["after"])}
    )


def _meta(dataset: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((dataset / "feedback.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RewriterError(f"{dataset} is no feedback set: write one with nngen dataset build") from error
    return meta


def _rows(dataset: Path, tuning: Tuning, split: str) -> list[Row]:
    rows = [row for row in read_view(dataset, tuning.method, split) if not tuning.tasks or row["task"] in tuning.tasks]
    if not rows:
        raise RewriterError(f"{dataset} has no {split} rows for {tuning.method}: build it from more proposals")
    return rows


def temper(rows: Sequence[Row], power: float, seed: int) -> list[Row]:
    """Bend the shares of tasks and regions: each gets its count to a power, rare ones by being shown again.

    Args:
        rows: With ``task`` and ``place``.
        power: 1 leaves the rows as they are, 0 makes the shares equal.
        seed: Decides which rows of a common kind are left out.
    """
    if power == 1:
        return list(rows)
    kinds: dict[str, list[Row]] = {}
    for row in rows:
        kinds.setdefault(f"{row['task']} {row.get('place', '')}", []).append(row)
    whole = sum(len(same) ** power for same in kinds.values())
    found: list[Row] = []
    for name, same in sorted(kinds.items()):
        wanted = max(round(len(rows) * len(same) ** power / whole), 1)
        order = Random(derive(seed, "temper", name)).sample(same, len(same))
        found += [order[number % len(order)] for number in range(wanted)]
    return found


def _tokens(tokenizer: Any, row: Row) -> Tokens:
    *turns, answer = [Message(role=turn["role"], content=turn["content"]) for turn in row["messages"]]
    return tokenize(tokenizer, turns, answer.content)


def _short(rows: Sequence[Tokens], limit: int) -> list[Tokens]:
    return [row for row in rows if len(row.ids) <= limit]


def _trainer(tuning: Tuning, model: Any, tokenizer: Any, rows: Sequence[Row], folder: Path) -> Any:
    trl, peft, datasets = load("trl"), load("peft"), load("datasets")
    datasets.disable_progress_bars()
    lora = peft.LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=_TARGETS,
        task_type="CAUSAL_LM",
    )
    config, trainer = {
        "sft": (trl.SFTConfig, trl.SFTTrainer),
        "dpo": (trl.DPOConfig, trl.DPOTrainer),
        "kto": (trl.KTOConfig, trl.KTOTrainer),
    }[tuning.method]
    more: dict[str, Any] = {"beta": tuning.beta} if tuning.method != "sft" else {}
    data = _table(tuning, tokenizer, rows, datasets)
    torch.manual_seed(tuning.seed)
    return trainer(
        model=model,
        args=config(
            output_dir=str(folder),
            num_train_epochs=tuning.epochs,
            per_device_train_batch_size=tuning.batch,
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
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=False,
            **more,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if hasattr(model, "peft_config") else lora,
    )


def _clock(file: Path) -> Any:
    """Make a callback that keeps the seconds of training beside each checkpoint, those of earlier parts included."""

    class Clock(load("transformers").TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.before = float(file.read_text()) if file.is_file() else 0.0
            self.start = time.perf_counter()

        def spent(self) -> float:
            return self.before + time.perf_counter() - self.start

        def on_save(self, *_: Any, **__: Any) -> None:
            file.write_text(f"{self.spent():.3f}")

    return Clock()


def _table(tuning: Tuning, tokenizer: Any, rows: Sequence[Row], datasets: Any) -> Any:
    """Make the trainer's table: for SFT tokens with our own mask, for the others dialogues that are short enough."""
    if tuning.method == "sft":
        every = _short([_tokens(tokenizer, row) for row in rows], tuning.max_tokens)
        learned = [
            {
                "input_ids": list(row.ids),
                "labels": [token if use else _IGNORED for token, use in zip(row.ids, row.learned, strict=True)],
            }
            for row in every
        ]
        if not learned:
            raise RewriterError(f"no row has at most {tuning.max_tokens} tokens: raise max_tokens")
        return datasets.Dataset.from_list(learned)
    keys = ("prompt", "chosen", "rejected") if tuning.method == "dpo" else ("prompt", "completion", "label")
    kept = [{key: row[key] for key in keys} for row in rows if _length(tokenizer, row) <= tuning.max_tokens]
    if not kept:
        raise RewriterError(f"no row has at most {tuning.max_tokens} tokens: raise max_tokens")
    return datasets.Dataset.from_list(kept)


def _length(tokenizer: Any, row: Row) -> int:
    answers = [row[key][0]["content"] for key in ("chosen", "rejected", "completion") if key in row]
    turns = [Message(role=turn["role"], content=turn["content"]) for turn in row["prompt"]]
    return max(len(tokenize(tokenizer, turns, answer).ids) for answer in answers)


@contextlib.contextmanager
def _calm() -> Iterator[None]:
    """Silence what the libraries say to each other about names that will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _save(trainer: Any, tuning: Tuning, out: Path) -> None:
    half = out / f".{ADAPTER}"
    shutil.rmtree(half, ignore_errors=True)
    trainer.model.save_pretrained(str(half))
    file = half / "adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    _write(file, config | {"base_model_name_or_path": base_name(tuning.base)})
    (half / "README.md").unlink(missing_ok=True)
    shutil.rmtree(out / ADAPTER, ignore_errors=True)
    half.replace(out / ADAPTER)


def _result(tuned: Tuned) -> dict[str, Any]:
    return {**asdict(tuned), "adapter": ADAPTER}


def _versions() -> dict[str, str]:
    return {name: str(load(name).__version__) for name in ("torch", "transformers", "peft", "trl")}


def _write(file: Path, value: Any) -> None:
    half = file.with_name(f".{file.name}.{os.getpid()}")
    half.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    half.replace(file)
