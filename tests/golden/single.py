"""TinyAux alone, trained with the recipe of mixtures.

Written by nngen from one model family of LEMUR (nn-dataset), whose source stands unchanged inside a function.
It has no gate.

Plan:

    experts = ["TinyAux"]
    kind = "single"

    [losses]
    label_smoothing = 0.1

    [recipe]
    weight_decay = 0.01
    mixup = 0.2
    warmup = 0.1
    clip = 1.0
"""

from functools import cache
import math
from typing import NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional as F


# --------------------------------------------------------------------------------------------------
# Expert 1: TinyAux
# --------------------------------------------------------------------------------------------------


# The family's source, whose SHA-256 is d1cc42bf2432612278b9a755a5580dcda2db3d278fb06045f4526b678a7fac55,
# less what nothing needs and what only a module may hold; its names are its own.
@cache
def tinyaux():
    from collections import namedtuple
    from dataclasses import dataclass
    from typing import List, Optional

    import torch
    import torch.fx
    import torch.utils.checkpoint as cp
    from torch import nn, Tensor

    AuxOutputs = namedtuple("AuxOutputs", ["logits", "aux"])
    AuxOutputs.__annotations__ = {"logits": Tensor, "aux": Optional[Tensor]}

    _AuxOutputs = AuxOutputs


    @dataclass
    class _BlockConfig:
        width: int = 4

        def build(self, channels: int) -> "Block":
            return Block(channels, self)


    def shuffle(x: Tensor, groups: int) -> Tensor:
        b, c, h, w = x.size()
        return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


    class Block(nn.Module):
        def __init__(self, channels: int, config: _BlockConfig) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, config.width, kernel_size=3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(config.width)

        @torch.jit.unused
        def checkpointed(self, x: Tensor) -> Tensor:
            return cp.checkpoint(self.conv, x, use_reentrant=False)

        def forward(self, x):
            return shuffle(torch.relu(self.norm(self.conv(x))), groups=2)


    class Net(nn.Module):
        def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
            super().__init__()
            self.device = device
            config = _BlockConfig()
            self.block = config.build(in_shape[1])
            self.aux = nn.Linear(config.width, out_shape[0])
            self.drop = nn.Dropout(prm['dropout_aux'])
            self.head = nn.Linear(config.width, out_shape[0])

        def forward(self, x: Tensor):
            x = self.block(x).mean(dim=(2, 3))
            if self.training:
                return _AuxOutputs(self.head(x), self.aux(self.drop(x)))
            return self.head(x)

    return Net


# --------------------------------------------------------------------------------------------------
# The network
# --------------------------------------------------------------------------------------------------


class ExpertSpec(NamedTuple):
    """The family: its network, LEMUR's best hyperparameters for it, and the sizes of image it takes."""

    network: type
    prm: dict
    low: int = 1
    high: Optional[int] = None
    square: bool = False
    complex_input: bool = False


EXPERTS = (
    ExpertSpec(
        network=tinyaux(),
        prm={"dropout_aux": 0.25, "lr": 0.05, "momentum": 0.5},
        low=16,
    ),
)


def build_expert(spec: ExpertSpec, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> nn.Module:
    """Build a family's network for ``in_shape``, ``(B, C, H, W)``, with a copy of its own hyperparameters.

    ``batch``, ``epoch`` and ``transform`` are the trial's: LEMUR passes them to every network.
    """
    trial = {name: prm[name] for name in ("batch", "epoch", "transform") if name in prm}
    expert = spec.network(in_shape, out_shape, {**trial, **spec.prm}, device)
    for module in expert.modules():
        # Some layers pick the first CUDA device where there is one; all belong on the mixture's device.
        if isinstance(vars(module).get("device"), torch.device):
            module.device = device
    return expert


class Adapter(nn.Module):
    """Bring images to the nearest size that an expert takes, by bilinear resize, and to complex numbers if need be.

    Attributes:
        size: Height and width of the images that the expert sees.
    """

    def __init__(self, spec: ExpertSpec, height: int, width: int) -> None:
        super().__init__()
        high = spec.high or max(height, width, spec.low)
        size = tuple(max(spec.low, min(side, high)) for side in (height, width))
        self.size = (max(size), max(size)) if spec.square else size
        self.resizes = self.size != (height, width)
        self.complex_input = spec.complex_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, C, H, W)`` into ``(B, C, *size)``."""
        if self.resizes:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return x.to(torch.complex64) if self.complex_input else x


def class_logits(output) -> torch.Tensor:
    """Return the class logits, ``(B, classes)``, of an expert's output: auxiliary heads follow them in a tuple."""
    logits = output[0] if isinstance(output, tuple) else output
    return (logits.abs() if logits.is_complex() else logits).float()


def expert_logits(expert: nn.Module, adapter: Adapter, x: torch.Tensor) -> torch.Tensor:
    """Run an expert on images, ``(B, C, H, W)``; return its logits, ``(B, classes)``."""
    if not adapter.complex_input:
        return class_logits(expert(adapter(x)))
    with torch.autocast(x.device.type, enabled=False):  # there are no complex numbers of half precision
        return class_logits(expert(adapter(x)))


