"""Mixture of four experts: TinyConv, TinyBayes, TinyComplex and TinyAux.

Written by nngen from four model families of LEMUR (nn-dataset). Each expert is a family's own network under
names of its own; a convolutional gate weighs the experts image by image.

Plan:

    experts = ["TinyConv", "TinyBayes", "TinyComplex", "TinyAux"]
    kind = "hetero"

    [gate]
    width = 32
    depth = 3
    temperature = 1.0
    noise = 0.1

    [losses]
    label_smoothing = 0.1
    balance = 0.01

    [recipe]
    gate_rate = 3.0
    weight_decay = 0.01
    mixup = 0.2
    warmup = 0.1
    clip = 1.0
"""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial
import math
from typing import Callable, List, NamedTuple, Optional

import torch
import torch.fx
import torch.utils.checkpoint as tinyaux_cp
from torch import Tensor, nn
from torch.nn import (
    Conv2d as TinyComplexConv2d,
    Linear as TinyComplexLinear,
    Module as TinyComplexModule,
    Parameter,
    functional as F,
)
from torch.nn.functional import relu as tinycomplex_relu
from torchvision.ops.misc import Conv2dNormActivation


# --------------------------------------------------------------------------------------------------
# Expert 1: TinyConv
# --------------------------------------------------------------------------------------------------


TINYCONV_WIDTHS = [4, 8]


