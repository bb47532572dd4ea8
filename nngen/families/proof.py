"""Proof that a family is the same network alone and as an expert of a mixture, computed inside a worker.

The family's own file, and a file with the function that mixtures hold, are imported, built and run side by side with
the same seeds. Whatever differs, to the last bit, is a reason to refuse the family.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_flatten

from nngen.checks.candidate_net import load_module, set_mode
from nngen.checks.guard import guard
from nngen.checks.rule import CheckFailed, fail
from nngen.families.own_settings import OwnSettings
from nngen.families.subject import BATCH, RULE, FamilyUnderTest, adapted, adapted_sides
from nngen.text import listed, one_line
from nngen.types import Adapter, Outcome, Shape

_SEED = 7
_RATE = 0.01
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Facts about a family that is the same network alone and as an expert."""

    net: nn.Module  # its network, after one step of training
    images: Tensor  # images on which it was run
    seeds: bool  # whether its code seeds the generators
    settings: bool  # whether its code changes settings of torch
    changes_input: bool  # whether its forward pass changes the images that it gets
    stochastic: bool  # whether its outputs in evaluation depend on random numbers

    @property
    def own_settings(self) -> bool:
        """Whether ``OwnSettings`` has to keep something of it from the other experts."""
        return self.seeds or self.settings or self.changes_input


def prove(family: FamilyUnderTest, expert: Path, adapter: Adapter, shape: Shape) -> Proof:
    """Compare a family with its expert: parameters and buffers, outputs in both modes, one step of training.

    The family's file is imported anew, because an import has a state (counters, registries); ``expert`` is a file with
    the family's function under the name ``family``.

    Raises:
        CheckFailed: If the family fails, its logits are not finite, no parameter receives a gradient, or the expert
            differs, or the family alone differs from run to run; the message names what.
    """
    torch.manual_seed(_SEED)
    images = [adapted(torch.rand(BATCH, shape.channels, shape.height, shape.width), adapter) for _ in range(2)]
    size = adapted_sides(adapter, shape)
    watch = _Watch()

    def alone() -> _Side:
        return _Side(family, lambda: watch.load(family.path))

    def as_expert() -> _Side:
        return _Side(replace(family, path=expert), lambda: _function_of(expert), what="as an expert: ")

    with watch:
        try:
            sides, stochastic = _compare_sides((alone, as_expert), size, images)
        except _DifferenceFound:
            try:
                _compare_sides((alone, alone), size, images)
            except _DifferenceFound as difference:
                message = f"it draws numbers that no seed sets: alone, too, {difference.what} from run to run"
                raise fail(Outcome.CONTRACT, RULE, message) from None
            raise
    if watch.in_forward:
        message = "it seeds the generators in its forward pass: all other experts would draw the same numbers again"
        raise fail(Outcome.CONTRACT, RULE, message)
    return Proof(
        net=sides[0].net,
        images=images[0],
        seeds=watch.seeds,
        settings=any(side.settings.changed for side in sides),
        changes_input=watch.changes_input,
        stochastic=stochastic,
    )


def _compare_sides(
    makers: Sequence[Callable[[], _Side]], size: tuple[int, int], images: Sequence[Tensor]
) -> tuple[list[_Side], bool]:
    """Import, build and run two sides, and raise for the first difference.

    Returns:
        The sides, and whether the first one draws random numbers in evaluation.
    """
    with _deterministic():
        sides = [make() for make in makers]
        one = sides[0]
        _compare("parameters", [side.build(*size) for side in sides])
        # Uninitialised memory was filled until here, where weights show it; filling each result would only cost time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        evaluated = [side.evaluate(images) for side in sides]
        _compare("outputs in evaluation", evaluated)
        stochastic = not _same(one.evaluate(images, seed=_SEED + 1), evaluated[0])
        _compare("outputs in training", [side.train(images) for side in sides])
        _compare("gradients", [side.gradients() for side in sides])
        if not any(bool(gradient.count_nonzero()) for gradient in one.gradients().values()):
            raise fail(Outcome.NO_GRADIENT, RULE, "no parameter received a gradient")
        _compare("parameters after a step", [side.step() for side in sides])
    return sides, stochastic


def _function_of(expert: Path) -> Any:
    module = load_module(expert, "family_expert")
    with guard(RULE, Outcome.IMPORT, expert, "its function was called"):
        return module.family()


class _Recorded(OwnSettings):
    """Settings of a family, and whether any differed after one of its steps."""

    changed = False

    def leave(self) -> None:
        super().leave()
        self.changed = self.changed or bool(self.own)