CLIP = 1.0  # largest norm of the gradient
WARMUP = 0.1  # share of the budget over which the rates rise
FLOOR = 0.01  # share of the peak rates that is left at the end


def mixup(inputs: torch.Tensor, labels: torch.Tensor) -> tuple:
    """Mix each image with another of its batch (Zhang et al. 2018).

    Returns:
        Mixed images, ``(B, C, H, W)``; the partners' labels, ``(B,)``; the share of the first labels.
    """
    share = torch.distributions.Beta(0.2, 0.2).sample().item()
    partners = torch.randperm(len(inputs), device=inputs.device)
    return share * inputs + (1 - share) * inputs[partners], labels[partners], share


def build_optimizer(network: nn.Module, prm: dict) -> torch.optim.Optimizer:
    """AdamW; ``momentum`` is its first beta."""
    rate = float(prm["lr"])
    momentum = min(max(float(prm["momentum"]), 0.0), 0.999)
    groups = [{"params": list(network.parameters()), "lr": rate, "peak": rate}]
    return torch.optim.AdamW(groups, betas=(momentum, 0.999), weight_decay=0.01)


def set_rates(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Set the learning rates for a share ``done`` of the whole budget: a linear rise, then a cosine."""
    if done < WARMUP:
        factor = done / WARMUP
    else:
        factor = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min((done - WARMUP) / (1 - WARMUP), 1.0))) / 2
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def count_steps(train_data):
    """Return the number of batches of an epoch; None for a stream of unknown length."""
    try:
        return len(train_data) or None
    except TypeError:
        return None


def soft_targets(labels: torch.Tensor, others: torch.Tensor, share: float, classes: int) -> torch.Tensor:
    """Spread each image over the labels, ``(B,)``, of the two it was mixed from; ``(B, C)``, each row sums to 1."""
    return share * F.one_hot(labels, classes).float() + (1 - share) * F.one_hot(others, classes).float()


def supported_hyperparameters():
    """Return the hyperparameters that LEMUR chooses; the family's own are in ``EXPERTS``."""
    return {"lr", "momentum"}


class Net(nn.Module):
    """A family's network behind its adapter, trained with the recipe of mixtures.

    Attributes:
        adapter: Brings the images to the size and type that the family takes.
        expert: The family's own network.
        history: Accuracy and loss of each epoch of training.
    """

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.prm = dict(prm)
        self.classes = int(out_shape[0])
        batch, channels, height, width = in_shape
        self.adapter = Adapter(EXPERTS[0], height, width)
        shape = (batch, channels, *self.adapter.size)
        self.expert = build_expert(EXPERTS[0], shape, out_shape, self.prm, self.device)
        self.criterion = None
        self.optimizer = None
        self.history = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, classes)``.
        """
        return expert_logits(self.expert, self.adapter, x.float())

    def train_setup(self, prm: dict) -> None:
        """Prepare training; ``prm`` is copied, never written into."""
        self.to(self.device)
        self.prm = dict(prm)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1).to(self.device)
        self.optimizer = build_optimizer(self.expert, self.prm)
        self.history = []

    def learn(self, train_data) -> tuple:
        """Train for one epoch.

        Args:
            train_data: Batches of images, ``(B, C, H, W)``, and labels, ``(B,)``.

        Returns:
            Training accuracy in [0, 1] and mean training loss.
        """
        self.train()
        steps = count_steps(train_data)
        sums = torch.zeros(2, device=self.device)  # loss and hits
        seen = 0
        for step, (inputs, labels) in enumerate(train_data):
            inputs = inputs.to(self.device, non_blocking=True).float()
            labels = labels.to(self.device, non_blocking=True).long()
            if len(inputs) == 1:  # batch norm needs two values per channel: a lone image is shown twice
                inputs, labels = inputs.repeat(2, 1, 1, 1), labels.repeat(2)
            set_rates(self.optimizer, self.share_done(step, steps))
            sums += self.take_step(inputs, labels)
            seen += len(inputs)
        # One transfer an epoch: reading the sums at every step would make the device wait.
        sums = sums.cpu()
        loss, hits = (sums[:2] / max(seen, 1)).tolist()
        self.history.append({"accuracy": hits, "loss": loss})
        return hits, loss

    def share_done(self, step: int, steps) -> float:
        """Return the share of the whole budget, ``prm["epoch"]`` epochs, that ends at the middle of this step."""
        inside = (step + 0.5) / steps if steps else 0.5
        return (len(self.history) + inside) / max(int(self.prm.get("epoch", 1)), 1)

    def take_step(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update the weights once; return the loss, summed over the batch, and the hits."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs, others, share = mixup(inputs, labels)
        logits = self(inputs)
        loss = share * self.criterion(logits, labels) + (1 - share) * self.criterion(logits, others)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            targets = soft_targets(labels, others, share, self.classes)
            return torch.stack([loss * len(labels), targets.gather(1, logits.argmax(dim=1, keepdim=True)).sum()])
