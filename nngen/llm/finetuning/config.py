"""How a model is tuned: one value, read from one TOML file, a preset or the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from nngen.errors import RewriterError

__all__ = ["METHODS", "Tuning", "presets"]

METHODS = ("sft", "dpo", "kto")

_PRESETS = Path(__file__).parent / "presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Every argument of a fine-tuning.

    Attributes:
        base: A hub id, a folder in transformers' layout, or a GGUF file.
        method: ``sft``, ``dpo`` or ``kto``.
        adapter: Folder of an adapter to begin from, as DPO and KTO do after SFT; "" for none.
        tasks: Only examples of these tasks; empty for all.
        temper: How the shares of tasks and regions are bent, in [0, 1]: 1 leaves them, 0 makes them equal, 0.5 takes
            square roots (as Conneau et al. 2020 do for languages); the number of dialogues stays.
        epochs: How often the train split is shown.
        batch: Dialogues per step on the device.
        accumulate: Steps whose gradients make one update.
        lr: Highest learning rate; a cosine follows a short rise.
        rank: Of the LoRA matrices.
        alpha: LoRA's scale; the update counts alpha / rank.
        dropout: On LoRA's input.
        beta: How close DPO and KTO stay to the base; unused by SFT.
        max_tokens: Longer dialogues are left out, never cut.
        precision: Of the base's weights: ``auto``, ``float32`` or ``bfloat16``; the adapter's are float32.
        quantize: Whether the base is held in 4 bits (NF4); needs CUDA.
        checkpointing: Whether activations are computed twice to save memory.
        save_every: Updates between two checkpoints.
        judged: Most held-out dialogues that the model is judged on, before and after.
        device: ``cpu`` or ``cuda``.
        seed: Of the adapter's first weights and of the order of examples.
    """

    base: str
    method: str = "sft"
    adapter: str = ""
    tasks: tuple[str, ...] = ()
    temper: float = 1.0
    epochs: float = 2.0
    batch: int = 1
    accumulate: int = 4
    lr: float = 5e-4
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    beta: float = 0.1
    max_tokens: int = 1024
    precision: str = "auto"
    quantize: bool = False
    checkpointing: bool = False
    save_every: int = 20
    judged: int = 64
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise RewriterError(f"no method is called {self.method!r}: there are {', '.join(METHODS)}")
        for name in ("epochs", "batch", "accumulate", "lr", "rank", "alpha", "max_tokens", "save_every", "judged"):
            if not getattr(self, name) > 0:
                raise RewriterError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.temper <= 1:
            raise RewriterError(f"temper lies between 0 and 1, not at {self.temper}")
        if self.quantize and not self.device.startswith("cuda"):
            raise RewriterError("a base in 4 bits needs a CUDA device: leave quantize out on the CPU")

    @classmethod
    def load(cls, file: Path | None = None, **given: Any) -> Self:
        """Read a TOML file, or the file of a preset, and put what was typed in its place.

        Args:
            file: A table of this class's fields; None for the defaults.
            given: What was typed; None stands for what was not.

        Raises:
            RewriterError: If the file cannot be read, a key is unknown, or the base is missing.
        """
        data: dict[str, Any] = {}
        if file is not None:
            try:
                data = tomllib.loads(file.read_text(encoding="utf-8"))
            except OSError as error:
                raise RewriterError(f"{file} cannot be read: {error.strerror}") from error
            except tomllib.TOMLDecodeError as error:
                raise RewriterError(f"{file} is no TOML: {error}") from error
        data |= {name: value for name, value in given.items() if value is not None}
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` wrote.

        Raises:
            RewriterError: If a key is unknown, or the base is missing.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise RewriterError(f"tuning has no field {unknown[0]!r}")
        if "base" not in data:
            raise RewriterError("say what to tune: --base NAME, or base = ... in the TOML file")
        return cls(**{**data, "tasks": tuple(data.get("tasks", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Write the fields as TOML's and JSON's types."""
        return asdict(self) | {"tasks": list(self.tasks)}


def presets() -> dict[str, Path]:
    """Name the presets that are shipped, with their files."""
    return {file.stem: file for file in sorted(_PRESETS.glob("*.toml"))}
