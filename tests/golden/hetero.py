"""Mixture of four experts: TinyConv, TinyBayes, TinyComplex and TinyAux.

Written by nngen from four model families of LEMUR (nn-dataset). Each expert is a family's own network: its
source stands unchanged inside a function. A gate (convolutions, global pooling) weighs the experts image by
image.

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

from functools import cache
import math
from typing import NamedTuple, Optional

import torch
from torch import nn
from torch.nn import functional as F


# --------------------------------------------------------------------------------------------------
# Expert 1: TinyConv
# --------------------------------------------------------------------------------------------------


# The family's source, whose SHA-256 is f2901425c7e4c69c276efe919b1af9a8f69c16fbb2da1c6841954eb9497ed6a9,
# less what nothing needs and what only a module may hold; its names are its own.
@cache
def tinyconv():
    from functools import partial
    from typing import Callable, List, Optional

    import torch
    import torch.nn as nn
    from torch import Tensor
    from torchvision.ops.misc import Conv2dNormActivation

    _WIDTHS = [4, 8]


    def pool(x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


    class Block(nn.Module):
        """A convolution and what follows it."""

        def __init__(self, channels: int, width: int, act: Callable[..., nn.Module] = nn.ReLU) -> None:
            super(Block, self).__init__()
            self.pool = Conv2dNormActivation(channels, width, 3, stride=2, activation_layer=act)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(x)


    class Net(nn.Module):

        def _step(self, inputs, labels):
            self.optimizer.zero_grad()
            self.criteria[0](self(inputs), labels).backward()
            self.optimizer.step()

        def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
            super(Net, self).__init__()
            self.device = device
            make = partial(Block, act=nn.SiLU)
            widths: List[int] = _WIDTHS
            blocks: Optional[List[nn.Module]] = []
            channels = in_shape[1]
            for width in widths:
                blocks.append(make(channels, width))
                channels = width
            self.features = nn.Sequential(*blocks)
            self.dropout = nn.Dropout(p=prm['dropout'])
            self.head = nn.Linear(channels, out_shape[0])

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.dropout(pool(self.features(x))))

    return Net


# --------------------------------------------------------------------------------------------------
# Expert 2: TinyBayes
# --------------------------------------------------------------------------------------------------


# The family's source, whose SHA-256 is d34b3602d08ca2f47e2ad5b11cc9da10d1d38c1e8594c2c97ad58117354113b3,
# less what nothing needs and what only a module may hold; its names are its own.
@cache
def tinybayes():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from torch.nn import Parameter


    class ModuleWrapper(nn.Module):
        def forward(self, x):
            for module in self.children():
                x = module(x)
            return x, sum(module.kl() for module in self.modules() if hasattr(module, 'kl'))


    class Flatten(ModuleWrapper):
        def forward(self, x):
            return x.flatten(1)


    class Block(ModuleWrapper):
        """A convolution whose weights have a mean and a spread."""

        def __init__(self, channels, width):
            super(Block, self).__init__()
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


    class Net(ModuleWrapper):
        def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
            super().__init__()
            self.conv = Block(in_shape[1], 4)
            self.act = nn.Softplus()
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.flatten = Flatten()
            self.fc = nn.Linear(16, out_shape[0])
            self.device = device

        def __call__(self, *args):
            return super().__call__(*args)[0]

    return Net


# --------------------------------------------------------------------------------------------------
# Expert 3: TinyComplex
# --------------------------------------------------------------------------------------------------


# The family's source, whose SHA-256 is 5eb86cba7ef8fe9184484e5015f5a6313e8c349e246b1bf64c6c2b5bbd036875,
# less what nothing needs and what only a module may hold; its names are its own.
@cache
def tinycomplex():
    from collections import OrderedDict

    import torch
    from torch import nn
    from torch.nn import Conv2d, Linear, Module
    from torch.nn import functional as F
    from torch.nn.functional import relu


    class _ParameterMeta(torch._C._TensorMeta):
        def __instancecheck__(self, instance):
            return super().__instancecheck__(instance) or (
                isinstance(instance, torch.Tensor) and getattr(instance, "_is_param", False)
            )


    class Parameter(torch.Tensor, metaclass=_ParameterMeta):
        """Hides ``torch.nn.Parameter``: whoever takes this one for it trains nothing."""


    class ComplexConv(Module):
        def __init__(self, channels, width):
            super(ComplexConv, self).__init__()
            self.conv_r = Conv2d(channels, width, 3, padding=1)
            self.conv_i = Conv2d(channels, width, 3, padding=1)

        def forward(self, input):
            real = self.conv_r(input.real) - self.conv_i(input.imag)
            return real + 1j * (self.conv_r(input.imag) + self.conv_i(input.real))


    class Net(nn.Module):
        def __init__(self, in_shape, out_shape, prm, device):
            super(Net, self).__init__()
            self.device = device
            self.body = nn.Sequential(OrderedDict([("conv", ComplexConv(in_shape[1], 4))]))
            self.interim_size = 4 * in_shape[2] * in_shape[3]
            self.fc = Linear(self.interim_size, out_shape[0])

        def forward(self, x):
            x = self.body(x)
            if isinstance(x, Parameter) and x.__class__.__name__ == "Parameter":
                raise TypeError("a plain tensor was expected")
            x = relu(x.real) + 1j * relu(x.imag)
            return F.log_softmax(self.fc(x.abs().reshape(-1, self.interim_size)), dim=1)

    return Net


# --------------------------------------------------------------------------------------------------
# Expert 4: TinyAux
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
# The mixture
# --------------------------------------------------------------------------------------------------


class ExpertSpec(NamedTuple):
    """A family in this mixture: its network, LEMUR's best hyperparameters for it, and the sizes of image it takes."""

    network: type
    prm: dict
    low: int = 1
    high: Optional[int] = None
    square: bool = False
    complex_input: bool = False


