"""Sources of small nets for the cases of rules and for tests, with places for one statement."""

from __future__ import annotations

_NET = """\
import torch
import torch.nn as nn

def supported_hyperparameters():
    return {{'lr', 'momentum'}}

class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        {parts}
        {init}
        self.device = device
        self.criterion = nn.CrossEntropyLoss()

    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm['lr'], momentum=prm['momentum'])
        {setup}

    def learn(self, train_data):
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            loss = self.criterion(self(inputs), labels)
            {loss}
            loss.backward()
            self.optimizer.step()

    def forward(self, x):
        {forward}
"""

_PART = "nn.Sequential(nn.Flatten(), nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], {width}))"
_ONE = "self.head = " + _PART.format(width="out_shape[0]")


def _mixture(experts: int) -> str:
    each = _PART.format(width="out_shape[0]")
    return f"self.experts = nn.ModuleList({each} for _ in range({experts})); self.gate = {_PART.format(width=experts)}"


_MIX = "return sum(w * e(x) for w, e in zip(self.gate(x).softmax(1).T.unsqueeze(2), self.experts))"

_ROUTE = """\
best = self.gate(x).topk(1, dim=1).indices[:, 0]
        share = self.gate(x).softmax(1).gather(1, best[:, None])
        return torch.stack([{chosen}(image[None])[0] for image, i in zip(x, best.tolist())]) * share"""


def net_source(
    *, init: str = "pass", setup: str = "pass", loss: str = "pass", forward: str = "return self.head(x)"
) -> str:
    """Return a linear net with one statement put into its init (line 11), setup (17), loss (23) or forward (28)."""
    return _NET.format(parts=_ONE, init=init, setup=setup, loss=loss, forward=forward)


def mixture_source(*, init: str = "pass", setup: str = "pass", forward: str = _MIX) -> str:
    """Return a mixture of two linear experts with one statement put into it, at the places of ``net_source``."""
    return _NET.format(parts=_mixture(2), init=init, setup=setup, loss="pass", forward=forward)


def routed_source(*, chosen: str = "self.experts[i]") -> str:
    """Return a mixture of eight linear experts that runs one per image.

    The gate first chooses the same expert for every image: its weights are zero, its bias is not.

    Args:
        chosen: The expert, as an expression of the gate's choice ``i``.
    """
    constant = "nn.init.zeros_(self.gate[1].weight); self.gate[1].bias.data[3] = 9.0"
    return _NET.format(
        parts=_mixture(8), init=constant, setup="pass", loss="pass", forward=_ROUTE.format(chosen=chosen)
    )
