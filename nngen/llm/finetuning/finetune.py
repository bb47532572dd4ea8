"""Tunes a peft adapter on a feedback set with trl's trainers: once, or between the cycles of a closed loop.

A tuning that was stopped continues from its last checkpoint, and is scored on held-out dialogues.
"""

from __future__ import annotations

import inspect
import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

from nngen.archive.store import Archive
from nngen.errors import RewriterError
from nngen.files import load_json, write_atomically
from nngen.llm import optional_import
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build_from_archive, counter
from nngen.llm.finetuning.splits import Row
from nngen.llm.finetuning.stored_set import read_meta, read_view
from nngen.llm.finetuning.trainer import Tokens, make_trainer, progress_clock, sft_tokens, trainer_rows, tuned_layers
from nngen.llm.rewriters.base import Options, Rewriter
from nngen.llm.rewriters.causal_models import adapted, context_of, load_config, load_model
from nngen.llm.rewriters.chat import Chat, load_tokenizer
from nngen.llm.rewriters.transformers_local import Local
from nngen.seeds import derive

ADAPTER = "adapter"
NOTE = "tuning.json"
_CHECKPOINTS = "checkpoints"
_SPENT = "seconds"
_LOOP_TASKS = ("improve", "summary", "region")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Score of a model on the answers of held-out dialogues."""

    rows: int
    tokens: int  # number of answer tokens
    loss: float  # mean negative log-likelihood of an answer token, in nats
    token_accuracy: float  # share of answer tokens that are the model's most likely one, in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Result of a fine-tuning."""

    adapter: Path  # folder of the adapter, for ``--adapter``
    fingerprint: str  # fingerprint of the feedback set
    rows: int  # number of different dialogues learned from
    updates: int
    seconds: float  # seconds of training, those before an interruption included as far as the last checkpoint
    before: HeldOut
    after: HeldOut
    # updates after which the weights were taken: those of the lowest loss on the validation split
    chosen: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a fine-tuning takes, before it begins."""

    rows: int  # dialogues to learn, before those beyond the limit of tokens are left out
    updates: int  # updates of the adapter, at most
    # expected seconds, with the least and the most; None where no tuning like this was timed
    seconds: tuple[float, float, float] | None
    tunings: int  # number of earlier tunings that the seconds are based on


def outlook(tuning: Tuning, dataset: Path, out: Path) -> Outlook:
    """Estimate a fine-tuning from the pace of finished ones with the same base and settings, in folders beside it.

    Raises:
        RewriterError: If the folder is not a feedback set, or has nothing to learn.
    """
    read_meta(dataset)
    rows = _train_rows(tuning, dataset)
    updates = math.ceil(tuning.epochs * math.ceil(len(rows) / (tuning.batch or 1) / tuning.accumulate))
    same = ("method", "batch", "accumulate", "max_tokens", "precision", "quantize", "checkpointing", "device")
    wanted = [base_name(tuning.base), *(getattr(tuning, name) for name in same)]
    paces = []
    for note in out.parent.glob(f"*/{NOTE}"):
        stored = load_json(note)
        with suppress(LookupError, TypeError, ZeroDivisionError):
            if [stored["tuning"]["base"], *(stored["tuning"][name] for name in same)] == wanted:
                paces.append(float(stored["result"]["seconds"]) / stored["result"]["updates"])
    seconds = (median(paces) * updates, min(paces) * updates, max(paces) * updates) if paces else None
    return Outlook(rows=len(rows), updates=updates, seconds=seconds, tunings=len(paces))


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
    chat = Chat(load_tokenizer(tuning.base, tuning.chat_template), int(config.vocab_size))
    limit = min(tuning.max_tokens, context_of(config))
    if limit < tuning.max_tokens:
        note(f"dialogues of more than {limit:,} tokens are left out: the model's context holds no more")
    train = _train_rows(tuning, dataset)
    table = trainer_rows(tuning.method, chat, train, limit)
    if not table:
        raise RewriterError(f"no row has at most {limit} tokens: raise max_tokens, or take a model of a longer context")
    view = tuning.view or tuning.method
    validation = trainer_rows(tuning.method, chat, _rows(dataset, view, "validation", tuning.tasks), limit)
    judging = view if tuning.method == "sft" else "sft"
    test = sft_tokens(chat, _rows(dataset, judging, "test", tuning.tasks), limit)[: tuning.judged]
    note(f"{len(table)} rows to learn, {len(validation)} to choose the weights, {len(test)} held out")
    model = load_model(tuning.base, device=tuning.device, precision=tuning.precision, quantize=tuning.quantize)
    if tuning.adapter:
        model = adapted(model, Path(tuning.adapter), tuning.base, trainable=True)
    # The libraries raise deprecation warnings about one another.
    with warnings.catch_warnings(action="ignore"):
        trainer = make_trainer(tuning, model, chat.tokenizer, table, validation[: tuning.judged], out / _CHECKPOINTS)
    note(tuned_layers(trainer.model))
    before = held_out(trainer.model, test)
    note(f"before: loss {before.loss:.4f} nats a token, {before.token_accuracy:.1%} of the tokens right")
    last = optional_import("transformers.trainer_utils").get_last_checkpoint(str(out / _CHECKPOINTS))
    if last is not None:
        note(f"going on from {Path(last).name}")
    clock = progress_clock(out / _CHECKPOINTS / _SPENT, note)
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
    """Builds a feedback set and tunes an adapter after each cycle of a closed loop; continues where it was stopped."""

    tuning: Tuning  # arguments of the tuning; every cycle starts from the base and uses all data so far
    folder: Path  # parent of the folders ``cycle-N/data`` and ``cycle-N/tuned``
    note: Callable[[str], None] = lambda _: None  # called with one line about each step

    def __call__(self, archive: Archive, cycle: int) -> Rewriter | None:
        """Tune after a cycle; None, with a note, if there is too little data to learn from."""
        place = self.folder / f"cycle-{cycle}"
        try:
            if not (place / "data").exists():
                count, limit = counter(self.tuning.base, self.tuning.chat_template), self.tuning.max_tokens
                tasks = self.tuning.tasks or _LOOP_TASKS
                build_from_archive(archive, place / "data", count=count, limit=limit, tasks=tasks, seed=0)
            tuned = finetune(replace(self.tuning, tasks=()), place / "data", place / "tuned", self.note)
        except RewriterError as error:
            self.note(f"cycle {cycle} is not learned from: {error}")
            return None
        same = {name: getattr(self.tuning, name) for name in ("device", "quantize", "chat_template")}
        return Local(self.tuning.base, Options(adapter=tuned.adapter, **same))


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


def _train_rows(tuning: Tuning, dataset: Path) -> list[Row]:
    """Read the rows to learn, in the shares and as often as the tuning and their weights say.

    Raises:
        RewriterError: If there are none.
    """
    view = tuning.view or tuning.method
    rows = temper(_rows(dataset, view, "train", tuning.tasks), tuning.temper, tuning.seed)
    if not rows:
        raise RewriterError(f"{dataset} has no train rows for {view}: build it from more proposals")
    return repeat(rows, tuning.seed)


def repeat(rows: Sequence[Row], seed: int) -> list[Row]:
    """Repeat each row by its weight: one of 1.4 stands once or, drawn with a probability of 0.4, twice."""
    draws = (Random(derive(seed, "weight", number)).random() for number in range(len(rows)))
    return [row for row, draw in zip(rows, draws, strict=True) for _ in range(int(row.get("weight", 1) + draw))]


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
