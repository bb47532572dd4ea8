"""Measures one family inside a worker: the inputs it accepts, its proof at a given shape, and what training costs.

This module imports torch and runs LEMUR's code: only workers import it.

A try builds the family and runs it forward, in evaluation and in training mode. The search for the smallest and the
largest side runs on the meta device, which computes shapes and no numbers. Its result is then confirmed with real
numbers, backward pass included, at the smallest side; at the shape that was asked for, the family is compared with
itself as an expert (``nngen.families.proof``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import hyperparameter_names, load_module, materialise, net_class, set_mode
from nngen.checks.card import takes_channels_last
from nngen.checks.rule import CheckFailed, fail
from nngen.checks.rules.static.contract import Contract
from nngen.checks.rules.static.forbidden import Forbidden
from nngen.checks.source import Source
from nngen.errors import AssemblyError
from nngen.families.catalogue import make_family
from nngen.families.family_function import family_function
from nngen.families.hyperparameters import complete, supported
from nngen.families.own_settings import OwnSettings
from nngen.families.process_state import ProcessState
from nngen.families.proof import prove
from nngen.families.subject import BATCH, RULE, FamilyUnderTest, adapted, adapted_sides
from nngen.isolation.job import SOURCE_FILE, JsonObject
from nngen.isolation.protocol import Channel
from nngen.text import listed
from nngen.types import Adapter, Interface, Outcome, Shape

_EXPERT_FILE = "expert.py"
_MOST_NAMES = 64
_SHOWN = 3

_FEW, _MORE, _WIDE = 2, 4, 16
"""Batch sizes whose difference is the cost of one image: in memory, and in time where memory allows the last."""

_WIDE_MIB = 1024
_RUNS = 3

_SIDES = (64, 32, 128, 256, 384, 224, 28, 299)
"""Sides that are tried in turn; the last ones are for networks that take images of one size alone."""

_LARGE = {"meta": 512, "cpu": 256}


def measure(arguments: JsonObject, channel: Channel, _files: list[int]) -> None:
    """Measure the family in ``SOURCE_FILE`` and send one message; the entry point of the probe's jobs.

    Args:
        arguments: ``recorded`` (LEMUR's values of hyperparameters), ``classes``, ``shape``, ``interface`` (None if it
            must be measured) and ``cost``: whether to measure what training costs, instead of the proof.
        channel: Gets ``interface``, ``parameters``, ``cost``, ``reason`` (empty if the family is usable), ``notes``
            (of ``profile.NOTES``) and ``memory``: whether memory was the reason, which another machine may have.
    """
    torch.set_num_threads(1)
    known = arguments["interface"]
    answer: dict[str, Any] = {"interface": known, "parameters": None, "cost": None, "reason": "", "notes": []}
    answer["memory"] = False
    try:
        if arguments["cost"]:
            family, _ = _import(arguments)
            shape = Shape.parse(arguments["shape"])
            answer["cost"] = training_cost(family, Interface(**known).adapter(shape), shape)
        else:
            _measure(arguments, answer)
    except CheckFailed as failure:
        answer["reason"] = failure.verdict.message
        answer["memory"] = failure.verdict.outcome is Outcome.MEMORY
    channel.send(answer)


def _measure(arguments: JsonObject, answer: dict[str, Any]) -> None:
    """Read the source, import the family, find its interface and prove it at the shape; fills in the answer."""
    shape, known = Shape.parse(arguments["shape"]), arguments["interface"]
    expert = _write_expert()
    before = ProcessState()
    family, names = _import(arguments)
    _refuse_changes(before)
    interface = measure_interface(family) if known is None else Interface(**known)
    answer["interface"] = asdict(interface)
    proof = prove(family, expert, interface.adapter(shape), shape)
    _refuse_changes(before)
    answer["parameters"] = sum(value.numel() for value in proof.net.parameters() if value.requires_grad)
    # A new net: after the proof's step on two images, statistics of batch normalisation multiply rounding errors.
    net = family.build(*adapted_sides(interface.adapter(shape), shape))
    last = takes_channels_last(net, proof.images, family.path, family.classes)
    found = replace(interface, hyperparameters=names, own_settings=proof.own_settings, channels_last=last)
    answer["interface"] = asdict(found)
    settings = proof.settings and not proof.seeds
    facts = {"seeds": proof.seeds, "settings": settings, "input": proof.changes_input, "draws": proof.stochastic}
    answer["notes"] = [name for name, holds in facts.items() if holds]


def _write_expert() -> Path:
    """Write the function that a mixture's file holds beside the family's own file, in a file of its own."""
    text = (Path.cwd() / SOURCE_FILE).read_text(encoding="utf-8")
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):  # the next step names the line
        Contract().check(Source(text))
    try:
        function = family_function(make_family(RULE, text))
    except AssemblyError as error:
        raise fail(Outcome.CONTRACT, RULE, str(error).removeprefix(f"{RULE}: ")) from None
    code = f"from functools import cache\n\n\n{function.text('family')}"
    try:
        Forbidden().check(Source(code))  # as the check of every mixture with it does
    except CheckFailed as broken:
        # The line is one of the function's, which the user does not see.
        message = broken.verdict.message.removeprefix(f"line {broken.verdict.line}: ")
        raise fail(broken.verdict.outcome, RULE, message) from None
    expert = Path.cwd() / _EXPERT_FILE
    expert.write_text(code, encoding="utf-8")
    return expert


def _import(arguments: JsonObject) -> tuple[FamilyUnderTest, tuple[str, ...] | None]:
    """Import the family; return it with the names of its hyperparameters, where only a call tells them."""
    path = Path.cwd() / SOURCE_FILE
    names: tuple[str, ...] = ()

    def load() -> type[nn.Module]:
        nonlocal names
        module = load_module(path)
        names = tuple(sorted(set(hyperparameter_names(module, path))))
        return net_class(module)

    def build(*values: Any) -> nn.Module:
        # Imported anew for each try, because a file may build its network only once (an iterator of the module, a
        # table that it empties); not on the device of the try.
        with torch.device("cpu"), torch.enable_grad():
            family = OwnSettings(load)
        return family(*values)

    OwnSettings(load)
    if len(names) > _MOST_NAMES:
        raise fail(Outcome.CONTRACT, RULE, f"supported_hyperparameters() names {len(names):,}: at most {_MOST_NAMES}")
    family = FamilyUnderTest(
        path=path,
        net=build,
        hyperparameters=complete(names, arguments["recorded"]),
        channels=Shape.parse(arguments["shape"]).channels,
        classes=arguments["classes"],
    )
    return family, None if set(names) == supported(path.read_text(encoding="utf-8")) else names


def _refuse_changes(before: ProcessState) -> None:
    """Refuse a family that replaced what all other code of the process uses.

    Raises:
        CheckFailed: The message names what.
    """
    if changes := before.changes():
        raise fail(Outcome.CONTRACT, RULE, f"it changes {listed(changes, _SHOWN)} for all other code of a mixture")


def measure_interface(family: FamilyUnderTest) -> Interface:
    """Find the smallest and the largest side, and whether the input must be square or complex.

    Raises:
        CheckFailed: If no side that is tried works; the message is that of a try with real numbers.
    """
    reasons: list[str] = []
    for is_complex in (False, True):
        # Meta first: it computes no numbers. Some families cannot be built there: these are run on real tensors.
        for device in ("meta", "cpu"):
            search = _Search(family=family, device=device, complex=is_complex)
            for side in _SIDES:
                if search.works(side, side):
                    return _interface(search, side)
                if device == "cpu":
                    reasons.append(f"at {side}x{side}: {search.reason}")
    sides = ", ".join(str(side) for side in _SIDES)
    raise fail(Outcome.SHAPE, RULE, f"works at none of {sides} px; {reasons[0]}")


def confirm(family: FamilyUnderTest, adapter: Adapter, shape: Shape) -> None:
    """Run the family with real numbers on images of ``shape``, behind its adapter: both modes, one backward pass.

    Raises:
        CheckFailed: If it fails, its logits are not finite, or no parameter receives a gradient.
    """
    torch.manual_seed(0)
    net = family.build(*adapted_sides(adapter, shape))
    images = adapted(torch.rand(BATCH, shape.channels, shape.height, shape.width), adapter)
    for mode in ("evaluation", "training"):
        set_mode(net, family.path, training=mode == "training")
        with torch.set_grad_enabled(mode == "training"):
            outputs = family.logits(net, images)
        if not bool(torch.isfinite(outputs).all()):
            raise fail(Outcome.NON_FINITE, RULE, f"logits are not finite in {mode} mode")
    family.backward(outputs)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not any(p.grad is not None and bool(p.grad.count_nonzero()) for p in trainable):
        raise fail(Outcome.NO_GRADIENT, RULE, "no parameter received a gradient")


def training_cost(family: FamilyUnderTest, adapter: Adapter, shape: Shape) -> dict[str, float]:
    """Measure what training costs: memory of the weights, and memory and time of one image more in a batch.

    The memory of an image is what autograd keeps for the backward pass, each storage once, weights left out. All of it
    is allocated at the end of a forward pass, whatever the allocator does.

    Returns:
        ``weights_mib`` of parameters and buffers; ``image_mib`` kept per image; ``image_s`` for forward and backward of
        an image, and ``step_s`` for the rest of a step.

    Raises:
        CheckFailed: If the family fails.
    """
    torch.manual_seed(0)
    net = family.build(*adapted_sides(adapter, shape))
    materialise(net, adapted(torch.zeros(BATCH, shape.channels, shape.height, shape.width), adapter), family.path)
    set_mode(net, family.path, training=True)

    def step(count: int) -> tuple[int, float]:
        return _step(family, net, adapted(torch.rand(count, shape.channels, shape.height, shape.width), adapter))

    (few_bytes, few_s), (more_bytes, more_s) = step(_FEW), step(_MORE)
    image_mib = max(0.0, more_bytes - few_bytes) / (_MORE - _FEW) / 2**20
    # Two more images through a small net take less time than the clock resolves: compare with a wider batch.
    wide = image_mib * _WIDE <= _WIDE_MIB
    image_s = max(0.0, step(_WIDE)[1] - few_s) / (_WIDE - _FEW) if wide else max(0.0, more_s - few_s) / (_MORE - _FEW)
    return {
        "weights_mib": sum(tensor.untyped_storage().nbytes() for tensor in _state(net)) / 2**20,
        "image_mib": image_mib,
        "image_s": image_s,
        "step_s": max(0.0, few_s - _FEW * image_s),
    }


def _step(family: FamilyUnderTest, net: nn.Module, images: Tensor) -> tuple[int, float]:
    """Run forward and backward; return the bytes kept in between, and the seconds of the fastest run."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in _state(net)}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Several operations save views of one storage: it is counted once, by its address.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    seconds = []
    # The fastest of some runs is the one that other work on this machine disturbed least.
    for _ in range(_RUNS):
        kept.clear()
        begin = time.perf_counter()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = family.logits(net, images)
        family.backward(outputs)
        seconds.append(time.perf_counter() - begin)
    return sum(kept.values()), min(seconds)


