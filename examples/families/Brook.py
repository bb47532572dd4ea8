"""Brook: patches mixed along space and along channels by multilayer perceptrons (after MLP-Mixer).

Its number of patches is fixed when it is built, so it takes the images it was built for and no others.
"""

import torch
from torch import nn

PATCH = 4
WIDTH = 96
DEPTH = 4


def supported_hyperparameters():
    """Name what LEMUR shall choose."""
    return {"lr", "momentum"}


class Mixer(nn.Module):
    """One round: across patches, then across channels."""

    def __init__(self, patches, width):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.space = nn.Sequential(nn.Linear(patches, 2 * width), nn.GELU(), nn.Linear(2 * width, patches))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.space(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Net(nn.Module):
    """Four rounds of mixing over patches of 4 px."""

    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        patches = (in_shape[2] // PATCH) * (in_shape[3] // PATCH)
        if patches < 4:
            raise ValueError(f"images of {in_shape[2]}x{in_shape[3]} px hold fewer than 4 patches of {PATCH} px")
        self.embed = nn.Conv2d(in_shape[1], WIDTH, PATCH, PATCH)
        self.rounds = nn.Sequential(*(Mixer(patches, WIDTH) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, out_shape[0])

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.rounds(x)).mean(1))

    def train_setup(self, prm):
        self.to(self.device)
        self.criterion = nn.CrossEntropyLoss().to(self.device)
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=prm["lr"], betas=(prm["momentum"], 0.999))

    def learn(self, train_data):
        self.train()
        for inputs, labels in train_data:
            inputs, labels = inputs.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            self.criterion(self(inputs), labels).backward()
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            self.optimizer.step()
