"""What runs in the forked process: the rules of a check, or the epochs of a trial.

It holds the train split with its labels, and of the other splits the images alone. What it sends back
is predictions; the judge makes the accuracy of them.
"""

from __future__ import annotations

import faulthandler
import math
import os
import random
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nngen.checks.candidate_net import build_net, load_module, logits, set_up
from nngen.checks.dynamic import dynamic_check
from nngen.checks.guard import guard
from nngen.checks.prm import make_prm
from nngen.checks.rule import CheckFailed, fail
from nngen.checks.static import static_check
from nngen.datasets.batches import Batches, Preparation
from nngen.datasets.dataset import WORKER_FILES
from nngen.isolation.level import Isolation
from nngen.isolation.limits import set_limits
from nngen.isolation.protocol import Channel, Kind
from nngen.seeds import derive
from nngen.types import Outcome, Shape, Verdict

__all__ = ["run"]

_MAX_EXPERTS = 64
_EVAL_FACTOR = 4
_EXAMPLES = 4
_RULE = "worker.train"


def run(job: Mapping[str, Any], result: int, files: list[int]) -> int:
    """Do one job and return the exit code.

    Args:
        job: What the judge asked for; see ``LocalEngine``.
        result: Descriptor of the pipe to the judge.
        files: Descriptors of ``WORKER_FILES``; none for a check.
    """
    channel = Channel(result)
    folder = Path(job["folder"])
    _settle(folder, job)
    try:
        if job["kind"] == "device":
            mib = torch.cuda.get_device_properties(0).total_memory / 2**20
            channel.send({"event": "device", "name": torch.cuda.get_device_name(), "mib": mib})
        elif job["kind"] == "check":
            _send_verdict(channel, _check(folder / job["file"], job))
        else:
            _Training(folder / job["file"], job, channel, files).run()
    except CheckFailed as refused:
        _send_verdict(channel, refused.verdict)
    return 0