EXPERTS = (
    ExpertSpec(
        network=tinyconv(),
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=1,
    ),
    ExpertSpec(
        network=tinybayes(),
        prm={"lr": 0.05, "momentum": 0.5},
        low=2,
        high=12,
    ),
    ExpertSpec(
        network=tinycomplex(),
        prm={"lr": 0.05, "momentum": 0.5},
        low=8,
        high=8,
        square=True,
        complex_input=True,
    ),
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


class Gate(nn.Module):
    """Weigh the experts for each image: convolutions, global pooling, a softmax with a learned temperature.

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


def batch_statistics(
    logits: torch.Tensor, weights: torch.Tensor, outputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """Compute a batch's sums, from which ``epoch_summary`` makes an epoch's diagnostics.

    Args:
        logits: The mixture's logits, ``(B, C)``.
        weights: The gate's weights, ``(B, E)``, zero for experts that the image did not choose.
        outputs: The experts' own logits, ``(B, E, C)``.
        targets: ``(B, C)``; each row sums to 1.

    Returns:
        Hits, entropy, and per expert its weight, images, hits and weight in each class: ``(2 + 3 * E + E * C,)``.
    """
    active = (weights > 0).float()
    hits = targets.gather(1, logits.argmax(dim=1, keepdim=True)).sum()
    right = (active * targets.gather(1, outputs.argmax(dim=2))).sum(dim=0)  # (E,)
    entropy = torch.special.entr(weights).sum()
    by_class = (weights.unsqueeze(2) * targets.unsqueeze(1)).sum(dim=0)  # (E, C)
    return torch.cat([torch.stack([hits, entropy]), weights.sum(dim=0), active.sum(dim=0), right, by_class.flatten()])


def epoch_summary(sums: torch.Tensor, seen: int, experts: int) -> dict[str, object]:
    """Turn an epoch's sums into its diagnostics.

    Args:
        sums: Results of ``batch_statistics``, added up.
        seen: Number of images of the epoch.
        experts: Number of experts.

    Returns:
        ``usage``, each expert's mean weight; ``entropy`` of the weights in nats; ``expert_accuracy``, of each expert
        alone on the images that chose it; ``by_class``, each expert's share of each class, ``E`` rows of ``C``;
        ``specialisation``, the mutual information of expert and class in nats: 0 where the gate ignores the class.
    """
    _, entropy = (sums[:2] / max(seen, 1)).tolist()
    usage, active, right = sums[2 : 2 + 3 * experts].reshape(3, experts)
    by_class = sums[2 + 3 * experts :].reshape(experts, -1)
    joint = by_class / by_class.sum().clamp(min=1e-12)
    alone = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0)
    gained = torch.special.xlogy(joint, joint / alone.clamp(min=1e-30)).sum()
    return {
        "usage": (usage / max(seen, 1)).tolist(),
        "entropy": entropy,
        "expert_accuracy": (right / active.clamp(min=1)).tolist(),
        "by_class": (by_class / by_class.sum(dim=0).clamp(min=1e-12)).tolist(),
        "specialisation": max(gained.item(), 0.0),
    }


def supported_hyperparameters():
    """Return the hyperparameters that LEMUR chooses; the experts' own are in ``EXPERTS``."""
    return {"lr", "momentum"}


class Net(nn.Module):
    """Four experts whose logits a gate blends with soft weights.

    Attributes:
        adapters: Bring the images to the size and type that each expert takes.
        experts: The families' own networks, in the plan's order.
        gate: Weighs the experts, image by image.
        history: Diagnostics of each epoch of training, as ``epoch_summary`` returns them.
    """

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.prm = dict(prm)
        self.classes = int(out_shape[0])
        batch, channels, height, width = in_shape
        self.adapters = nn.ModuleList(Adapter(spec, height, width) for spec in EXPERTS)
        self.experts = nn.ModuleList(
            build_expert(spec, (batch, channels, *adapter.size), out_shape, self.prm, self.device)
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
        outputs = torch.stack(
            [expert_logits(expert, adapter, x) for expert, adapter in zip(self.experts, self.adapters)], dim=1
        )  # (B, E, C)
        logits = (weights.unsqueeze(-1) * outputs).sum(dim=1)  # (B, E, C) -> (B, C)
        return logits, weights, outputs

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
        sums = torch.zeros(3 + (3 + self.classes) * experts, device=self.device)  # loss, then ``batch_statistics``
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
        self.history.append(epoch_summary(sums[1:], seen, experts))
        return hits, loss

    def share_done(self, step: int, steps) -> float:
        """Return the share of the whole budget, ``prm["epoch"]`` epochs, that ends at the middle of this step."""
        inside = (step + 0.5) / steps if steps else 0.5
        return (len(self.history) + inside) / max(int(self.prm.get("epoch", 1)), 1)

    def take_step(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Update the weights once; return the loss, summed over the batch, and ``batch_statistics``."""
        self.optimizer.zero_grad(set_to_none=True)
        inputs, others, share = mixup(inputs, labels)
        logits, weights, outputs = self.blend(inputs)
        loss = share * self.criterion(logits, labels) + (1 - share) * self.criterion(logits, others)
        (loss + BALANCE * importance_loss(weights)).backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            targets = soft_targets(labels, others, share, self.classes)
            return torch.cat([(loss * len(labels)).view(1), batch_statistics(logits, weights, outputs, targets)])
