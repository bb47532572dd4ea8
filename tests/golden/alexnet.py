"""Mixture of four experts: AlexNet four times.

Written by nngen from one model family of LEMUR (nn-dataset). Each expert is a family's own network: its
source stands unchanged inside a function. A gate (convolutions, a coarse grid, two linear layers) weighs the
experts image by image.

Plan:

    experts = ["AlexNet", "AlexNet", "AlexNet", "AlexNet"]
    kind = "hetero"
    repeats = true

    [gate]
    width = 32
    depth = 2
    temperature = 1.0
    noise = 0.5
    routing = "top-k"
    learned_noise = true
    network = "convolution_linear"

    [losses]
    label_smoothing = 0.0
    balance = 0.01
    load = 0.01
    diversity = 0.01

    [recipe]
    gate_rate = 1.0
    weight_decay = 0.0001
    mixup = 0.0
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
# Experts 1, 2, 3 and 4: AlexNet
# --------------------------------------------------------------------------------------------------


# The family's source, whose SHA-256 is f2901425c7e4c69c276efe919b1af9a8f69c16fbb2da1c6841954eb9497ed6a9,
# less what nothing needs and what only a module may hold; its names are its own.
@cache
def alexnet():
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
        network=alexnet(),
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=8,
    ),
    ExpertSpec(
        network=alexnet(),
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=8,
    ),
    ExpertSpec(
        network=alexnet(),
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=8,
    ),
    ExpertSpec(
        network=alexnet(),
        prm={"dropout": 0.3, "lr": 0.05, "momentum": 0.5},
        low=8,
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


class Routing(NamedTuple):
    """Decision of the gate about a batch.

    Attributes:
        weights: ``(B, E)``; zero for experts that were not chosen.
        clean: Logits, ``(B, E)``.
        noisy: The same with the noise of training, ``(B, E)``.
        spread: Standard deviation of that noise, ``()`` or ``(E,)``.
    """

    weights: torch.Tensor
    clean: torch.Tensor
    noisy: torch.Tensor
    spread: torch.Tensor


def top_k_weights(logits: torch.Tensor, bias: torch.Tensor, k: int) -> torch.Tensor:
    """Weigh the ``k`` experts with the largest ``logits + bias`` by a softmax, all others by zero.

    Shazeer et al. 2017. With one expert per image, its weight is its share of the softmax over all (Fedus et al.
    2021): over itself alone it would be 1, and the gate would not learn.

    Args:
        logits: ``(B, E)``.
        bias: Added for the choice but not for the weights, ``(E,)``.
        k: Experts per image.

    Returns:
        Weights, ``(B, E)``.
    """
    best = torch.topk(logits + bias, k, dim=-1).indices
    chosen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, best, True)
    if k == 1:
        return torch.softmax(logits, dim=-1) * chosen
    return torch.softmax(logits.masked_fill(~chosen, float("-inf")), dim=-1)


class Gate(nn.Module):
    """Weigh the experts for each image: convolutions, a coarse grid, two linear layers, a softmax.

    The softmax has a learned temperature. Group norm in place of batch norm, so that one image, of any size, is enough.
    """

    def __init__(self, channels: int, experts: int) -> None:
        super().__init__()
        blocks = []
        for width in (32, 64):
            blocks += [
                nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.features = nn.Sequential(
            *blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, channels), nn.ReLU(inplace=True)
        )
        self.head = nn.Linear(channels, experts)
        nn.init.normal_(self.head.weight, std=0.01)  # near uniform weights at first
        nn.init.zeros_(self.head.bias)
        self.log_temperature = nn.Parameter(torch.tensor(0.0))
        self.log_noise = nn.Parameter(torch.full((experts,), -0.6931471805599453))
        self.register_buffer("bias", torch.zeros(experts))  # moves the choice, not the weights

    def forward(self, x: torch.Tensor) -> Routing:
        """Turn images, ``(B, C, H, W)``, into a ``Routing``."""
        logits = self.head(self.features(x)).float()
        scale = self.log_temperature.exp()
        clean = logits / scale
        spread = self.log_noise.exp() / scale
        noisy = clean + spread * torch.randn_like(clean) if self.training else clean
        return Routing(top_k_weights(noisy, self.bias, 2), clean, noisy, spread)


BALANCE = 0.01  # weight of the importance loss
LOAD = 0.01  # weight of the load loss
DIVERSITY = 0.01  # weight of the likeness of experts
CLIP = 1.0  # largest norm of the gradient
WARMUP = 0.1  # share of the budget over which the rates rise
FLOOR = 0.01  # share of the peak rates that is left at the end


def importance_loss(weights: torch.Tensor) -> torch.Tensor:
    """Squared coefficient of variation of the experts' mean weights, of ``(B, E)`` (Shazeer et al. 2017)."""
    usage = weights.mean(dim=0)  # (E,)
    return usage.var(unbiased=False) / usage.mean().square()


