"""Tunes a peft adapter on a feedback set with trl's trainers: once, or between the cycles of a closed loop.

A tuning that was stopped continues from its last checkpoint, and is scored on held-out dialogues.

Dialogues become tokens here and not in trl's ``completion_only_loss``. trl also learns the line break
that the chat template writes after the end-of-turn mark, and merges tokens across the border of prompt
and answer, so its prompts would not be the tokens that proposing sends.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from nngen.archive.store import Archive
from nngen.errors import RewriterError
from nngen.files import write_atomically
from nngen.llm import optional_import
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import Row, build_from_archive, counter, read_meta, read_view
from nngen.llm.rewriters.base import Rewriter
from nngen.llm.rewriters.chat import SWITCHES, Chat, load_tokenizer
from nngen.llm.rewriters.transformers_local import Local, adapted, context_of, load_config, load_model
from nngen.seeds import derive
from nngen.text import listed, one_line

ADAPTER = "adapter"
NOTE = "tuning.json"
_CHECKPOINTS = "checkpoints"
_SPENT = "seconds"
_MAX_S = 1e9
_LOOP_TASKS = ("improve", "summary", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids of a dialogue's prompt, and of its answer with the end-of-turn mark."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the whole dialogue."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Score of a model on the answers of held-out dialogues.

    Attributes:
        tokens: Number of answer tokens.
        loss: Mean negative log-likelihood of an answer token, in nats.
        token_accuracy: Share of answer tokens that are the model's most likely one, in [0, 1].
    """

    rows: int
    tokens: int
    loss: float
    token_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Result of a fine-tuning.

    Attributes:
        adapter: Folder of the adapter, for ``--adapter``.
        fingerprint: Fingerprint of the feedback set.
        rows: Number of different dialogues learned from.
        seconds: Seconds of training, those before an interruption included as far as the last checkpoint.
        chosen: Updates after which the weights were taken: those of the lowest loss on the validation split.
    """

    adapter: Path
    fingerprint: str
    rows: int
    updates: int
    seconds: float
    before: HeldOut
    after: HeldOut
    chosen: int | None = None


def finetune(tuning: Tuning, dataset: Path, out: Path, note: Callable[[str], None] = lambda _: None) -> Tuned:
    """Tune an adapter on a feedback set, or continue from the last checkpoint.

    ``out`` receives ``adapter/``, ``tuning.json`` and, during training, ``checkpoints/``; ``note`` gets one line
    about each step.

    Raises:
        RewriterError: If the folder holds another tuning, the feedback set is too small, or the base cannot be loaded.
    """
    meta = read_meta(dataset)
    begun = {"tuning": tuning.to_dict() | {"base": base_name(tuning.base)}, "fingerprint": meta["fingerprint"]}
    finished = _begin(out, begun)
    if finished is not None:
        return finished
    config = load_config(tuning.base)
    chat = Chat(load_tokenizer(tuning.base), int(config.vocab_size))
    limit = min(tuning.max_tokens, context_of(config))
    if limit < tuning.max_tokens:
        note(f"dialogues of more than {limit:,} tokens are left out: the model's context holds no more")
    train = temper(_rows(dataset, tuning.method, "train", tuning.tasks), tuning.temper, tuning.seed)
    if not train:
        raise RewriterError(f"{dataset} has no train rows for {tuning.method}: build it from more proposals")
    table = _table(tuning.method, chat, train, limit)
    if not table:
        raise RewriterError(f"no row has at most {limit} tokens: raise max_tokens, or take a model of a longer context")
    validation = _table(tuning.method, chat, _rows(dataset, tuning.method, "validation", tuning.tasks), limit)
    test = _sft_tokens(chat, _rows(dataset, "sft", "test", tuning.tasks), limit)[: tuning.judged]
    note(f"{len(table)} rows to learn, {len(validation)} to choose the weights, {len(test)} held out")
    model = load_model(tuning.base, device=tuning.device, precision=tuning.precision, quantize=tuning.quantize)
    if tuning.adapter:
        model = adapted(model, Path(tuning.adapter), tuning.base, trainable=True)
    # The libraries raise deprecation warnings about one another.
    with warnings.catch_warnings(action="ignore"):
        trainer = _trainer(tuning, model, chat.tokenizer, table, validation[: tuning.judged], out / _CHECKPOINTS)
    note(_tuned_layers(trainer.model))
    before = held_out(trainer.model, test)
    note(f"before: loss {before.loss:.4f} nats a token, {before.token_accuracy:.1%} of the tokens right")
    last = optional_import("transformers.trainer_utils").get_last_checkpoint(str(out / _CHECKPOINTS))
    if last is not None:
        note(f"going on from {Path(last).name}")
    clock = _clock(out / _CHECKPOINTS / _SPENT, note)
    trainer.add_callback(clock)
    # transformers' own callback prints to standard output, which holds the result.
    trainer.remove_callback(optional_import("transformers.trainer_callback").PrinterCallback)
    with warnings.catch_warnings(action="ignore"):
        done = trainer.train(resume_from_checkpoint=last)
    seconds = clock.spent()
    best = trainer.state.best_model_checkpoint
    chosen = int(Path(best).name.rpartition("-")[2]) if best else int(done.global_step)
    if best:
        note(f"the validation split chose the weights after {chosen} of {done.global_step} updates")
    after = held_out(trainer.model, test)
    note(f"after: loss {after.loss:.4f} nats a token, {after.token_accuracy:.1%} of the tokens right")
    _save(trainer, tuning, out)
    tuned = Tuned(
        adapter=out / ADAPTER,
        fingerprint=meta["fingerprint"],
        rows=len({json.dumps(row, sort_keys=True) for row in train}),
        updates=int(done.global_step),
        chosen=chosen,
        seconds=seconds,
        before=before,
        after=after,
    )
    versions = {name: str(optional_import(name).__version__) for name in ("torch", "transformers", "peft", "trl")}
    result = {**asdict(tuned), "adapter": ADAPTER}
    _write(out / NOTE, {**begun, "prompts": meta["prompts"], "result": result, "versions": versions})
    shutil.rmtree(out / _CHECKPOINTS, ignore_errors=True)
    return tuned


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterTuner:
    """Builds a feedback set and tunes an adapter after each cycle of a closed loop; continues where it was stopped.

    Attributes:
        tuning: Arguments of the tuning; every cycle starts from the base and uses all data so far.
        folder: Parent of the folders ``cycle-N/data`` and ``cycle-N/tuned``.
        note: Called with one line about each step.
    """

    tuning: Tuning
    folder: Path
    note: Callable[[str], None] = lambda _: None

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None:
        """Tune after a cycle; None, with a note, if there is too little data to learn from."""
        place = self.folder / f"cycle-{cycle}"
        try:
            if not (place / "data").exists():
                count, limit = counter(self.tuning.base), self.tuning.max_tokens
                build_from_archive(archive, place / "data", count=count, limit=limit, tasks=_LOOP_TASKS, seed=0)
            tuned = finetune(replace(self.tuning, tasks=()), place / "data", place / "tuned", self.note)
        except RewriterError as error:
            self.note(f"cycle {cycle} is not learned from: {error}")
            return None
        return Local(self.tuning.base, tuned.adapter, device=self.tuning.device, quantize=self.tuning.quantize)


def held_out(model: Any, rows: Sequence[Tokens]) -> HeldOut:
    """Score a model on dialogues, one at a time."""
    loss, right, tokens = 0.0, 0, 0
    training = model.training
    model.eval()
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps = "logits_to_keep" in inspect.signature(bare.forward).parameters
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row.ids], device=model.device)
            count = len(row.answer)
            # The logits at one position predict the token at the next one.
            kept = {"logits_to_keep": count + 1} if keeps else {}
            logits = model(ids, **kept).logits[0, -count - 1 : -1].float()  # (count, V)
            answer = ids[0, -count:]
            loss += float(torch.nn.functional.cross_entropy(logits, answer, reduction="sum"))
            right += int((logits.argmax(-1) == answer).sum())
            tokens += count
    model.train(training)
    whole = max(tokens, 1)
    return HeldOut(rows=len(rows), tokens=tokens, loss=loss / whole, token_accuracy=right / whole)


def base_name(base: str) -> str:
    """Name a base without its folder on this machine."""
    return Path(base).name if Path(base).exists() else base


def _begin(out: Path, begun: dict[str, Any]) -> Tuned | None:
    """Return the result of a finished tuning; refuse the folder of another one."""
    note = out / NOTE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not note.is_file():
            if any(item.name != _CHECKPOINTS for item in out.iterdir()):
                raise RewriterError(f"{out} holds something else: choose another folder for the adapter")
            _write(note, begun)
            return None
    except OSError as error:
        raise RewriterError(f"{out} cannot be written: {error.strerror}") from error
    try:
        stored = json.loads(note.read_text(encoding="utf-8"))
        # Fields that a tuning of an older version lacks have their defaults.
        known = {**stored, "tuning": Tuning.from_dict(stored["tuning"]).to_dict()}
        # Compared as JSON, in which 2 and 2.0, or a list and a tuple, are equal.
        if json.loads(json.dumps({key: known[key] for key in begun})) != json.loads(json.dumps(begun)):
            raise RewriterError(f"{out} holds a tuning with other arguments or other data: choose another folder")
        if "result" not in stored:
            return None
        result = stored["result"]
        scores = {when: HeldOut(**result[when]) for when in ("before", "after")}
        return Tuned(**{**result, "adapter": out / ADAPTER, **scores})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RewriterError(f"{note} is damaged ({type(error).__name__}): choose another folder") from error


def _rows(dataset: Path, view: str, split: str, tasks: Sequence[str]) -> list[Row]:
    return [row for row in read_view(dataset, view, split) if not tasks or row["task"] in tasks]


def temper(rows: Sequence[Row], power: float, seed: int) -> list[Row]:
    """Raise the counts of tasks and regions to a power, in proportion: rows of rare kinds are repeated.

    A ``power`` of 1 keeps the rows, one of 0 makes all kinds equally frequent.
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


