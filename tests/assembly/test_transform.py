"""Before and after: what becomes of a family's source."""

from __future__ import annotations

from textwrap import dedent

import pytest
from assembly_toys import as_expert

from nngen.assembly.imports import write_imports

NET = """
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
"""

CASES = {
    "a helper class, in calls, bases, super and isinstance": (
        """
        import torch.nn as nn
        class Base(nn.Module):
            pass
        class Block(Base):
            def __init__(self):
                super(Block, self).__init__()
                assert isinstance(self, Base)
        class Net(nn.Module):
            def __init__(self, in_shape, out_shape, prm, device):
                super(Net, self).__init__()
                self.block = Block()
        """,
        """
        from torch import nn
        class ToyBase(nn.Module):
            pass
        class ToyBlock(ToyBase):
            def __init__(self):
                super(ToyBlock, self).__init__()
                assert isinstance(self, ToyBase)
        class ToyNet(nn.Module):
            def __init__(self, in_shape, out_shape, prm, device):
                super(ToyNet, self).__init__()
                self.block = ToyBlock()
        """,
    ),
    "locals, attributes and keywords of the same spelling stay": (
        """
        import torch.nn as nn
        def width(x, width=3):
            return x * width
        WIDTH = 4
        class Net(nn.Module):
            WIDTH = WIDTH
            width = 1
            def __init__(self, in_shape, out_shape, prm, device):
                super().__init__()
                self.width = width(WIDTH, width=self.width)
                self.WIDTH = [WIDTH for WIDTH in (1, 2)]
            def forward(self, width):
                def inner():
                    return width
                return inner().WIDTH
        """,
        """
        from torch import nn
        def toy_width(x, width=3):
            return x * width
        TOY_WIDTH = 4
        class ToyNet(nn.Module):
            WIDTH = TOY_WIDTH
            width = 1
            def __init__(self, in_shape, out_shape, prm, device):
                super().__init__()
                self.width = toy_width(TOY_WIDTH, width=self.width)
                self.WIDTH = [WIDTH for WIDTH in (1, 2)]
            def forward(self, width):
                def inner():
                    return width
                return inner().WIDTH
        """,
    ),
    "a class body reads the module's name until it binds its own": (
        """
        import torch.nn as nn
        act = nn.ReLU
        class Net(nn.Module):
            first = act()
            act = act
            second = act()
        """,
        """
        from torch import nn
        TOY_ACT = nn.ReLU
        class ToyNet(nn.Module):
            first = TOY_ACT()
            act = TOY_ACT
            second = act()
        """,
    ),
    "annotations, in quotes too, and default arguments": (
        """
        from typing import List, Literal, Optional
        import torch.nn as nn
        from torch import Tensor
        class Block(nn.Module):
            def copy(self, other: "Block", kind: Literal["Block"] = "Block") -> "Optional[List[Block]]":
                block: Block = other
                return block
        class Net(nn.Module):
            def forward(self, x: Tensor, block=Block, blocks: List["Block"] = None):
                return block()
        """,
        """
        from typing import List, Literal, Optional
        from torch import Tensor, nn
        class ToyBlock(nn.Module):
            def copy(self, other: "ToyBlock", kind: Literal["Block"] = "Block") -> "Optional[List[ToyBlock]]":
                block: ToyBlock = other
                return block
        class ToyNet(nn.Module):
            def forward(self, x: Tensor, block=ToyBlock, blocks: List["ToyBlock"] = None):
                return block()
        """,
    ),
    "decorators, metaclasses and global statements": (
        """
        import functools
        import torch.nn as nn
        calls = 0
        class Meta(type):
            pass
        def counted(f):
            @functools.wraps(f)
            def run(*args):
                global calls
                calls += 1
                return f(*args)
            return run
        class Base(metaclass=Meta):
            pass
        class Net(nn.Module):
            base = Base
            @counted
            def forward(self, x):
                return x
        """,
        """
        import functools
        from torch import nn
        TOY_CALLS = 0
        class ToyMeta(type):
            pass
        def toy_counted(f):
            @functools.wraps(f)
            def run(*args):
                global TOY_CALLS
                TOY_CALLS += 1
                return f(*args)
            return run
        class ToyBase(metaclass=ToyMeta):
            pass
        class ToyNet(nn.Module):
            base = ToyBase
            @toy_counted
            def forward(self, x):
                return x
        """,
    ),
    "strings that name a function or class": (
        """
        from collections import namedtuple
        import sys
        import torch.fx
        import torch.nn as nn
        Out = namedtuple("Out", ["x"])
        def shuffle(x):
            return Out(x)
        torch.fx.wrap("shuffle")
        class Block(nn.Module):
            pass
        class Net(nn.Module):
            def forward(self, x):
                name = x.__class__.__name__
                if name == "Block" or type(x).__name__ in ("Block", "Conv2d"):
                    return globals()["shuffle"](x)
                if "Block" in globals():
                    return getattr(sys.modules[__name__], "Block")
                return "Block", {"shuffle": globals().get("Out")}
        """,
        """
        from collections import namedtuple
        import sys
        import torch.fx
        from torch import nn
        ToyOut = namedtuple("ToyOut", ["x"])
        def toy_shuffle(x):
            return ToyOut(x)
        torch.fx.wrap("toy_shuffle")
        class ToyBlock(nn.Module):
            pass
        class ToyNet(nn.Module):
            def forward(self, x):
                name = x.__class__.__name__
                if name == "ToyBlock" or type(x).__name__ in ("ToyBlock", "Conv2d"):
                    return globals()["toy_shuffle"](x)
                if "ToyBlock" in globals():
                    return getattr(sys.modules[__name__], "ToyBlock")
                return "Block", {"shuffle": globals().get("ToyOut")}
        """,
    ),
    "imports: the same for all, or bound to a name of the family's": (
        """
        import numpy as np
        import torch.nn as nn
        import torch.nn.functional as F
        import torch.utils.checkpoint as cp
        from torch.nn import Parameter, init
        from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation as SE
        from torchvision.models._utils import _make_divisible
        class Net(nn.Module):
            def forward(self, x):
                init.zeros_(x)
                y = cp.checkpoint(Parameter, np.ones(_make_divisible(x, 8)), SE)
                return F.relu(y, Conv2dNormActivation)
        """,
        """
        import numpy as np
        import torch.utils.checkpoint as toy_cp
        from torch import nn
        from torch.nn import Parameter, functional as F, init
        from torchvision.models._utils import _make_divisible
        from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation as ToySE
        class ToyNet(nn.Module):
            def forward(self, x):
                init.zeros_(x)
                y = toy_cp.checkpoint(Parameter, np.ones(_make_divisible(x, 8)), ToySE)
                return F.relu(y, Conv2dNormActivation)
        """,
    ),
    "a usual name for something unusual is the family's own": (
        """
        import torch.nn as nn
        import torchvision.transforms.functional as F
        from collections.abc import Sequence
        def partial(x):
            return F.hflip(x)
        class Net(nn.Module):
            def forward(self, x: Sequence):
                return partial(x)
        """,
        """
        from collections.abc import Sequence as ToySequence
        from torch import nn
        import torchvision.transforms.functional as toy_f
        def toy_partial(x):
            return toy_f.hflip(x)
        class ToyNet(nn.Module):
            def forward(self, x: ToySequence):
                return toy_partial(x)
        """,
    ),
    "an import that may fail stays where it is": (
        """
        import torch.nn as nn
        try:
            from torchvision.ops import MLP
        except ImportError:
            MLP = None
        class Net(nn.Module):
            mlp = MLP
        """,
        """
        from torch import nn
        try:
            from torchvision.ops import MLP as TOY_MLP
        except ImportError:
            TOY_MLP = None
        class ToyNet(nn.Module):
            mlp = TOY_MLP
        """,
    ),
    "what only training or pretrained weights need is left out": (
        '''
        """A family."""
        import re
        import torch.nn as nn
        from torchvision.models._api import WeightsEnum
        from torchvision.models._utils import _ovewrite_named_param
        __all__ = ["Net", "toynet"]
        SCALE = 2
        RATE = 0.1
        cfgs = {"a": [1]}
        cfgs["b"] = [2]
        unused = {}
        unused["a"] = 1
        def rate(prm):
            return RATE * prm['lr']
        def supported_hyperparameters():
            return {'lr', 'momentum'}
        class Net(nn.Module):

            def train_setup(self, prm):
                self.rate = rate(prm)

            def learn(self, train_data):
                self._one_step(train_data)

            def _one_step(self, batch):
                return re.sub("a", "b", batch)

            def forward(self, x):
                return self.scaled(x) * cfgs["b"][0]

            def scaled(self, x):
                return x * SCALE
        def _load(model, weights: WeightsEnum):
            return undefined_anywhere(model)
        def toynet(**kwargs):
            _ovewrite_named_param(kwargs, "a", 1)
            return _load(Net(**kwargs))
        if __name__ == "__main__":
            toynet()
        ''',
        """
        from torch import nn
        TOY_SCALE = 2
        TOY_CFGS = {"a": [1]}
        TOY_CFGS["b"] = [2]
        class ToyNet(nn.Module):

            def forward(self, x):
                return self.scaled(x) * TOY_CFGS["b"][0]

            def scaled(self, x):
                return x * TOY_SCALE
        """,
    ),
    "training methods that something else calls stay": (
        """
        import torch.nn as nn
        class Net(nn.Module):
            def train_setup(self, prm):
                self.rate = prm['lr']
            def reset(self, prm):
                self.train_setup(prm)
        """,
        """
        from torch import nn
        class ToyNet(nn.Module):
            def train_setup(self, prm):
                self.rate = prm['lr']
            def reset(self, prm):
                self.train_setup(prm)
        """,
    ),
    "names that would clash: within the family, with a local, with a prefix it has already": (
        """
        import torch.nn as nn
        class _Block(nn.Module):
            pass
        class Block(_Block):
            pass
        class ToyUnit(Block):
            pass
        def scale(x, toy_scale=2):
            return x * toy_scale
        class Net(nn.Module):
            def forward(self, x):
                toy_scale = ToyUnit()
                return scale(toy_scale)
        """,
        """
        from torch import nn
        class ToyBlock2(nn.Module):
            pass
        class ToyBlock(ToyBlock2):
            pass
        class ToyUnit(ToyBlock):
            pass
        def toy_scale_2(x, toy_scale=2):
            return x * toy_scale
        class ToyNet(nn.Module):
            def forward(self, x):
                toy_scale = ToyUnit()
                return toy_scale_2(toy_scale)
        """,
    ),
    "several statements on a line, tuples, loops, walrus and patterns": (
        """
        import torch.nn as nn
        a, b = 1, 2; c = 3; d = 4
        table = {}
        for i in range(a):
            table[i] = b
        class Net(nn.Module):
            def forward(self, x):
                if any((last := y) for y in x):
                    return last
                match x:
                    case [first, *rest] if first:
                        return rest, c
                return table
        """,
        """
        from torch import nn
        TOY_A, TOY_B = 1, 2; TOY_C = 3
        TOY_TABLE = {}
        for TOY_I in range(TOY_A):
            TOY_TABLE[TOY_I] = TOY_B
        class ToyNet(nn.Module):
            def forward(self, x):
                if any((last := y) for y in x):
                    return last
                match x:
                    case [first, *rest] if first:
                        return rest, TOY_C
                return TOY_TABLE
        """,
    ),
}