def load_loss(clean: torch.Tensor, noisy: torch.Tensor, spread: torch.Tensor, k: int) -> torch.Tensor:
    """Squared coefficient of variation of the experts' load (Shazeer et al. 2017, as in V-MoE, 2106.05974).

    An expert's load is the mean over images of ``P(clean + spread * N(0, 1) > t)``, its chance to be chosen were its
    noise drawn again; ``t`` is the k-th largest of the image's noisy logits. Unlike the choice, it has a gradient.

    Args:
        clean: Logits, ``(B, E)``.
        noisy: The same with the noise that the choice was made under, ``(B, E)``.
        spread: Standard deviation of that noise, ``()`` or ``(E,)``.
        k: Experts chosen per image, less than ``E``.
    """
    threshold = torch.topk(noisy, k, dim=-1).values[:, -1:]  # (B, 1)
    load: torch.Tensor = torch.special.ndtr((clean - threshold) / spread).mean(dim=0)  # (E,)
    return load.var(unbiased=False) / load.mean().square()


def diversity_loss(weights: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """``mean_b sum_{i != j} w_i w_j cos(f_i, f_j)^2``: likeness of experts that share an image.

    Zero where the experts' outputs are orthogonal, as Guo et al. 2025 (2505.22323) ask for; weighing pairs by
    the gate leaves out experts that did not see the image.

    Args:
        weights: The gate's weights, ``(B, E)``, zero for experts not chosen.
        outputs: The experts' logits, ``(B, E, C)``; taken less their mean over the classes.
    """
    unit = F.normalize(outputs - outputs.mean(dim=2, keepdim=True), dim=2)
    alike = (unit @ unit.transpose(1, 2)).square()  # (B, E, E)
    pairs = weights.unsqueeze(2) * weights.unsqueeze(1)
    pairs = pairs - torch.diag_embed(torch.diagonal(pairs, dim1=1, dim2=2))
    return (pairs * alike).sum(dim=(1, 2)).mean()


def build_optimizer(experts: nn.Module, gate: nn.Module, prm: dict) -> torch.optim.Optimizer:
    """AdamW with the same rate for the gate; ``momentum`` is its first beta."""
    rate = float(prm["lr"])
    momentum = min(max(float(prm["momentum"]), 0.0), 0.999)
    groups = [
        {"params": list(experts.parameters()), "lr": rate, "peak": rate},
        {"params": list(gate.parameters()), "lr": 1.0 * rate, "peak": 1.0 * rate},
    ]
    return torch.optim.AdamW(groups, betas=(momentum, 0.999), weight_decay=0.0001)


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
    """Four experts; a gate chooses two per image and blends their logits.

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
        """Run the gate once, and every expert once on the images that chose it.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, classes)``; the gate's ``Routing``; each expert's own logits, ``(B, E, classes)``, zero for
            images that did not choose it. All carry gradients.
        """
        x = x.float()
        routing = self.gate(x)
        outputs = x.new_zeros(len(x), len(self.experts), self.classes)  # (B, E, C)
        for place, (expert, adapter) in enumerate(zip(self.experts, self.adapters)):
            rows = routing.weights[:, place].nonzero().squeeze(1)
            if len(rows) == 0:
                continue  # no image chose it
            chosen = x[rows]
            if self.training and len(rows) == 1:  # batch norm needs two values per channel
                chosen = chosen.repeat(2, 1, 1, 1)
            outputs[rows, place] = expert_logits(expert, adapter, chosen)[: len(rows)]
        logits = (routing.weights.unsqueeze(-1) * outputs).sum(dim=1)  # (B, E, C) -> (B, C)
        return logits, routing, outputs

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
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.0).to(self.device)
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
        logits, routing, outputs = self.blend(inputs)
        weights = routing.weights
        probabilities = torch.softmax(routing.noisy, dim=-1)
        loss = self.criterion(logits, labels)
        total = loss + BALANCE * importance_loss(probabilities)
        total = total + LOAD * load_loss(routing.clean, routing.noisy, routing.spread, 2)
        total = total + DIVERSITY * diversity_loss(weights, outputs)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            targets = soft_targets(labels, labels, 1.0, self.classes)
            return torch.cat([(loss * len(labels)).view(1), batch_statistics(logits, weights, outputs, targets)])