def tokenize(chat: Chat, turns: Sequence[Mapping[str, str]], answer: str) -> Tokens:
    """Turn a dialogue into tokens: the turns before the answer and the answer apart, so no token crosses their border.

    Raises:
        RewriterError: If the chat template cannot write the turns.
    """
    head, tail = chat.dialogue(turns, answer)
    return Tokens(prompt=tuple(chat.ids(head)), answer=tuple(chat.ids(tail)))


def _sft_tokens(chat: Chat, rows: Sequence[Row], limit: int) -> list[Tokens]:
    """Tokenize the dialogues of at most ``limit`` tokens."""
    tokens = (tokenize(chat, row["messages"][:-1], row["messages"][-1]["content"]) for row in rows)
    return [row for row in tokens if len(row.ids) <= limit]


def _trainer(
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
    more: dict[str, Any] = {"beta": tuning.beta} if tuning.method != "sft" else {}
    # KTO estimates a divergence from the other rows of a batch, so it cannot score one row.
    judges = len(validation) >= (2 if tuning.method == "kto" else 1)
    torch.manual_seed(tuning.seed)
    try:
        return trainer(
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


def _tuned_layers(model: Any) -> str:
    """Name the layers that have an adapter, with the number of their weights."""
    layers = [name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A")]
    tuned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return f"LoRA on {len(layers)} layers ({listed(sorted(set(layers)), 8)}): {tuned:,} weights"


def _clock(file: Path, note: Callable[[str], None]) -> Any:
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


def _table(method: str, chat: Chat, rows: Sequence[Row], limit: int) -> list[Row]:
    """Make the trainer's rows: tokens with labels for SFT, dialogues of allowed length for DPO and KTO."""
    if method == "sft":
        return [
            {"input_ids": list(row.ids), "labels": [-100] * len(row.prompt) + list(row.answer)}
            for row in _sft_tokens(chat, rows, limit)
        ]
    keys = ("chosen", "rejected") if method == "dpo" else ("completion",)
    table = []
    for row in rows:
        if max(len(tokenize(chat, row["prompt"], row[key][0]["content"]).ids) for key in keys) <= limit:
            kept = {key: row[key] for key in ("label", *keys) if key in row}
            # trl writes the dialogue itself; it must be that of a proposal.
            table.append({**kept, "prompt": chat.known(row["prompt"]), "chat_template_kwargs": SWITCHES})
    return table


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


def _write(file: Path, value: Any) -> None:
    write_atomically(file, (json.dumps(value, indent=2) + "\n").encode())
