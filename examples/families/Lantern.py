"""Lantern: residual convolutions whose last map is read by attention with a learned question (after CoAtNet)."""

import torch
from torch import nn


def supported_hyperparameters():
    """Name what LEMUR shall choose."""
    return {"lr", "momentum", "dropout"}


class Block(nn.Module):
    """Two convolutions around a shortcut; halves the sides where the width changes."""

    def __init__(self, channels, width):
        super().__init__()
        stride = 1 if channels == width else 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(channels, width, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """Three residual blocks and one attention."""

    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        self.stem = nn.Conv2d(in_shape[1], 32, 3, padding=1)
        self.body = nn.Sequential(Block(32, 32), Block(32, 64), Block(64, 128))
        self.question = nn.Parameter(torch.randn(1, 1, 128) * 0.02)
        self.attention = nn.MultiheadAttention(128, 4, dropout=prm["dropout"], batch_first=True)
        self.head = nn.Linear(128, out_shape[0])

    def forward(self, x):
        tokens = self.body(self.stem(x)).flatten(2).transpose(1, 2)
        question = self.question.expand(x.shape[0], -1, -1)
        answer, _ = self.attention(question, tokens, tokens, need_weights=False)
        return self.head(answer[:, 0] + tokens.mean(1))

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