def tinyconv_pool(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


class TinyConvBlock(nn.Module):
    """A convolution and what follows it."""

    def __init__(self, channels: int, width: int, act: Callable[..., nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.pool = Conv2dNormActivation(channels, width, 3, stride=2, activation_layer=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class TinyConvNet(nn.Module):

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = device
        make = partial(TinyConvBlock, act=nn.SiLU)
        blocks: Optional[List[nn.Module]] = []
        channels = in_shape[1]
        for width in TINYCONV_WIDTHS:
            blocks.append(make(channels, width))
            channels = width
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(p=prm['dropout'])
        self.head = nn.Linear(channels, out_shape[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(tinyconv_pool(self.features(x))))


# --------------------------------------------------------------------------------------------------
# Expert 2: TinyBayes
# --------------------------------------------------------------------------------------------------


class TinyBayesModuleWrapper(nn.Module):
    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x, sum(module.kl() for module in self.modules() if hasattr(module, 'kl'))


class TinyBayesFlatten(TinyBayesModuleWrapper):
    def forward(self, x):
        return x.flatten(1)


class TinyBayesBlock(TinyBayesModuleWrapper):
    """A convolution whose weights have a mean and a spread."""

    def __init__(self, channels, width):
        super().__init__()
        self.device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        self.mu = Parameter(0.1 * torch.randn(width, channels, 3, 3))
        self.rho = Parameter(torch.full((width, channels, 3, 3), -5.0))

    def forward(self, x):
        sigma = torch.log1p(torch.exp(self.rho))
        mean = F.conv2d(x, self.mu, padding=1)
        spread = torch.sqrt(1e-16 + F.conv2d(x ** 2, sigma ** 2, padding=1))
        return mean + spread * torch.empty(mean.size()).normal_(0, 1).to(self.device)

    def kl(self):
        return self.mu.pow(2).sum()


class TinyBayesNet(TinyBayesModuleWrapper):

    def __init__(self, in_shape: tuple, out_shape: tuple, _prm: dict, device: torch.device) -> None:
        super().__init__()
        self.conv = TinyBayesBlock(in_shape[1], 4)
        self.act = nn.Softplus()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.flatten = TinyBayesFlatten()
        self.fc = nn.Linear(16, out_shape[0])
        self.device = device

    def __call__(self, *args):
        return super().__call__(*args)[0]


# --------------------------------------------------------------------------------------------------
# Expert 3: TinyComplex
# --------------------------------------------------------------------------------------------------


class TinyComplexParameterMeta(torch._C._TensorMeta):
    def __instancecheck__(self, instance):
        return super().__instancecheck__(instance) or (
            isinstance(instance, torch.Tensor) and getattr(instance, "_is_param", False)
        )


class TinyComplexParameter(torch.Tensor, metaclass=TinyComplexParameterMeta):
    """Hides ``torch.nn.Parameter``: whoever takes this one for it trains nothing."""


class TinyComplexComplexConv(TinyComplexModule):
    def __init__(self, channels, width):
        super().__init__()
        self.conv_r = TinyComplexConv2d(channels, width, 3, padding=1)
        self.conv_i = TinyComplexConv2d(channels, width, 3, padding=1)

    def forward(self, inputs):
        real = self.conv_r(inputs.real) - self.conv_i(inputs.imag)
        return real + 1j * (self.conv_r(inputs.imag) + self.conv_i(inputs.real))


class TinyComplexNet(nn.Module):

    def __init__(self, in_shape, out_shape, _prm, device):
        super().__init__()
        self.device = device
        self.body = nn.Sequential(OrderedDict([("conv", TinyComplexComplexConv(in_shape[1], 4))]))
        self.interim_size = 4 * in_shape[2] * in_shape[3]
        self.fc = TinyComplexLinear(self.interim_size, out_shape[0])

    def forward(self, x):
        x = self.body(x)
        if isinstance(x, TinyComplexParameter) and x.__class__.__name__ == "TinyComplexParameter":
            raise TypeError("a plain tensor was expected")
        x = tinycomplex_relu(x.real) + 1j * tinycomplex_relu(x.imag)
        return F.log_softmax(self.fc(x.abs().reshape(-1, self.interim_size)), dim=1)


# --------------------------------------------------------------------------------------------------
# Expert 4: TinyAux
# --------------------------------------------------------------------------------------------------


TinyAuxAuxOutputs = namedtuple("TinyAuxAuxOutputs", ["logits", "aux"])
TinyAuxAuxOutputs.__annotations__ = {"logits": Tensor, "aux": Optional[Tensor]}

TinyAuxAuxOutputs2 = TinyAuxAuxOutputs


@dataclass
class TinyAuxBlockConfig:
    width: int = 4

    def build(self, channels: int) -> "TinyAuxBlock":
        return TinyAuxBlock(channels, self)


def tinyaux_shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.size()
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


torch.fx.wrap("tinyaux_shuffle")


class TinyAuxBlock(nn.Module):
    def __init__(self, channels: int, config: TinyAuxBlockConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, config.width, kernel_size=3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(config.width)

    @torch.jit.unused
    def checkpointed(self, x: Tensor) -> Tensor:
        return tinyaux_cp.checkpoint(self.conv, x, use_reentrant=False)

    def forward(self, x):
        return tinyaux_shuffle(torch.relu(self.norm(self.conv(x))), groups=2)


class TinyAuxNet(nn.Module):

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = device
        config = TinyAuxBlockConfig()
        self.block = config.build(in_shape[1])
        self.aux = nn.Linear(config.width, out_shape[0])
        self.drop = nn.Dropout(prm['dropout_aux'])
        self.head = nn.Linear(config.width, out_shape[0])

    def forward(self, x: Tensor):
        x = self.block(x).mean(dim=(2, 3))
        if self.training:
            return TinyAuxAuxOutputs2(self.head(x), self.aux(self.drop(x)))
        return self.head(x)


# --------------------------------------------------------------------------------------------------
# The mixture
# --------------------------------------------------------------------------------------------------


class ExpertSpec(NamedTuple):
    """A family in this mixture: the sizes of image it takes, and LEMUR's best hyperparameters for it."""

    network: type
    prm: dict
    low: int = 1
    high: Optional[int] = None
    square: bool = False
    complex_input: bool = False


EXPERTS = (
    ExpertSpec(
        network=TinyConvNet,
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=1,
    ),
    ExpertSpec(
        network=TinyBayesNet,
        prm={"lr": 0.05, "momentum": 0.5},
        low=2,
        high=12,
    ),
    ExpertSpec(
        network=TinyComplexNet,
        prm={"lr": 0.05, "momentum": 0.5},
        low=8,
        high=8,
        square=True,
        complex_input=True,
    ),
    ExpertSpec(
        network=TinyAuxNet,
        prm={"dropout_aux": 0.25, "lr": 0.05, "momentum": 0.5},
        low=16,
    ),
)


def build_expert(spec: ExpertSpec, in_shape: tuple, out_shape: tuple, device: torch.device) -> nn.Module:
    """Build a family's network for ``in_shape``, ``(B, C, H, W)``, with its own copy of its hyperparameters."""
    expert = spec.network(in_shape, out_shape, dict(spec.prm), device)
    for module in expert.modules():
        # Some layers guess the first CUDA device where there is one; all belong where the mixture is.
        if isinstance(vars(module).get("device"), torch.device):
            module.device = device
    return expert


class Adapter(nn.Module):
    """Bring images to what an expert takes: the nearest size, by bilinear resize, and complex numbers if need be.

    Attributes:
        size: Height and width that the expert sees.
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
    """Take the class logits, ``(B, classes)``, from an expert's output: auxiliary heads follow them in a tuple."""
    logits = output[0] if isinstance(output, tuple) else output
    return (logits.abs() if logits.is_complex() else logits).float()


def consult(expert: nn.Module, adapter: Adapter, x: torch.Tensor) -> torch.Tensor:
    """Ask an expert about images, ``(B, C, H, W)``; return its logits, ``(B, classes)``."""
    if not adapter.complex_input:
        return class_logits(expert(adapter(x)))
    with torch.autocast(x.device.type, enabled=False):  # there are no complex numbers of half precision
        return class_logits(expert(adapter(x)))


class Gate(nn.Module):
    """Look at an image and weigh the experts: convolutions, global pooling, a softmax with a learned temperature.

    Group norm in place of batch norm, so that one image, of any size, is enough.
    """

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        blocks = []
        for width in (32, 64, 128):
            blocks += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, width),
                nn.SiLU(),
            ]
            channels = width
        self.features = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, experts)
        nn.init.normal_(self.head.weight, std=0.01)  # near uniform weights at first
        nn.init.zeros_(self.head.bias)
        self.log_temperature = nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn images, ``(B, C, H, W)``, into weights, ``(B, E)``; each row sums to 1."""
        logits = self.head(self.features(x)).float()
        if self.training:
            logits = logits + 0.1 * torch.randn_like(logits)
        return torch.softmax(logits / self.log_temperature.exp(), dim=-1)


BALANCE = 0.01  # weight of the importance loss
CLIP = 1.0  # largest norm of the gradient
WARMUP = 0.1  # share of the budget over which the rates rise
FLOOR = 0.01  # share of the peak rates that is left at the end


def importance_loss(weights: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation of the experts' mean weights, of ``(B, E)`` (Shazeer et al. 2017)."""
    usage = weights.mean(dim=0)  # (E,)
    return usage.var(unbiased=False) / usage.mean().square()


def mixup(inputs: torch.Tensor, labels: torch.Tensor) -> tuple:
    """Mix each image with another of its batch (Zhang et al. 2018).

    Returns:
        Mixed images, ``(B, C, H, W)``; the partners' labels, ``(B,)``; the share of the first labels.
    """
    share = torch.distributions.Beta(0.2, 0.2).sample().item()
    partners = torch.randperm(len(inputs), device=inputs.device)
    return share * inputs + (1 - share) * inputs[partners], labels[partners], share


def build_optimizer(experts: nn.Module, gate: nn.Module, prm: dict) -> torch.optim.Optimizer:
    """AdamW with a higher rate for the gate; ``momentum`` is its first beta."""
    rate = float(prm["lr"])
    momentum = min(max(float(prm["momentum"]), 0.0), 0.999)
    groups = [
        {"params": list(experts.parameters()), "lr": rate, "peak": rate},
        {"params": list(gate.parameters()), "lr": 3.0 * rate, "peak": 3.0 * rate},
    ]
    return torch.optim.AdamW(groups, betas=(momentum, 0.999), weight_decay=0.01)


def set_rates(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Set a step's rates: a linear rise, then a cosine over the whole budget, of which the share ``done`` is past."""
    if done < WARMUP:
        factor = done / WARMUP
    else:
        factor = FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min((done - WARMUP) / (1 - WARMUP), 1.0))) / 2
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def count_steps(train_data):
    """Return the number of batches of an epoch; None for a stream that does not know it."""
    try:
        return len(train_data) or None
    except TypeError:
        return None


def soft_targets(labels: torch.Tensor, others: torch.Tensor, share: float, classes: int) -> torch.Tensor:
    """Spread each image over the labels, ``(B,)``, of the two it was mixed from; ``(B, C)``, each row sums to 1."""
    return share * F.one_hot(labels, classes).float() + (1 - share) * F.one_hot(others, classes).float()


def observe(mixed: torch.Tensor, weights: torch.Tensor, each: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum over a batch what ``describe`` makes an epoch's diagnostics of.

    Args:
        mixed: The mixture's logits, ``(B, C)``.
        weights: The gate's weights, ``(B, E)``, zero for experts that were not asked.
        each: The experts' own logits, ``(B, E, C)``.
        targets: ``(B, C)``; each row sums to 1.

    Returns:
        Hits, entropy, and per expert its weight, images, hits and weight in each class: ``(2 + 3 * E + E * C,)``.
    """
    asked = (weights > 0).float()
    hits = targets.gather(1, mixed.argmax(dim=1, keepdim=True)).sum()
    right = (asked * targets.gather(1, each.argmax(dim=2))).sum(dim=0)  # (E,)
    entropy = torch.special.entr(weights).sum()
    by_class = (weights.unsqueeze(2) * targets.unsqueeze(1)).sum(dim=0)  # (E, C)
    return torch.cat([torch.stack([hits, entropy]), weights.sum(dim=0), asked.sum(dim=0), right, by_class.flatten()])


def describe(sums: torch.Tensor, seen: int, experts: int) -> dict[str, object]:
    """Turn an epoch's sums into its diagnostics.

    Args:
        sums: What ``observe`` returned, added up.
        seen: Images of the epoch.
        experts: How many there are.

    Returns:
        ``usage``, each expert's mean weight; ``entropy`` of the weights in nats; ``expert_accuracy``, of each expert
        alone on the images it was asked about; ``by_class``, each expert's share of each class, ``E`` rows of ``C``;
        ``specialisation``, the mutual information of expert and class in nats: 0 where the gate ignores the class.
    """
    _, entropy = (sums[:2] / max(seen, 1)).tolist()
    usage, asked, right = sums[2 : 2 + 3 * experts].reshape(3, experts)
    by_class = sums[2 + 3 * experts :].reshape(experts, -1)
    joint = by_class / by_class.sum().clamp(min=1e-12)
    alone = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0)
    gained = torch.special.xlogy(joint, joint / alone.clamp(min=1e-30)).sum()
    return {
        "usage": (usage / max(seen, 1)).tolist(),
        "entropy": entropy,
        "expert_accuracy": (right / asked.clamp(min=1)).tolist(),
        "by_class": (by_class / by_class.sum(dim=0).clamp(min=1e-12)).tolist(),
        "specialisation": max(gained.item(), 0.0),
    }


def supported_hyperparameters():
    """Hyperparameters that LEMUR chooses; the experts' own are embedded above."""
    return {"lr", "momentum"}


class Net(nn.Module):
    """Four experts whose logits a gate blends with soft weights.

    Attributes:
        adapters: Bring the input to what each expert takes.
        experts: The families' own networks, in the plan's order.
        gate: Weighs the experts, image by image.
        history: What ``describe`` says of each epoch of training.
    """

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.prm = dict(prm)
        self.classes = int(out_shape[0])
        batch, channels, height, width = in_shape
        self.adapters = nn.ModuleList(Adapter(spec, height, width) for spec in EXPERTS)
        self.experts = nn.ModuleList(
            build_expert(spec, (batch, channels, *adapter.size), out_shape, self.device)
            for spec, adapter in zip(EXPERTS, self.adapters)
        )
        self.gate = Gate(channels, len(EXPERTS))
        self.criterion = None
        self.optimizer = None
        self.history = []

    def blend(self, x: torch.Tensor) -> tuple:
        """Run the gate once and every expert once.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, classes)``; the gate's weights, ``(B, E)``; each expert's own logits, ``(B, E, classes)``.
            All carry gradients.
        """
        x = x.float()
        weights = self.gate(x)  # (B, E)
        logits = [consult(expert, adapter, x) for expert, adapter in zip(self.experts, self.adapters)]
        each = torch.stack(logits, dim=1)  # (B, E, C)
        mixed = (weights.unsqueeze(-1) * each).sum(dim=1)  # (B, E, C) -> (B, C)
        return mixed, weights, each

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blend the experts' logits.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, classes)``.
        """
        return self.blend(x)[0]

    def train_setup(self, prm: dict) -> None:
        """Prepare training; ``prm`` is copied, never written into."""
        self.to(self.device)
        self.prm = dict(prm)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1).to(self.device)
        self.optimizer = build_optimizer(self.experts, self.gate, self.prm)
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
        experts = len(self.experts)
        tally = torch.zeros(3 + (3 + self.classes) * experts, device=self.device)  # loss and observations, summed
        seen = 0
        for step, (inputs, labels) in enumerate(train_data):
            inputs = inputs.to(self.device, non_blocking=True).float()
            labels = labels.to(self.device, non_blocking=True).long()
            if len(inputs) == 1:  # batch norm needs two values per channel: a lone image is shown twice
                inputs, labels = inputs.repeat(2, 1, 1, 1), labels.repeat(2)
            set_rates(self.optimizer, self.share_done(step, steps))
            tally += self.take_step(inputs, labels)
            seen += len(inputs)
        # One transfer an epoch: reading the sums at every step would make the device wait.
        tally = tally.cpu()
        loss, hits = (tally[:2] / max(seen, 1)).tolist()
        self.history.append(describe(tally[1:], seen, experts))
        return hits, loss

    def share_done(self, step: int, steps) -> float:
        """Share of the whole budget, ``prm["epoch"]`` epochs, that is behind the middle of this step."""
        inside = (step + 0.5) / steps if steps else 0.5
        return (len(self.history) + inside) / max(int(self.prm.get("epoch", 1)), 1)

    def take_step(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update the weights once; return the loss and what ``observe`` saw, summed over the batch."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs, others, share = mixup(inputs, labels)
        logits, weights, each = self.blend(inputs)
        loss = share * self.criterion(logits, labels) + (1 - share) * self.criterion(logits, others)
        (loss + BALANCE * importance_loss(weights)).backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            targets = soft_targets(labels, others, share, self.classes)
            return torch.cat([(loss * len(labels)).view(1), observe(logits, weights, each, targets)])
