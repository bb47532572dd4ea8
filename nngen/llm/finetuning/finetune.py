"""Tunes a peft adapter on a feedback set with trl's trainers: once, or between the cycles of a closed loop.

A tuning that was stopped continues from its last checkpoint, and is scored on held-out dialogues.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from nngen.archive.store import Archive
from nngen.errors import RewriterError
from nngen.files import load_json, write_atomically
from nngen.llm import optional_import
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build_from_archive, counter
from nngen.llm.finetuning.held_out import HeldOut, held_out
from nngen.llm.finetuning.rows import train_rows, view_rows
from nngen.llm.finetuning.splits import Row
from nngen.llm.finetuning.stored_set import read_meta
from nngen.llm.finetuning.trainer import Tokens, make_trainer, progress_clock, sft_tokens, trainer_rows, tuned_layers
from nngen.llm.rewriters.base import Options, Rewriter
from nngen.llm.rewriters.causal_models import adapted, context_of, load_config, load_model
from nngen.llm.rewriters.chat import Chat, load_tokenizer
from nngen.llm.rewriters.transformers_local import Local

ADAPTER = "adapter"
NOTE = "tuning.json"
_CHECKPOINTS = "checkpoints"
_SPENT = "seconds"
_LOOP_TASKS = ("improve", "summary", "region")


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
    rows = train_rows(tuning, dataset)
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
    rows = train_rows(tuning, dataset)
    trainer, test = _prepare(tuning, dataset, rows, out / _CHECKPOINTS, note)
    before = _score(trainer, test, "before", note)
    chosen, updates, seconds = _train(trainer, out / _CHECKPOINTS, note)
    after = _score(trainer, test, "after", note)
    _save(trainer, tuning, out)
    tuned = Tuned(
        adapter=out / ADAPTER,
        fingerprint=meta["fingerprint"],
        rows=len({json.dumps(row, sort_keys=True) for row in rows}),
        updates=updates,
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


def _prepare(
    tuning: Tuning, dataset: Path, rows: Sequence[Row], folder: Path, note: Callable[[str], None]
) -> tuple[Any, Sequence[Tokens]]:
    """Load the base and make its trainer; return it with the held-out dialogues."""
    config = load_config(tuning.base)
    chat = Chat(load_tokenizer(tuning.base, tuning.chat_template), int(config.vocab_size))
    limit = min(tuning.max_tokens, context_of(config))
    if limit < tuning.max_tokens:
        note(f"dialogues of more than {limit:,} tokens are left out: the model's context holds no more")
    table = trainer_rows(tuning.method, chat, rows, limit)
    if not table:
        raise RewriterError(f"no row has at most {limit} tokens: raise max_tokens, or take a model of a longer context")
    view = tuning.view or tuning.method
    validation = trainer_rows(tuning.method, chat, view_rows(dataset, view, "validation", tuning.tasks), limit)
    judging = view if tuning.method == "sft" else "sft"
    test = sft_tokens(chat, view_rows(dataset, judging, "test", tuning.tasks), limit)[: tuning.judged]
    note(f"{len(table)} rows to learn, {len(validation)} to choose the weights, {len(test)} held out")
    model = load_model(tuning.base, device=tuning.device, precision=tuning.precision, quantize=tuning.quantize)
    if tuning.adapter:
        model = adapted(model, Path(tuning.adapter), tuning.base, trainable=True)
    # The libraries raise deprecation warnings about one another.
    with warnings.catch_warnings(action="ignore"):
        trainer = make_trainer(tuning, model, chat.tokenizer, table, validation[: tuning.judged], folder)
    note(tuned_layers(trainer.model))
    return trainer, test


def _score(trainer: Any, rows: Sequence[Tokens], when: str, note: Callable[[str], None]) -> HeldOut:
    found = held_out(trainer.model, rows)
    note(f"{when}: loss {found.loss:.4f} nats a token, {found.token_accuracy:.1%} of the tokens right")
    return found


def _train(trainer: Any, folder: Path, note: Callable[[str], None]) -> tuple[int, int, float]:
    """Train, or go on from the last checkpoint in ``folder``.

    Returns:
        The updates after which the weights were taken, those in all, and the seconds of training.
    """
    last = optional_import("transformers.trainer_utils").get_last_checkpoint(str(folder))
    if last is not None:
        note(f"going on from {Path(last).name}")
    clock = progress_clock(folder / _SPENT, note)
    trainer.add_callback(clock)
    # transformers' own callback prints to standard output, which holds the result.
    trainer.remove_callback(optional_import("transformers.trainer_callback").PrinterCallback)
    with warnings.catch_warnings(action="ignore"):
        updates = int(trainer.train(resume_from_checkpoint=last).global_step)
    seconds = clock.spent()
    best = trainer.state.best_model_checkpoint
    if best is None:
        return updates, updates, seconds
    chosen = int(Path(best).name.rpartition("-")[2])
    note(f"the validation split chose the weights after {chosen} of {updates} updates")
    return chosen, updates, seconds


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
