"""Entry points of the worker: the rules of a check, and the epochs of a training.

The process has the train split with its labels, and of the other splits the images alone. It sends predictions; their
accuracy is computed in the process that launched it.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import build_net, load_module, logits, set_mode, set_up
from nngen.checks.card import contiguous_parts, use_channels_last
from nngen.checks.context import CheckContext
from nngen.checks.dynamic import dynamic_check
from nngen.checks.guard import guard
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed, fail
from nngen.checks.static import static_check
from nngen.datasets.batches import Batches, Preparation
from nngen.datasets.dataset import WORKER_FILES, subset
from nngen.datasets.stored_images import StoredImages
from nngen.isolation import Channel, JsonObject
from nngen.isolation.job import SOURCE_FILE
from nngen.isolation.limits import MIB
from nngen.seeds import derive
from nngen.text import one_line
from nngen.training.engine import RESTORE
from nngen.training.frames import IMPORTED, NONCE, FrameKind, last_line
from nngen.training.orders import EVAL_FACTOR, CheckOrder, TrainOrder
from nngen.training.state.artifacts import send_artifacts, send_tensors
from nngen.training.state.checkpoints import CHECKPOINT, LOGITS
from nngen.training.state.net_state import (
    StateMismatchError,
    UnknownStateError,
    capture,
    load_weights,
    place_experts,
    restore,
    take_over,
)
from nngen.training.state.tensor_file import TensorFile
from nngen.types import Outcome

_MAX_EXPERTS = 64
_EXAMPLES = 4
_TRIED = 2
_RULE = "worker.train"
_SHARE, _SHORT_S = 0.5, 1.0
"""Share of the time that checkpoints may take, and seconds that each may take anyway; else some are left out."""

_MOST_LOGITS = 2**25  # number of validation logits up to which they are kept in a file

_HALF_MAX = 65_504.0


def check(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Check the source in the current folder by the ``CheckOrder`` in ``arguments``, and send the verdict.

    Args:
        arguments: The order, as JSON.
        channel: Channel for the frames that ``CheckScorer`` expects.
        files: A pipe; the question comes through it once the candidate is imported.
    """
    order = CheckOrder.from_json(arguments)
    _configure(order.device, order.threads, seed=0)
    path = Path.cwd() / SOURCE_FILE
    with _failures_sent(channel, path):
        verdict = static_check(path.read_text(encoding="utf-8"))
        if verdict.valid:
            with _precision(order.device):
                verdict = dynamic_check(
                    path,
                    shape=order.shape,
                    classes=order.classes,
                    hyperparameters=order.hyperparameters,
                    device=order.device,
                    imported=lambda: channel.send({"event": IMPORTED}),
                    ask=lambda: os.read(files[0], NONCE),
                    answer=lambda context: _answer(context, channel),
                )
        if not verdict.valid:
            raise CheckFailed(verdict)


def _answer(context: CheckContext, channel: Channel) -> None:
    """Send what the rules found on batches drawn by the question; it says that the candidate is valid."""
    assert context.drawn is not None
    outputs = context.drawn.float().cpu().numpy().astype("<f4").tobytes()
    channel.send_bytes(FrameKind.PROOF, b"".join([context.question, *context.digests, outputs]))


