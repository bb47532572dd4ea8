"""Pebble: depthwise separable convolutions with squeeze-and-excitation, small and quick (after MobileNetV3)."""

from itertools import pairwise

import torch
from torch import nn


def supported_hyperparameters():
    """Name what LEMUR shall choose."""
    return {"lr", "momentum", "dropout"}


class Squeeze(nn.Module):
    """Weighs channels by what they hold on average (Hu et al. 2018)."""

    def __init__(self, channels):
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, max(4, channels // 4), 1),
            nn.SiLU(),
            nn.Conv2d(max(4, channels // 4), channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return x * self.weigh(x)


def block(channels, out_channels, stride):
    """Look around in each channel, weigh the channels, mix them."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
        nn.SiLU(),
        Squeeze(channels),
        nn.Conv2d(channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.SiLU(),
    )


class Net(nn.Module):
    """Three separable blocks, each halving the sides."""

    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        widths = (24, 48, 96, 160)
        self.stem = nn.Sequential(
            nn.Conv2d(in_shape[1], widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.SiLU()
        )
        self.blocks = nn.Sequential(*(block(narrow, wide, stride=2) for narrow, wide in pairwise(widths)))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(prm["dropout"]), nn.Linear(widths[-1], out_shape[0])
        )

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))

    def train_setup(self, prm):
        self.to(self.device)
        self.criterion = nn.CrossEntropyLoss().to(self.device)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        self.train()
        for inputs, labels in train_data:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            self.criterion(self(inputs), labels).backward()
            nn.utils.clip_grad_norm_(self.parameters(), 3.0)
            self.optimizer.step()
