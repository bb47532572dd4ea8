from functools import partial
from typing import Any, Callable, List, Optional

import torch
import torch.nn as nn
from torch import Tensor
from torchvision.models._api import WeightsEnum
from torchvision.models._utils import _ovewrite_named_param
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


def supported_hyperparameters():
    return {'lr', 'momentum', 'dropout'}


class Net(nn.Module):

    def train_setup(self, prm):
        self.to(self.device)
        self.criteria = (nn.CrossEntropyLoss().to(self.device),)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm['lr'], momentum=prm['momentum'])

    def learn(self, train_data):
        for inputs, labels in train_data:
            self._step(inputs.to(self.device), labels.to(self.device))

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


def _tiny(weights: Optional[WeightsEnum], **kwargs: Any) -> Net:
    if weights is not None:
        _ovewrite_named_param(kwargs, "num_classes", len(weights.meta["categories"]))
    return Net(**kwargs)
