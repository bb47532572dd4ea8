"""Settings of torch that a family's code changes, kept from its neighbours.

The file of a mixture holds this code below the imports where one of its families needs it; the proof of a family
runs the same code.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import nn


class OwnSettings:
    """Builds a family's network whose code changes settings of torch or its input, or seeds the generators.

    The settings are in force while that code runs: they would reach every other expert. What it seeds is seeded again,
    and of the images, which all experts share, it gets a copy.
    """

    precisions: Any = (
        ("generic", "all"),
        *((kind, part) for kind in ("cuda", "mkldnn") for part in ("all", "matmul", "conv", "rnn")),
    )

    @staticmethod
    def read_precision() -> tuple[Any, ...]:
        """Read the precision of float32: the two older flags, None where newer ones contradict them, then the newer."""
        found: list[Any] = []
        for read in (torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.allow_tf32):
            try:
                found.append(read())
            except RuntimeError:
                found.append(None)
        if hasattr(torch._C, "_get_fp32_precision_getter"):  # torch 2.9 and later
            found += [torch._C._get_fp32_precision_getter(*place) for place in OwnSettings.precisions]
        return tuple(found)

    @staticmethod
    def set_precision(values: tuple[Any, ...]) -> None:
        """Set the precision of float32; the older flags first, because they change the newer ones."""
        matmul, cudnn, *newer = values
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if cudnn is not None:
            torch.backends.cudnn.allow_tf32 = cudnn
        for (kind, part), value in zip(OwnSettings.precisions, newer, strict=False):
            torch._C._set_fp32_precision_setter(kind, part, value)

    # Each with the function that reads it and the one that sets it.
    settings: Any = (
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, lambda value: torch.set_default_device(None if value.type == "cpu" else value)),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (read_precision, set_precision),
        (torch.get_num_threads, torch.set_num_threads),
        (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        (lambda: torch.backends.mkldnn.enabled, lambda value: setattr(torch.backends.mkldnn, "enabled", value)),
        (lambda: torch.backends.cudnn.enabled, lambda value: setattr(torch.backends.cudnn, "enabled", value)),
        (lambda: torch.backends.cudnn.benchmark, lambda value: setattr(torch.backends.cudnn, "benchmark", value)),
        (
            lambda: torch.backends.cudnn.deterministic,
            lambda value: setattr(torch.backends.cudnn, "deterministic", value),
        ),
        (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
        (torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp),
        (torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    )

    def __init__(self, family: Any) -> None:
        self.own: dict[int, Any] = {}
        self.outer: list[Any] = []
        self.network = self.run(family)

    def __call__(self, *arguments: Any) -> nn.Module:
        """Build the network; its settings are in force in each forward pass, too, which gets copies of the images."""
        net: nn.Module = self.run(self.network, *arguments)
        net.register_forward_pre_hook(lambda *_: self.enter())
        net.register_forward_pre_hook(lambda _, images: tuple(image.clone() for image in images))
        net.register_forward_hook(lambda *_: self.leave(), always_call=True)
        return net

    def run(self, function: Any, *arguments: Any) -> Any:
        """Call a function; the generators then go on from where they were, whatever it seeded."""
        states = torch.get_rng_state(), random.getstate(), np.random.get_state()
        self.enter()
        try:
            return function(*arguments)
        finally:
            self.leave()
            torch.set_rng_state(states[0])
            random.setstate(states[1])
            np.random.set_state(states[2])
            # New numbers for the next expert, from a seed that the family has no influence on.
            for seed in (torch.manual_seed, random.seed, np.random.seed):
                seed(int(torch.randint(2**31, (), device="cpu")))

    def enter(self) -> None:
        """Put the family's settings in force."""
        self.outer = self.read()
        for place, value in self.own.items():
            self.settings[place][1](value)

    def leave(self) -> None:
        """Keep the settings that the family has changed, and put back those around it."""
        found = self.read()
        self.own = {place: value for place, value in enumerate(found) if value != self.outer[place]}
        for place in self.own:
            self.settings[place][1](self.outer[place])

    def read(self) -> list[Any]:
        """Read all settings, in their order."""
        return [read() for read, _ in self.settings]
