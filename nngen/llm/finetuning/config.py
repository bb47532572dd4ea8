"""Arguments of a fine-tuning, read from a TOML file, a preset or the command line."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from nngen.errors import RewriterError
from nngen.files import read_toml
from nngen.text import did_you_mean, one_line, split_names

METHODS = ("sft", "dpo", "kto")

_KINDS: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "int | None": (int,),
    "float": (float, int),
    "bool": (bool,),
    "tuple[str, ...]": (list, tuple),
}
_NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list of names"}

_PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Arguments of a fine-tuning.

    Attributes:
        base: A hub id, a folder in transformers' layout, or a GGUF file.
        method: ``sft``, ``dpo`` or ``kto``.
        view: View of the feedback set that is learned: that of the method by default; ``source`` for whole files, by
            ``sft``.
        chat_template: File with a Jinja chat template, for a base that has none; "" for the base's own.
        adapter: Folder of an adapter to begin from, such as SFT's for DPO and KTO; "" for none.
        tasks: Tasks of the examples used; empty for all.
        temper: Exponent on the counts of tasks and regions, in [0, 1]: 1 keeps their shares, 0 makes them equal,
            0.5 takes square roots (as Conneau et al. 2020 do for languages). The number of dialogues stays.
        epochs: Passes over the train split.
        batch: Dialogues per step on the device; by default 1, for KTO 2, which compares those of one step.
        accumulate: Steps whose gradients are added up for one update.
        lr: Highest learning rate, after a short warm-up and before a cosine.
        rank: Rank of the LoRA matrices.
        alpha: Scale of LoRA; the update is multiplied by alpha / rank.
        targets: Names of the modules that LoRA is added to, or of their last parts; by default all linear layers but
            the last.
        dropout: Dropout on LoRA's input.
        beta: Strength of DPO's and KTO's pull towards the base; unused by SFT.
        max_tokens: Most tokens of a dialogue; longer ones are left out, never cut.
        precision: Precision of the base's weights: ``auto``, ``float32`` or ``bfloat16``; the adapter's is float32.
        quantize: Whether the base is loaded in 4 bits (NF4); needs CUDA.
        packing: Whether short dialogues share a row of up to ``max_tokens``, each blind to the others (SFT); ``batch``
            then counts such rows. Saves padding where lengths differ, as in the view ``source``.
        checkpointing: Whether activations are recomputed in the backward pass to save memory.
        save_every: Updates between two checkpoints.
        judged: Most held-out dialogues that the model is scored on, before and after.
        device: ``cpu`` or ``cuda``.
        seed: Seed of the adapter's first weights and of the order of examples.
    """

    base: str
    method: str = "sft"
    view: str = ""
    chat_template: str = ""
    adapter: str = ""
    tasks: tuple[str, ...] = ()
    temper: float = 1.0
    epochs: float = 2.0
    batch: int | None = None
    accumulate: int = 4
    lr: float = 5e-4
    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    beta: float = 0.1
    max_tokens: int = 1024
    precision: str = "auto"
    quantize: bool = False
    packing: bool = False
    checkpointing: bool = False
    save_every: int = 20
    judged: int = 64
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RewriterError(f"no method is called {self.method!r}: choose {', '.join(METHODS)}")
        if self.view not in ("", self.method) and (self.view, self.method) != ("source", "sft"):
            raise RewriterError(f"view {self.view!r} is not learned by {self.method}: choose source with sft, or none")
        if self.batch is None:
            object.__setattr__(self, "batch", 2 if self.method == "kto" else 1)
        for name in ("epochs", "batch", "accumulate", "lr", "rank", "alpha", "max_tokens", "save_every", "judged"):
            if not 0 < getattr(self, name) < math.inf:
                raise RewriterError(f"{name} must be positive, not {getattr(self, name)}")
        if self.method == "kto" and self.batch == 1:
            raise RewriterError("kto compares the dialogues of one step: take --batch 2 or more")
        if self.packing and self.method != "sft":
            raise RewriterError(f"packing is for sft: {self.method} compares dialogues one by one")
        if not 0 <= self.temper <= 1:
            raise RewriterError(f"temper lies between 0 and 1, not at {self.temper}")
        if self.quantize and not self.device.startswith("cuda"):
            raise RewriterError("a base in 4 bits needs a CUDA device: leave quantize out on the CPU")

    @classmethod
    def load(cls, file: Path | None = None, settings: Sequence[str] = (), **given: Any) -> Self:
        """Read a TOML file, if one is given, and override its fields by settings and by arguments that are not None.

        Args:
            file: TOML file with fields.
            settings: Fields written as KEY=VALUE, the value as in TOML or as plain text; names may have commas.
            given: Fields.

        Raises:
            RewriterError: If file or settings cannot be read, a key is unknown, or the base is missing.
        """
        data: dict[str, Any] = {}
        if file is not None:
            try:
                data = read_toml(file)
            except ValueError as error:
                raise RewriterError(f"{file} cannot be read: {error}") from None
        data |= dict(map(_setting, settings))
        data |= {name: value for name, value in given.items() if value is not None}
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields that ``to_dict`` wrote.

        Raises:
            RewriterError: If a key is unknown, or the base is missing.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            near = did_you_mean(unknown[0], (field.name for field in fields(cls)))
            raise RewriterError(f"tuning has no field {unknown[0]!r}{near and '; '}{near}")
        for item in fields(cls):
            value, kinds = data.get(item.name, item.default), _KINDS[str(item.type)]
            if item.name in data and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
                raise RewriterError(f"{item.name} must be {_NAMES[kinds[0]]}, not {one_line(repr(value), 60)}")
        names = {name: tuple(data.get(name, ())) for name in ("tasks", "targets")}
        for field_name, values in names.items():
            if not all(isinstance(value, str) for value in values):
                raise RewriterError(f"{field_name} must be a list of names")
        if "base" not in data:
            raise RewriterError("say what to tune: --base NAME, or base = ... in the TOML file")
        return cls(**{**data, **names})

    def to_dict(self) -> dict[str, Any]:
        """Write the fields as TOML and JSON types."""
        return asdict(self) | {"tasks": list(self.tasks), "targets": list(self.targets)}


def _setting(text: str) -> tuple[str, Any]:
    name, _, value = (part.strip() for part in text.partition("="))
    if not name or not value:
        raise RewriterError(f"a field of a tuning is set by KEY=VALUE, such as epochs=2, not {text!r}")
    name = name.replace("-", "_")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return name, split_names(value) if name in ("tasks", "targets") else value


def presets() -> dict[str, Path]:
    """Map the names of the shipped presets to their files."""
    return {file.stem: file for file in sorted(_PRESETS.glob("*.toml"))}