@dataclass(kw_only=True)
class _Search:
    """Tries sides on one device; remembers the outcomes and the reason of the last failure."""

    family: FamilyUnderTest
    device: str
    complex: bool
    reason: str = ""
    _seen: dict[tuple[int, int], bool] = field(default_factory=dict)

    def works(self, height: int, width: int) -> bool:
        # A try builds the network, which takes seconds for a large one; bisections meet the same sides again.
        if (height, width) not in self._seen:
            failure = _failure(lambda: self._try(height, width))
            self.reason = self.reason if failure is None else failure
            self._seen[height, width] = failure is None
        return self._seen[height, width]

    def confirms(self, side: int) -> bool:
        shape = Shape(self.family.channels, side, side)
        return _failure(lambda: confirm(self.family, Adapter(complex=self.complex), shape)) is None

    def border(self, *, works: int, fails: int) -> int:
        """Bisect to the last side that works, between one that works and one that fails."""
        while abs(works - fails) > 1:
            middle = (works + fails) // 2
            if self.works(middle, middle):
                works = middle
            else:
                fails = middle
        return works

    def _try(self, height: int, width: int) -> None:
        with torch.device(self.device), torch.no_grad():
            net = self.family.build(height, width, self.device)
            images = torch.zeros(BATCH, self.family.channels, height, width)
            images = images.to(torch.complex64) if self.complex else images
            # Both: an auxiliary head that runs in training mode only may need larger images.
            for training in (False, True):
                set_mode(net, self.family.path, training=training)
                self.family.logits(net, images)


def _failure(attempt: Callable[[], object]) -> str | None:
    """Return the message with which an attempt failed, or None; want of memory ends the whole measurement."""
    try:
        attempt()
    except CheckFailed as failure:
        if failure.verdict.outcome is Outcome.MEMORY:
            raise
        return failure.verdict.message
    return None


def _interface(search: _Search, side: int) -> Interface:
    """Bisect from a side that works to the smallest and the largest, confirm the smallest, then try unequal sides."""
    low = 1 if search.works(1, 1) else search.border(works=side, fails=1)
    if search.device == "meta" and not search.confirms(low):
        # Some operations accept meta tensors of sizes that they refuse with real numbers: search with real ones.
        return _interface(_Search(family=search.family, device="cpu", complex=search.complex), side)
    large = max(side + side // 8, _LARGE[search.device])
    high = None if search.works(large, large) else search.border(works=side, fails=large)
    # Two sides inside the interval that differ: if these fail both ways round, images must be square.
    first = max(low, min(side, 64))
    second = first + 32 if high is None else min(first + 32, high)
    square = not (search.works(first, second) and search.works(second, first))
    return Interface(low=low, high=high, square=square, complex=search.complex)


def _state(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]
