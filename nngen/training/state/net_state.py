"""State of a net between two epochs as tensors and JSON, from which training goes on to the same last digit.

A net is restored by building it from its source, with the same seed and settings, and by giving everything that can be
reached from it the value that it had (``net_values``), and the generators of random numbers theirs. Nothing is
pickled. Values that are kept elsewhere (in variables of a module, in closures) are not found, so this is for files
whose code is known: those that nngen assembles.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nngen.text import listed
from nngen.training.state.net_values import Json, StateMismatchError, ValueReader, ValueWriter
from nngen.types import Shape


def capture(net: nn.Module) -> tuple[dict[str, Tensor], Json]:
    """Return the state of a net and of the generators of random numbers.

    The tensors are the net's own: they are to be written before it trains on.

    Raises:
        UnknownStateError: If the net holds something else than tensors, numbers, texts, containers, modules,
            optimizers and objects made of such; the message names it.
    """
    writer = ValueWriter()
    return writer.tensors, writer.write({"net": net, **_generators()}, "")


def restore(net: nn.Module, tensors: Mapping[str, Tensor], state: Json) -> None:
    """Give a net that was built anew, and the generators of random numbers, the state that ``capture`` returned.

    Raises:
        StateMismatchError: If it is the state of another net; the net is not usable then.
    """
    try:
        found = ValueReader(tensors).read(state, {"net": net})
        random.setstate(found["python"])
        np.random.set_state(found["numpy"])
        torch.set_rng_state(found["torch"])
        if "cuda" in found:
            torch.cuda.set_rng_state(found["cuda"])
    except StateMismatchError:
        raise
    except Exception as error:  # a damaged state leads to errors of any kind, also of torch and the candidate
        raise StateMismatchError(f"{type(error).__name__}: {error}") from error


def load_weights(net: nn.Module, weights: Mapping[str, Tensor], shape: Shape) -> None:
    """Give a net that was built and set up for a shape its trained weights (dense ones), in eval mode.

    Raises:
        RuntimeError: If they are of another net, as ``load_state_dict`` says.
    """
    # Before the weights: a mixture that averages them exchanges them for the average when its mode changes.
    net.eval()
    if weights.keys() - net.state_dict().keys():  # some layers are made in the first forward pass
        images = torch.zeros(2, shape.channels, shape.height, shape.width, device=next(net.parameters()).device)
        with torch.no_grad():
            net(images)
    found: dict[str, Any] = dict(weights)
    for name, own in net.state_dict().items():
        if not isinstance(own, Tensor):
            found[name] = own  # an extra state, which is not kept with the weights
        elif own.layout is torch.sparse_coo and name in found:
            found[name] = found[name].to_sparse()
    _load(net, found)


def place_experts(net: nn.Module, alone: Sequence[Mapping[str, Tensor]], shape: Shape) -> None:
    """Give the experts of a mixture, in order, the weights of their families' own nets (plans of kind ``single``).

    Raises:
        RuntimeError: If they are of other families, as ``load_state_dict`` says.
    """
    found = {name: value for name, value in net.state_dict().items() if not name.startswith("experts.")}
    for place, weights in enumerate(alone):
        found |= {f"experts.{place}.{name.removeprefix('expert.')}": weights[name] for name in weights}
    load_weights(net, found, shape)


def take_over(net: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Give a net that was built the trained weights that fit it by name, shape and type; return in words which do.

    Raises:
        ValueError: If none does.
    """
    own = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    fitting = {}
    for name in own.keys() & weights.keys():
        value = weights[name]
        if value.shape == own[name].shape and value.dtype == own[name].dtype:
            fitting[name] = value
    if not fitting:
        raise ValueError("none of them fits the net")
    _load(net, fitting, strict=False)
    new = sorted(own.keys() - fitting.keys())
    made = f"; made anew: {listed(new, 4)}" if new else ""
    return f"{len(fitting)} of {len(own)} tensors kept{made}"


def _load(net: nn.Module, weights: Mapping[str, Any], *, strict: bool = True) -> None:
    """Load weights as a state of the version that each module has now.

    Files of tensors do not keep the versions, and modules such as torchvision's MNASNet refuse a state without one.
    """
    state = OrderedDict(weights)
    state._metadata = getattr(net.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    net.load_state_dict(state, strict=strict)


def _generators() -> dict[str, object]:
    found: dict[str, object] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found["cuda"] = torch.cuda.get_rng_state()
    return found
