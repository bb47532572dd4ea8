"""Mixture of eight equal experts over one trunk.

Written by nngen. Each expert is three linear layers with weights of its own; all see the features of one
trunk of convolutions, and so does the gate that weighs them image by image.

Plan:

    experts = ["Dense", "Dense", "Dense", "Dense", "Dense", "Dense", "Dense", "Dense"]
    kind = "homogeneous"

    [gate]
    width = 64
    depth = 2
    temperature = 1.0
    noise = 0.5
    routing = "top-k"

    [losses]
    label_smoothing = 0.05
    balance = 0.01
    load = 0.01
    z = 0.001

    [recipe]
    gate_rate = 1.0
    weight_decay = 0.01
    mixup = 0.0
    warmup = 0.1
    clip = 1.0
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F


# --------------------------------------------------------------------------------------------------
# The mixture
# --------------------------------------------------------------------------------------------------


class Trunk(nn.Module):
    """Six convolutions with batch norm and dropout, which all experts and the gate share.

    Every second one halves height and width, down to one pixel. Takes images of any size.

    Attributes:
        width: Features per image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        blocks = []
        for place, width in enumerate((32, 32, 64, 64, 128, 128)):
            blocks += [
                nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            if place % 2:
                blocks += [nn.MaxPool2d(kernel_size=2, ceil_mode=True), nn.Dropout2d(0.1)]
            channels = width
        self.layers = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.width = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn images, ``(B, C, H, W)``, into features, ``(B, F)``."""
        return self.layers(x)


def build_expert(width: int, classes: int) -> nn.Module:
    """Build an expert: three linear layers from features, ``(B, F)``, to logits, ``(B, classes)``."""
    return nn.Sequential(
        nn.Linear(width, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2),
        nn.Linear(128, 64),
        nn.ReLU(inplace=True),
        nn.Linear(64, classes),
    )


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
    """Weigh the experts by the trunk's features: linear layers with batch norm between them, a softmax."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        blocks = []
        for hidden in (64,):
            blocks += [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
            width = hidden
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(width, experts)
        nn.init.normal_(self.head.weight, std=0.01)  # near uniform weights at first
        nn.init.zeros_(self.head.bias)
        self.log_temperature = nn.Parameter(torch.tensor(0.0))
        self.register_buffer("bias", torch.zeros(experts))  # moves the choice, not the weights

    def forward(self, x: torch.Tensor) -> Routing:
        """Turn features, ``(B, F)``, into a ``Routing``."""
        logits = self.head(self.features(x)).float()
        scale = self.log_temperature.exp()
        clean = logits / scale
        spread = 0.5 / scale
        noisy = clean + spread * torch.randn_like(clean) if self.training else clean
        return Routing(top_k_weights(noisy, self.bias, 2), clean, noisy, spread)


BALANCE = 0.01  # weight of the importance loss
LOAD = 0.01  # weight of the load loss
Z = 0.001  # weight of the z-loss
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


def z_loss(logits: torch.Tensor) -> torch.Tensor:
    """``mean_b logsumexp(x_b)^2`` of the gate's logits, ``(B, E)``: keeps them small (Zoph et al. 2022, 2202.08906)."""
    return torch.logsumexp(logits, dim=-1).square().mean()


def build_optimizer(experts: nn.Module, gate: nn.Module, prm: dict) -> torch.optim.Optimizer:
    """AdamW with the same rate for the gate; ``momentum`` is its first beta."""
    rate = float(prm["lr"])
    momentum = min(max(float(prm["momentum"]), 0.0), 0.999)
    groups = [
        {"params": list(experts.parameters()), "lr": rate, "peak": rate},
        {"params": list(gate.parameters()), "lr": 1.0 * rate, "peak": 1.0 * rate},
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
    """Return the hyperparameters that LEMUR chooses."""
    return {"lr", "momentum"}


class Net(nn.Module):
    """Eight equal experts over one trunk; a gate chooses two per image and blends their logits.

    Attributes:
        trunk: Turns images into the features that experts and gate see.
        experts: Networks of one shape, each with weights of its own.
        gate: Weighs the experts, image by image.
        history: Diagnostics of each epoch of training, as ``epoch_summary`` returns them.
    """

    def __init__(self, in_shape: tuple, out_shape: tuple, prm: dict, device: torch.device) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.prm = dict(prm)
        self.classes = int(out_shape[0])
        self.trunk = Trunk(in_shape[1])
        self.experts = nn.ModuleList(build_expert(self.trunk.width, self.classes) for _ in range(8))
        self.gate = Gate(self.trunk.width, 8)
        self.criterion = None
        self.optimizer = None
        self.history = []

    def blend(self, x: torch.Tensor) -> tuple:
        """Run trunk and gate once, and every expert once on the images that chose it.

        Args:
            x: Images, ``(B, C, H, W)``.

        Returns:
            Logits, ``(B, classes)``; the gate's ``Routing``; each expert's own logits, ``(B, E, classes)``, zero for
            images that did not choose it. All carry gradients.
        """
        features = self.trunk(x.float())  # (B, F)
        routing = self.gate(features)
        outputs = torch.zeros(len(x), len(self.experts), self.classes, device=x.device)  # (B, E, C)
        for place, expert in enumerate(self.experts):
            rows = routing.weights[:, place].nonzero().squeeze(1)
            if len(rows) > 0:  # an expert that no image chose is not run
                outputs[rows, place] = expert(features[rows]).float()
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
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.05).to(self.device)
        self.optimizer = build_optimizer(nn.ModuleList([self.trunk, self.experts]), self.gate, self.prm)
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
        total = total + Z * z_loss(routing.clean)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters(), CLIP)
        self.optimizer.step()
        with torch.no_grad():
            targets = soft_targets(labels, labels, 1.0, self.classes)
            return torch.cat([(loss * len(labels)).view(1), batch_statistics(logits, weights, outputs, targets)])