class _Side:
    """The family alone, or its expert: each step begins with the same seeds, and its failure says on which side."""

    net: nn.Module

    def __init__(self, family: FamilyUnderTest, load: Callable[[], Any], what: str = "") -> None:
        self._what = what
        with self._step():
            self.settings = _Recorded(load)
        self._family = replace(family, net=self.settings)

    def build(self, height: int, width: int) -> Mapping[str, Any]:
        with self._step():
            self.net = self._family.build(height, width)
        return _state(self.net)

    @torch.no_grad()
    def evaluate(self, images: Sequence[Tensor], seed: int = _SEED) -> list[object]:
        with self._step(seed):
            return self._outputs(images, training=False)[1]

    def train(self, images: Sequence[Tensor]) -> list[object]:
        with self._step():
            found, outputs = self._outputs(images, training=True)
            self._family.backward(torch.cat(found))
        return outputs

    def gradients(self) -> dict[str, Tensor]:
        return {name: value.grad for name, value in self.net.named_parameters() if value.grad is not None}

    @torch.no_grad()
    def step(self) -> Mapping[str, Any]:
        for parameter in self.net.parameters():
            if parameter.grad is not None:
                parameter.sub_(_RATE * parameter.grad)
        return _state(self.net)

    def _outputs(self, images: Sequence[Tensor], *, training: bool) -> tuple[list[Tensor], list[object]]:
        """Run the net on each batch; return the logits, and all that it returned."""
        set_mode(self.net, self._family.path, training=training)
        kept: list[object] = []
        hook = self.net.register_forward_hook(lambda _net, _images, outputs: kept.append(outputs))
        found = [self._family.logits(self.net, batch) for batch in images]
        hook.remove()
        if not all(bool(torch.isfinite(logits).all()) for logits in found):
            mode = "training" if training else "evaluation"
            raise fail(Outcome.NON_FINITE, RULE, f"logits are not finite in {mode} mode")
        return found, kept or [*found]  # a net that is called in a way of its own runs no hooks

    @contextmanager
    def _step(self, seed: int = _SEED) -> Iterator[None]:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        except CheckFailed as failure:
            verdict = failure.verdict
            raise CheckFailed(replace(verdict, message=self._what + verdict.message)) from None


def _state(net: nn.Module) -> dict[str, Any]:
    """Return parameters and buffers by name, each with whether it is trained; a lazy one has no values yet."""
    found = [*net.named_parameters(), *net.named_buffers()]
    return {name: (None if is_lazy(value) else value.detach(), value.requires_grad) for name, value in found}


class _DifferenceFound(CheckFailed):
    """Two sides differ.

    Attributes:
        what: The difference as a phrase.
    """

    def __init__(self, what: str) -> None:
        super().__init__(fail(Outcome.CONTRACT, RULE, f"it is another network inside a function: {what}").verdict)
        self.what = what


def _compare(what: str, found: Sequence[Any]) -> None:
    """Refuse what differs between the sides, by its name where it has one."""
    alone, expert = found
    names = ""
    if isinstance(alone, Mapping):
        differ = [name for name in {**alone, **expert} if not _same(alone.get(name), expert.get(name))]
        if not differ and list(alone) == list(expert):
            return
        names = f" ({one_line(listed(differ or ['their order'], _SHOWN), 100)})"
    elif _same(alone, expert):
        return
    raise _DifferenceFound(f"its {what} differ{names}")


def _same(one: object, other: object) -> bool:
    """Return whether two observations are equal to the last bit; NaN equals NaN."""
    left, right = tree_flatten(one)[0], tree_flatten(other)[0]
    return len(left) == len(right) and all(map(_equal, left, right))


def _equal(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if (one.dtype, one.shape, one.layout) != (other.dtype, other.shape, other.layout):
            return False
        one, other = _plain(one), _plain(other)
        return torch.equal(one, other) or bool(((one == other) | ((one != one) & (other != other))).all())
    if isinstance(one, int | float | str | None):
        return type(one) is type(other) and one == other
    # An object of a class of the family's own, which is another class on each side.
    return type(one).__name__ == type(other).__name__


def _plain(value: Tensor) -> Tensor:
    """Return a dense tensor of torch's own class: no operation compares sparse ones, or ones of two other classes."""
    value = value.detach()
    return (value if value.layout is torch.strided else value.to_dense()).as_subclass(Tensor)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Make results repeatable, and fill memory that is not initialised with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


class _Watch:
    """Notes whether a family seeds the generators of torch, Python or numpy, or changes its input.

    Attributes:
        seeds: Whether it seeds when it is imported or built.
        in_forward: Whether it seeds in a forward pass.
        changes_input: Whether a forward pass writes into the images that it gets.
    """

    def __init__(self) -> None:
        self.seeds = self.in_forward = self.changes_input = False
        self._calls = 0
        self._seeds = random.seed, np.random.seed

    def __enter__(self) -> _Watch:
        random.seed, np.random.seed = (self._counted(seed) for seed in self._seeds)
        return self

    def __exit__(self, *_: object) -> None:
        random.seed, np.random.seed = self._seeds

    def load(self, path: Path) -> Callable[..., nn.Module]:
        """Import the family; its class builds networks that are watched, too."""
        before = self._now()
        net = load_module(path, "family_alone").Net
        self.seeds |= self._now() != before

        def build(*arguments: Any) -> nn.Module:
            before = self._now()
            built: nn.Module = net(*arguments)
            self.seeds |= self._now() != before
            # The first hook, before OwnSettings makes a copy of the images; the second one gets this copy.
            built.register_forward_pre_hook(lambda _, images: self._begin(*images))
            built.register_forward_hook(lambda _, images, _outputs: self._end(*images))
            return built

        return build

    def _begin(self, images: Tensor) -> None:
        self._before, self._images = self._now(), images

    def _end(self, copy: Tensor) -> None:
        self.in_forward |= self._now() != self._before
        # In-place operations count as versions, but not through ``.data``; some change nothing in these images.
        self.changes_input |= copy._version > 0 or not torch.equal(copy, self._images)

    def _now(self) -> tuple[int, int]:
        return torch.initial_seed(), self._calls

    def _counted(self, seed: Callable[..., Any]) -> Any:
        def counted(*arguments: Any, **named: Any) -> None:
            self._calls += 1
            seed(*arguments, **named)

        return counted