def train(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Train the source in the current folder by the ``TrainOrder`` in ``arguments``.

    Args:
        arguments: The order, as JSON.
        channel: Channel for the frames that ``TrialScorer`` expects: after each epoch a report and predictions.
        files: Descriptors of ``WORKER_FILES``; then those of weights to start from, of each expert's weights, and of
            a checkpoint to go on from, where there are such.
    """
    order = TrainOrder.from_json(arguments)
    _configure(order.device, order.threads, order.seed)
    with _failures_sent(channel, Path.cwd() / SOURCE_FILE):
        _Training(Path.cwd() / SOURCE_FILE, order, channel).run(files)


def predict(arguments: JsonObject, channel: Channel, files: list[int]) -> None:
    """Predict images with the source in the current folder, by the ``TrainOrder`` in ``arguments``.

    Args:
        arguments: The order that the net was trained by, as JSON, with the files that are asked for now.
        channel: Channel for these files and then one frame of logits, or the verdict on what failed.
        files: Descriptors of the images and of the weights.
    """
    order = TrainOrder.from_json(arguments)
    _configure(order.device, order.threads, order.seed)
    path = Path.cwd() / SOURCE_FILE
    images, weights = files
    with _failures_sent(channel, path), os.fdopen(weights, "rb") as file:
        training = _Training(path, order, channel)
        net = training.build(torch.device(order.device))
        with guard(_RULE, Outcome.CRASHED, path, "the weights were loaded"):
            load_weights(net, TensorFile(file), order.shape)
        outputs: list[Tensor] = []
        (shown,) = training.fitting([StoredImages(images, torch.device(order.device))])
        prepare = training.preparation()
        with _own_draws(derive(order.seed, "evaluation")):
            training.predict(net, shown, prepare, outputs)
        if order.artifacts:
            example = prepare(next(_in_order(shown, _EXAMPLES)))
            send_artifacts(net, order.artifacts, example, order.metadata, channel)
        channel.send_bytes(FrameKind.OUTPUTS, torch.cat(outputs).numpy().astype("<f4").tobytes())


def describe_cards(_arguments: JsonObject, channel: Channel, _files: list[int]) -> None:
    """Send name and memory in MiB of each graphics card."""
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        channel.send({"name": properties.name, "mib": properties.total_memory / 2**20})


def _configure(device: str, threads: int, seed: int) -> None:
    """Set threads, seeds and the arithmetic of this process."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    _seed(seed)
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        # On a card speed comes before the last digit: TF32, and the fastest algorithm of each convolution.
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True


def _seed(seed: int) -> None:
    """Seed every generator that a candidate's code draws from."""
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy"))
    torch.manual_seed(derive(seed, "torch"))


@contextmanager
def _own_draws(seed: int) -> Iterator[None]:
    """Draw from other generators in the block: the same numbers in each evaluation, and none of those of training."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        _seed(seed)
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])


@contextmanager
def _failures_sent(channel: Channel, path: Path) -> Iterator[None]:
    """Send the verdict of a check that fails in the block."""
    # Read first: the candidate may remove its file.
    last = last_line(path.read_text(encoding="utf-8", errors="replace"))
    try:
        yield
    except CheckFailed as failure:
        # A traceback may name any line, where the candidate renamed its code.
        line = failure.verdict.line
        line = line if line is not None and 1 <= line <= last else None
        channel.send({"event": "verdict", **asdict(replace(failure.verdict, line=line))})


def _on_card(device: str) -> bool:
    """Whether nets run in bfloat16 and channels_last; a rehearsal on the CPU replaces this function."""
    return device != "cpu"


def _precision(device: str) -> AbstractContextManager[Any]:
    """Return the context in which nets are called: bfloat16 autocast on a card, nothing on the CPU."""
    # Without its cache: it keeps the weights as they were first cast until it ends, here with the epoch, so that every
    # step but the first would be computed with the weights of the epoch's beginning.
    return torch.autocast(device, torch.bfloat16, cache_enabled=False) if _on_card(device) else nullcontext()


@dataclass(slots=True)
class _Training:
    """One training, from the import to the test predictions."""

    path: Path
    order: TrainOrder
    channel: Channel
    checkpoints: bool = False
    stored_at: float = 0.0
    storing_s: float = 0.0

    def run(self, files: list[int]) -> None:
        order = self.order
        device = torch.device(order.device)
        labels, images = self._data(files, device)
        prepare = self.preparation()
        more = files[len(WORKER_FILES) :]
        start = more.pop(0) if order.start else None
        net = self.build(
            device, start=start, experts=more[: order.experts], checkpoint=more[-1] if order.done else None
        )
        if vars(net).get("frozen") is True and not (order.start or order.experts):
            raise fail(
                Outcome.CONTRACT,
                _RULE,
                "its experts are frozen and have no trained weights: nngen surrogate gates --train hands them over, and"
                " nngen train --from goes on from the weights of a mixture",
            )
        self.checkpoints, self.stored_at = CHECKPOINT in order.artifacts, time.monotonic()
        # Until here memory is filled, so that a net that forgets to initialise a weight gives the same result in every
        # run; filling each intermediate result of a training would only cost time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        for epoch in range(order.done + 1, order.epochs + 1):
            batches = Batches(
                images["train-images"],
                labels,
                prepare,
                batch=order.batch,
                seed=derive(order.seed, "order", epoch),
                augment=order.augment,
                weights=order.class_weights,
                on_batch=lambda step: _refuse_non_finite(net, step),
            )
            returned = self._learn(net, batches)
            self.channel.send({"event": "epoch", "samples": batches.samples, **_reported(returned), **_history(net)})
            last = epoch == order.epochs
            wanted = last and (order.logits or LOGITS in order.artifacts)
            outputs: list[Tensor] | None = [] if wanted else None
            with _own_draws(derive(order.seed, "evaluation")):
                classes = self.predict(net, images["validation-images"], prepare, outputs)
            self.channel.send_bytes(FrameKind.VALIDATION, classes)
            if outputs and order.logits:
                self.channel.send_bytes(FrameKind.LOGITS, _half(outputs).numpy().astype("<f2").tobytes())
            if outputs and LOGITS in order.artifacts and sum(map(Tensor.numel, outputs)) <= _MOST_LOGITS:
                send_tensors(self.channel, LOGITS, {"validation": _half(outputs)})
            if not last or order.goes_on:
                self._send_checkpoint(net, needed=last)
        with _own_draws(derive(order.seed, "evaluation")):
            classes = self.predict(net, images["test-images"], prepare)
        if order.artifacts:
            example = prepare(next(_in_order(images["test-images"], _EXAMPLES)))
            send_artifacts(net, order.artifacts, example, order.metadata, self.channel)
        self.channel.send_bytes(FrameKind.TEST, classes)

    def _data(self, files: list[int], device: torch.device) -> tuple[Tensor, dict[str, Tensor | StoredImages]]:
        """Open ``WORKER_FILES``; return the labels of the train split, and the images by part."""
        numbers = dict(zip(WORKER_FILES, files, strict=False))
        with os.fdopen(numbers.pop("train-labels"), "rb") as file:
            labels, chosen = torch.from_numpy(np.load(file)), None
        if self.order.train_size is not None:
            chosen = torch.from_numpy(subset(labels.numpy(), self.order.train_size))
            labels = labels[chosen]
        stored = [
            StoredImages(number, device, chosen if part == "train-images" else None) for part, number in numbers.items()
        ]
        return labels.to(device), dict(zip(numbers, self.fitting(stored), strict=True))

    def fitting(self, stored: list[StoredImages]) -> list[Tensor] | list[StoredImages]:
        """Return images whole on the device where they fit there together, else as they are, in their files."""
        if sum(images.nbytes for images in stored) > self.order.whole_mib * MIB:
            return stored
        return [images.whole() for images in stored]

    def preparation(self) -> Preparation:
        """Return the conversion of stored images to the net's input."""
        order = self.order
        return Preparation(shape=order.shape, mean=order.mean, std=order.std, channels_last=_on_card(order.device))

    def build(
        self, device: torch.device, start: int | None = None, experts: Sequence[int] = (), checkpoint: int | None = None
    ) -> nn.Module:
        """Build the net and set it up, perhaps with the weights of other trainings, or restored from a checkpoint."""
        order = self.order
        prm = make_prm(order.hyperparameters, shape=order.shape, augment=order.augment)
        module = load_module(self.path)

        def build() -> nn.Module:
            return build_net(module, self.path, shape=order.shape, classes=order.classes, prm=dict(prm), device=device)

        contiguous: tuple[str, ...] = ()
        if _on_card(order.device):
            contiguous = self._contiguous_parts(build)
            module = load_module(self.path)  # anew: a file may build its network only once
        _seed(order.seed)  # what the file seeds or draws when it is imported would be the same in every replicate
        with _precision(order.device):
            net = build()
            if _on_card(order.device):
                use_channels_last(net, contiguous)
            started = ""
            if start is not None:
                with os.fdopen(start, "rb") as file:
                    try:
                        started = take_over(net, TensorFile(file))
                    except (ValueError, RuntimeError) as error:
                        raise fail(Outcome.CRASHED, _RULE, f"the weights to start from: {error}") from None
            if experts:
                with ExitStack() as stack:
                    opened = [stack.enter_context(os.fdopen(number, "rb")) for number in experts]
                    try:
                        place_experts(net, [TensorFile(file) for file in opened], order.shape)
                    except (ValueError, RuntimeError) as error:
                        message = f"the weights of the experts do not fit: {one_line(str(error))}"
                        raise fail(Outcome.CRASHED, _RULE, message) from None
                started = f"{len(experts)} experts trained alone"
            set_up(net, self.path, dict(prm))
        if torch.initial_seed() != derive(order.seed, "torch"):
            _seed(derive(order.seed, "training"))  # the file seeded torch when the net was built
        if checkpoint is not None:
            with os.fdopen(checkpoint, "rb") as file:
                try:
                    stored = TensorFile(file)
                    restore(net, stored, json.loads(stored.metadata["state"]))
                except (ValueError, LookupError, RecursionError, StateMismatchError) as error:
                    raise fail(Outcome.CRASHED, RESTORE, f"its state cannot be restored: {error}") from None
        if order.compiled:
            _compile(net)
        parameters = sum(parameter.numel() for parameter in net.parameters())
        self.channel.send({"event": "ready", "parameters": parameters, "started": started})
        return net

    def _contiguous_parts(self, build: Callable[[], nn.Module]) -> tuple[str, ...]:
        """Find the parts that do not run in channels_last, on a net that is built for this alone."""
        shape = self.order.shape
        # The search for the fastest algorithms would take longer than the rest, for images that never come again.
        with torch.backends.cudnn.flags(benchmark=False):
            net = build()
            images = torch.rand(_TRIED, shape.channels, shape.height, shape.width, device=self.order.device)
            return contiguous_parts(net, images, self.path, self.order.classes)

    def _learn(self, net: nn.Module, batches: Batches) -> object:
        set_mode(net, self.path, training=True)
        with guard(_RULE, Outcome.CRASHED, self.path, "learn(train_data) ran"), _precision(self.order.device):
            return net.learn(batches)  # type: ignore[operator]

    def _send_checkpoint(self, net: nn.Module, *, needed: bool) -> None:
        """Send the state after an epoch, unless it is not needed and was sent a short time ago."""
        now = time.monotonic()
        often = self.storing_s > max(_SHARE * (now - self.stored_at), _SHORT_S)
        if not self.checkpoints or (often and not needed):
            return
        try:
            tensors, state = capture(net)
        except UnknownStateError as error:
            self.channel.send({"event": "no-file", "name": CHECKPOINT, "reason": str(error)})
            self.checkpoints = False
            return
        send_tensors(self.channel, CHECKPOINT, tensors, state=json.dumps(state))
        self.stored_at = time.monotonic()
        self.storing_s = self.stored_at - now

    @torch.no_grad()
    def predict(
        self,
        net: nn.Module,
        images: Tensor | StoredImages,
        prepare: Preparation,
        outputs_kept: list[Tensor] | None = None,
    ) -> bytes:
        """Return the class of each image as little-endian uint16; the logits are added to a list."""
        set_mode(net, self.path, training=False)
        # Without a backward pass more images fit than in training.
        size = self.order.batch * EVAL_FACTOR
        classes: list[npt.NDArray[Any]] = []
        for part in _in_order(images, size):
            with _precision(self.order.device):
                outputs = logits(net, prepare(part), self.path, classes=self.order.classes)
            with guard(_RULE, Outcome.CRASHED, self.path, "predictions were made"):
                finite = bool(torch.isfinite(outputs).all())
                classes.append(outputs.argmax(1).cpu().numpy().astype("<u2"))
            if outputs_kept is not None:
                outputs_kept.append(outputs.float().cpu())
            if not finite:
                raise fail(Outcome.NON_FINITE, _RULE, "predictions are not finite: lower --lr, or clip the gradient")
        return np.concatenate(classes).tobytes()


def _half(outputs: list[Tensor]) -> Tensor:
    """Join logits as float16."""
    return torch.cat(outputs).clamp(-_HALF_MAX, _HALF_MAX).half()


@torch.no_grad()
def _refuse_non_finite(net: nn.Module, step: int) -> None:
    """End a training whose loss was not finite: after the step its weights are not finite either.

    Raises:
        CheckFailed: If a weight is not a finite number.
    """
    weights = [weight.detach() for weight in net.parameters() if weight.is_floating_point() or weight.is_complex()]
    if weights and not bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(weights)])).all()):
        message = f"weights are not finite after step {step} of an epoch: lower --lr, or clip the gradient"
        raise fail(Outcome.NON_FINITE, _RULE, message)


