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


torch.fx.wrap("shuffle")


class Block(nn.Module):
    def __init__(self, channels: int, config: _BlockConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, config.width, kernel_size=3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(config.width)

    @torch.jit.unused
    def checkpointed(self, x: Tensor) -> Tensor:
        return cp.checkpoint(self.conv, x, use_reentrant=False)

    @torch.jit._overload_method
    def forward(self, x: List[Tensor]) -> Tensor:
        pass

    @torch.jit._overload_method
    def forward(self, x: Tensor) -> Tensor:
        pass

    def forward(self, x):
        return shuffle(torch.relu(self.norm(self.conv(x))), groups=2)


def supported_hyperparameters():
    return {'lr', 'momentum', 'dropout_aux'}


class Net(nn.Module):
    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm['lr'], momentum=prm['momentum'])

    def learn(self, train_data):
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self(inputs).logits, labels).backward()
            self.optimizer.step()

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


if __name__ == "__main__":
    print(Net((1, 3, 8, 8), (10,), {'dropout_aux': 0.1}, torch.device("cpu")))