def _settle(folder: Path, job: Mapping[str, Any]) -> None:
    """Make this process the candidate's own: folder, environment, limits, seeds, threads."""
    os.chdir(folder)
    for name in ("HOME", "TMPDIR", "TORCH_HOME", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        os.environ[name] = str(folder)
    tempfile.tempdir = str(folder)
    cuda = job["device"] != "cpu"
    if not cuda:
        # Some families take a card whenever they see one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    faulthandler.enable()
    torch.set_num_threads(job["threads"])
    torch.set_num_interop_threads(1)
    _seed(job["seed"])
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
    if job["isolation"] != Isolation.NONE:
        set_limits(job["memory_mib"], virtual=not cuda, cpu_s=job["cpu_s"], processes=job.get("processes"))


def _seed(seed: int) -> None:
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy"))
    torch.manual_seed(derive(seed, "torch"))


def _check(path: Path, job: Mapping[str, Any]) -> Verdict:
    verdict = static_check(path.read_text(encoding="utf-8"))
    if not verdict.valid:
        return verdict
    with _precision(job["device"]):
        return dynamic_check(
            path,
            shape=Shape.parse(job["shape"]),
            classes=job["classes"],
            hyperparameters=job["hyperparameters"],
            device=job["device"],
        )


def _precision(device: str) -> AbstractContextManager[Any]:
    """On CUDA, the ambient bfloat16 in which nets are called; on the CPU, none."""
    return nullcontext() if device == "cpu" else _bfloat16("cuda")


def _bfloat16(kind: str) -> AbstractContextManager[Any]:
    # Without its cache: it keeps the weights as they were first cast until it ends, here with the epoch, so that every
    # step but the first would be computed with the weights of the epoch's beginning.
    return torch.autocast(kind, torch.bfloat16, cache_enabled=False)


def _send_verdict(channel: Channel, verdict: Verdict) -> None:
    channel.send(
        {
            "event": "verdict",
            "outcome": verdict.outcome.value,
            "rule": verdict.rule,
            "message": verdict.message,
            "line": verdict.line,
        }
    )


@dataclass(slots=True)
class _Training:
    """One trial, from the import to the test predictions."""

    path: Path
    job: Mapping[str, Any]
    channel: Channel
    files: list[int]

    def run(self) -> None:
        job = self.job
        device = torch.device(job["device"])
        shape = Shape.parse(job["shape"])
        data = dict(zip(WORKER_FILES, (_mapped(number).to(device) for number in self.files), strict=True))
        prepare = Preparation(
            shape=shape, mean=tuple(job["mean"]), std=tuple(job["std"]), channels_last=device.type == "cuda"
        )
        net = self._build(shape, device)
        # What a net forgot to initialise is filled alike in every run, and so found; each intermediate result of
        # a training need not be.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        for epoch in range(1, job["epochs"] + 1):
            batches = Batches(
                data["train-images"],
                data["train-labels"],
                prepare,
                batch=job["batch"],
                seed=derive(job["seed"], "order", epoch),
                flip=job["flip"],
                on_batch=lambda step: _refuse_non_finite(net, step),
            )
            returned = self._learn(net, batches)
            self.channel.send({"event": "epoch", **_reported(returned), **_history(net)})
            classes = self._predict(net, data["validation-images"], prepare)
            self.channel.send_bytes(Kind.VALIDATION, classes)
        classes = self._predict(net, data["test-images"], prepare)
        if job.get("keep"):
            from nngen.training.handover import hand_over

            hand_over(net, job["keep"], prepare(data["test-images"][:_EXAMPLES]), self.channel)
        self.channel.send_bytes(Kind.TEST, classes)

    def _build(self, shape: Shape, device: torch.device) -> nn.Module:
        prm = make_prm(self.job["hyperparameters"], shape=shape, flip=self.job["flip"])
        module = load_module(self.path)
        with _precision(self.job["device"]):
            net = build_net(module, self.path, shape=shape, classes=self.job["classes"], prm=dict(prm), device=device)
            if device.type == "cuda":
                net.to(memory_format=torch.channels_last)
            set_up(net, self.path, dict(prm))
        if self.job["compiled"]:
            _compile(net)
        parameters = sum(parameter.numel() for parameter in net.parameters())
        self.channel.send({"event": "ready", "parameters": parameters})
        return net

    def _learn(self, net: nn.Module, batches: Batches) -> object:
        net.train()
        with guard(_RULE, Outcome.CRASHED, self.path, "learn(train_data) ran"), _precision(self.job["device"]):
            return net.learn(batches)  # type: ignore[operator]

    @torch.no_grad()
    def _predict(self, net: nn.Module, images: Tensor, prepare: Preparation) -> bytes:
        """Return the class of each image as little-endian uint16."""
        net.eval()
        # Nothing is kept for a backward pass, so more images fit than in training.
        size = self.job["batch"] * _EVAL_FACTOR
        classes: list[npt.NDArray[Any]] = []
        for part in torch.split(images, size):
            with _precision(self.job["device"]):
                outputs = logits(net, prepare(part), self.path, classes=self.job["classes"])
            with guard(_RULE, Outcome.CRASHED, self.path, "predictions were made"):
                finite = bool(torch.isfinite(outputs).all())
                classes.append(outputs.argmax(1).cpu().numpy().astype("<u2"))
            if not finite:
                raise fail(Outcome.NON_FINITE, _RULE, "predictions are not finite: lower --lr, or clip the gradient")
        return np.concatenate(classes).tobytes()


@torch.no_grad()
def _refuse_non_finite(net: nn.Module, step: int) -> None:
    """End a training whose loss was not finite: the weights are not either, after the step.

    Raises:
        CheckFailed: If a weight is not a finite number.
    """
    weights = [weight.detach() for weight in net.parameters() if weight.is_floating_point() or weight.is_complex()]
    if weights and not bool(torch.isfinite(torch.stack([norm.float() for norm in torch._foreach_norm(weights)])).all()):
        message = f"weights are not finite after step {step} of an epoch: lower --lr, or clip the gradient"
        raise fail(Outcome.NON_FINITE, _RULE, message)


def _compile(net: nn.Module) -> None:
    """Have torch compile what is called: the experts of a mixture, which calls them itself, or the net."""
    import torch._inductor.config

    # Headers compiled ahead are larger than a file of ours may be.
    torch._inductor.config.cpp_cache_precompile_headers = False
    experts = getattr(net, "experts", None)
    for part in experts if isinstance(experts, nn.ModuleList) else [net]:
        part.compile()


def _mapped(descriptor: int) -> Tensor:
    """Map a ``.npy`` file copy-on-write: shared with all other workers, and safe from this one."""
    file: BinaryIO = os.fdopen(descriptor, "rb")
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return torch.from_numpy(np.memmap(file, dtype, "c", offset=file.tell(), shape=shape))


def _reported(returned: object) -> dict[str, float | None]:
    """Read ``(train_accuracy, train_loss)`` where ``learn`` returned it; LEMUR's older files do not."""
    pair = returned if isinstance(returned, tuple) and len(returned) == 2 else (None, None)
    return {"train_accuracy": _number(pair[0]), "train_loss": _number(pair[1])}


def _history(net: nn.Module) -> dict[str, Any]:
    """Read the gate's diagnostics of the last epoch where a mixture keeps them."""
    try:
        last: Any = net.history[-1]  # type: ignore[index]
        usage = [_number(share) for share in last["usage"]][:_MAX_EXPERTS]
        return {"usage": usage, "entropy": _number(last["entropy"])}
    except Exception:  # the attribute is the candidate's own: it may be anything, and nothing depends on it
        return {}


def _number(value: object) -> float | None:
    try:
        number = float(value)  # type: ignore[arg-type]
    except Exception:  # likewise the candidate's own value
        return None
    return number if math.isfinite(number) else None