def _compile(net: nn.Module) -> None:
    """Compile each expert of a mixture, which calls them itself, or a net that is not a mixture."""
    import torch._inductor.config

    # Precompiled headers are larger than the limit on the size of files (``RLIMIT_FSIZE``).
    torch._inductor.config.cpp_cache_precompile_headers = False
    experts = getattr(net, "experts", None)
    for part in experts if isinstance(experts, nn.ModuleList) else [net]:
        part.compile()


def _in_order(images: Tensor | StoredImages, size: int) -> Iterator[Tensor]:
    """Yield images on the device, at most ``size`` at a time."""
    if isinstance(images, Tensor):
        yield from torch.split(images, size)
    else:
        yield from images.batches(torch.split(torch.arange(len(images)), size))


def _reported(returned: object) -> dict[str, float | None]:
    """Read ``(train_accuracy, train_loss)`` where ``learn`` returned it, which LEMUR's older files do not."""
    pair = returned if isinstance(returned, tuple) and len(returned) == 2 else (None, None)
    return {"train_accuracy": _number(pair[0]), "train_loss": _number(pair[1])}


def _history(net: nn.Module) -> dict[str, Any]:
    """Read the gate's diagnostics of the last epoch where a mixture keeps them."""
    try:
        last: Any = net.history[-1]  # type: ignore[index]
        usage = [_number(share) for share in last["usage"]][:_MAX_EXPERTS]
        return {"usage": usage, "entropy": _number(last["entropy"])}
    except Exception:  # the attribute is the candidate's own and may be anything
        return {}


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except Exception:  # the candidate's own value, whose conversion may do anything
        return None
    return number if math.isfinite(number) else None