@pytest.fixture(autouse=True)
def untidied(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept and what it is called is shown apart from how it is tidied (``test_tidy.py``)."""
    monkeypatch.setattr("nngen.assembly.transformation.tidy", lambda body: body)


@pytest.mark.parametrize("name", CASES)
def test_before_and_after(name: str) -> None:
    before, after = CASES[name]
    expert = as_expert(before)
    written = write_imports(expert.imports).replace("\n\n", "\n") + "\n" + expert.body
    assert written == dedent(after).lstrip("\n")


def test_a_family_is_transformed_alike_wherever_it_stands() -> None:
    source = f"import torch.nn as nn\n{NET}"
    assert as_expert(source) == as_expert(source)
    assert as_expert(source, "BayesianNet-1").network == "BayesianNet1Net"


def test_postponed_annotations_are_asked_for() -> None:
    assert as_expert(f"from __future__ import annotations\nimport torch.nn as nn\n{NET}").postponed
    assert not as_expert(f"import torch.nn as nn\n{NET}").postponed


def test_an_expert_lists_what_it_binds() -> None:
    expert = as_expert(
        f"import math\nimport torch.nn as nn\nfrom torch.nn import ReLU\nRATE = math.pi\n{NET}        ReLU(RATE)\n"
    )
    assert expert.network == "ToyNet"
    assert expert.names == ("TOY_RATE", "ToyNet")
    assert expert.bound == {"TOY_RATE", "ToyNet", "ToyReLU"}
