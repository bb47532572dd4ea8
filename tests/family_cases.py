"""Small families, each with one construct that is hard to transform; most check themselves and raise."""

from __future__ import annotations

from textwrap import dedent, indent

__all__ = ["EQUAL", "REFUSED", "family_source"]

_NET = """
def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        self.body = nn.Conv2d(in_shape[1], 8, 3, padding=1)
        self.fc = nn.Linear(8, out_shape[0])
__INIT__
    def forward(self, x):
        x = torch.relu(self.body(x))
        return self.fc(x.mean((2, 3)))

    def train_setup(self, prm):
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimizer.zero_grad()
            self.criterion(self(images), labels).backward()
            self.optimizer.step()
"""


def family_source(head: str = "", init: str = "", first: str = "") -> str:
    """Write a family.

    Args:
        head: Statements of the module, before ``Net``.
        init: Statements at the end of ``Net.__init__``.
        first: Statements before the imports.
    """
    net = _NET.replace("__INIT__", indent(dedent(init), " " * 8))
    return f"{first}import torch\nfrom torch import nn\n{dedent(head)}{net}"


EQUAL = {
    # Names of classes and attributes are data to these.
    "a class by the start of its name": family_source(
        """
        class ConvBlock(nn.Module):
            def __init__(self, a, b):
                super().__init__()
                self.scale = nn.Parameter(torch.zeros(1))
                self.conv = nn.Conv2d(a, b, 3)
            def forward(self, x):
                return self.conv(x) * self.scale
        def start(module):
            if module.__class__.__name__.startswith("ConvB"):
                nn.init.ones_(module.scale)
        """,
        "self.body = ConvBlock(in_shape[1], 8)\nself.apply(start)\nassert float(self.body.scale.detach()) == 1.0",
    ),
    "a table of classes by name": family_source(
        """
        class Plain(nn.Conv2d):
            pass
        class Wide(nn.Conv2d):
            pass
        KINDS = {kind.__name__: kind for kind in (Plain, Wide)}
        """,
        'self.body = KINDS["Wide"](in_shape[1], 8, 3)',
    ),
    "a registry that a decorator fills": family_source(
        """
        BLOCKS = {}
        def register(name):
            def wrap(kind):
                BLOCKS[name] = kind
                return kind
            return wrap
        @register("plain")
        class Plain(nn.Conv2d):
            pass
        """,
        'self.body = BLOCKS["plain"](in_shape[1], 8, 3)',
    ),
    "a registry of subclasses": family_source(
        """
        class Base(nn.Conv2d):
            kinds = []
            def __init_subclass__(cls):
                Base.kinds.append(cls)
        class Plain(Base):
            pass
        """,
        "self.body = Base.kinds[0](in_shape[1], 8, 3)\nassert Base.__subclasses__() == Base.kinds",
    ),
    "attributes by a made-up name": family_source(
        init="self.convBlock1 = self.body\nself.body = getattr(self, f'convBlock{1}')"
    ),
    "parameters frozen by name": family_source(
        init="""
        self.backBone = nn.Linear(2, 2)
        for name, parameter in self.named_parameters():
            parameter.requires_grad = "Bone" not in name
        assert not self.backBone.weight.requires_grad
        """
    ),
    "a private name of a base class": family_source(
        """
        class Base(nn.Conv2d):
            def __init__(self, a, b):
                super().__init__(a, b, 3)
                self.__gain = 2.0
        class Louder(Base):
            def forward(self, x):
                return super().forward(x) * self._Base__gain
        """,
        "self.body = Louder(in_shape[1], 8)",
    ),
    "a private name of the module": family_source(
        """
        __width = 8
        def width():
            return __width
        """,
        "self.body = nn.Conv2d(in_shape[1], width(), 3)",
    ),
    "an attribute made on first use": family_source(
        """
        class Window(nn.Conv2d):
            def forward(self, x):
                x = super().forward(x)
                try:
                    return x * self.rows
                except AttributeError:
                    self.rows = torch.hann_window(x.shape[2]).view(1, 1, -1, 1)
                    return x * self.rows
        """,
        "self.body = Window(in_shape[1], 8, 3)",
    ),
    "a pattern that names an attribute": family_source(
        """
        class Step(nn.Conv2d):
            kind = "plain"
        def widths(step):
            match step:
                case Step(kind="plain", out_channels=width):
                    return width
        """,
        "self.body = Step(in_shape[1], 8, 3)\nassert widths(self.body) == 8",
    ),
    # The order and number of effects.
    "a list that is built for its effects": family_source(
        """
        class Grown(nn.Sequential):
            def add(self, layer):
                self.append(layer)
                return True
        """,
        """
        self.body = Grown()
        any([self.body.add(nn.Conv2d(a, 8, 3)) for a in (in_shape[1], 8)])
        assert len(self.body) == 2
        """,
    ),
    "a flag that is saved and restored": family_source(
        """
        class Plain(nn.Conv2d):
            def forward(self, x):
                before = torch.backends.mkldnn.enabled
                torch.backends.mkldnn.enabled = False
                x = super().forward(x)
                torch.backends.mkldnn.enabled = before
                return x
        """,
        "self.body = Plain(in_shape[1], 8, 3)",
    ),
    "a seed of its own": family_source("torch.manual_seed(42)"),
    "draws of the module": family_source(
        """
        UNUSED = torch.rand(3)
        SCALE = torch.rand(8)
        def unused(noise=torch.rand(3)):
            return noise
        """,
        "with torch.no_grad():\n    self.body.bias.mul_(SCALE)",
    ),
    "a default that is drawn": family_source(
        "def unused(noise=torch.rand(3)):\n    return noise\nLATER = torch.rand(1)", "self.body.bias.data += LATER"
    ),
    "lazy layers": family_source(init="self.body = nn.LazyConv2d(8, 3)\nself.fc = nn.LazyLinear(out_shape[0])"),
    "a dispatch by type": family_source(
        """
        from functools import singledispatch
        @singledispatch
        def start(module):
            return None
        @start.register
        def _(module: nn.Conv2d):
            nn.init.constant_(module.weight, 0.02)
        """,
        "self.apply(start)\nassert not self.body.weight.detach().ne(0.02).any()",
    ),
    "values of the trial": family_source(init="self.side = prm['batch'] * prm['epoch'] * len(prm['transform'])"),
    # Calls that PyTorch makes.
    "calls of torch by keyword": family_source(
        """
        class Layer(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm = nn.LayerNorm(8)
                self.self_attn = nn.MultiheadAttention(8, 2, batch_first=True)
            def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
                return src + self.norm(src)
        """,
        "self.more = nn.TransformerEncoder(Layer(), 2, enable_nested_tensor=False)\nself.more(torch.rand(1, 2, 8))",
    ),
    "a factory that torchvision calls": family_source(
        """
        from torchvision.ops.misc import Conv2dNormActivation
        def smooth(inplace=False):
            return nn.SiLU()
        """,
        "self.body = Conv2dNormActivation(in_shape[1], 8, activation_layer=smooth)",
    ),
    "symbolic tracing": family_source(
        """
        import torch.fx
        class Body(nn.Module):
            def __init__(self, a, b):
                super().__init__()
                self.conv = nn.Conv2d(a, b, 3)
            def forward(self, x):
                torch._assert(x.dim() == 4, "four axes are needed")
                return self.conv(x)
        """,
        "self.body = torch.fx.symbolic_trace(Body(in_shape[1], 8))",
    ),
    "torch.fx.wrap": family_source(
        """
        import torch.fx
        from torch.fx import wrap
        def scale(x):
            return x * 2
        torch.fx.wrap("scale")
        @wrap
        def shift(x):
            return x + 1
        class Body(nn.Conv2d):
            def forward(self, x):
                return shift(scale(super().forward(x)))
        """,
        "self.body = Body(in_shape[1], 8, 3)",
    ),
    "TorchScript": family_source(
        """
        @torch.jit.script
        def scale(x: torch.Tensor, by: float) -> torch.Tensor:
            return x * by
        class Body(nn.Conv2d):
            def forward(self, x):
                return scale(super().forward(x), 2.0)
        """,
        "self.body = Body(in_shape[1], 8, 3)",
    ),
    "TorchScript with postponed annotations": family_source(
        """
        from torch import Tensor
        class Body(nn.Conv2d):
            def forward(self, x: Tensor, by: float = 2.0) -> Tensor:
                return super().forward(x) * by
        class Scaled(nn.Module):
            def __init__(self, a, b):
                super().__init__()
                self.conv = nn.Conv2d(a, b, 3)
            def forward(self, x: Tensor, later: Later | None = None) -> Tensor:
                return self.conv(x)
        Later = int
        @torch.jit.script
        def double(x: Tensor) -> Tensor:
            return x * 2
        """,
        """
        self.body = Body(in_shape[1], 8, 3)
        assert Scaled.forward.__annotations__["later"] == "Later | None"
        assert double(torch.ones(1)) == 2
        """,
        first="from __future__ import annotations\n",
    ),
    # Tensors of other kinds.
    "a sparse buffer": family_source(
        init="self.register_buffer('graph', torch.eye(8).to_sparse())\nself.mixed = nn.Linear(8, 8)"
    ).replace("x.mean((2, 3)))", "torch.sparse.mm(self.graph, x.mean((2, 3)).T).T)"),
    "a class of tensors": family_source(
        "class Named(torch.Tensor):\n    pass", "self.kind = Named"
    ).replace("x.mean((2, 3)))", "x.mean((2, 3)).as_subclass(self.kind))"),
    # Methods that torch calls.
    "modes that return nothing": family_source().replace(
        "    def train_setup", "    def train(self, mode=True):\n        super().train(mode)\n\n    def train_setup"
    ),
    "a call of its own": family_source().replace(
        "    def train_setup", "    def __call__(self, x):\n        return self.forward(x)\n\n    def train_setup"
    ),
    # Annotations.
    "an inner function's annotation": family_source(
        """
        def make(a, b):
            Kind = nn.Conv2d
            def build(kernel: int) -> Kind:
                return nn.Conv2d(a, b, kernel)
            return build(3)
        """,
        "self.body = make(in_shape[1], 8)",
    ),
    "annotations that are called": family_source(
        """
        from dataclasses import dataclass, fields
        @dataclass
        class Config:
            width: int = 4
        """,
        "self.widths = [item.type('8') for item in fields(Config)]\nassert self.widths == [8]",
    ),
    "postponed annotations": family_source(
        """
        from dataclasses import KW_ONLY, InitVar, dataclass, fields
        import typing
        @dataclass
        class Config:
            width: Later = 8
            _: KW_ONLY
            shared: typing.ClassVar[Later] = 3
            given: InitVar[int] = 1
            def late(self, x: Later) -> dict[str, Later]:
                return x
        class Later:
            pass
        """,
        """
        assert [(item.name, item.type) for item in fields(Config)] == [("width", "Later")]
        assert Config.late.__annotations__ == {"x": "Later", "return": "dict[str, Later]"}
        """,
        first="from __future__ import annotations\n",
    ),
    # Names of the module.
    "global variables": family_source(
        """
        calls = 0
        def counted():
            global calls, made
            calls, made = calls + 1, True
            return calls
        class Counter:
            global total
            total = 5
        """,
        "assert counted() + counted() == 3 and made and total == 5 and calls == 2",
    ),
    "a global statement of the module": family_source("global width\nwidth = 8", "assert width == 8"),
    "builtins under other meanings": family_source(
        """
        from functools import partial
        print = partial(print, end="")
        try:
            range = xrange
        except NameError:
            pass
        max = max
        """,
        "print()\nassert list(range(2)) == [0, 1] and max(1, 2) == 2",
    ),
    "names bound nowhere": family_source(
        """
        def broken():
            return Gate(EXPERTS)
        """,
        "try:\n    broken()\n    raise RuntimeError\nexcept NameError:\n    pass\nself.broken = broken",
    ),
    "names that leave": family_source(
        """
        for index in range(3):
            pass
        del index
        try:
            raise ValueError
        except ValueError as error:
            kept = error
        """,
        "try:\n    index\n    raise RuntimeError\nexcept NameError:\n    self.kept = kept.__class__.__name__",
    ),
    "names of the mixture's own": family_source(
        """
        class Gate(nn.Conv2d):
            pass
        class Adapter(Gate):
            pass
        F = nn.functional
        math = 3
        """,
        "self.body = Adapter(in_shape[1], 8, math)\nF.relu(self.body.weight)",
    ),
    "import *": family_source(
        """
        from math import *
        from torch.nn import *
        """,
        "self.body = Conv2d(in_shape[1], int(sqrt(64)), 3)\nself.soft = Softmax(dim=1)",
    ),
    "an import that may fail": family_source(
        """
        try:
            from torchvision.ops import NoSuchThing as MLP
        except ImportError:
            MLP = None
        """,
        "assert MLP is None",
    ),
    "classes that bind names of the module after reading them elsewhere": family_source(
        """
        width = 8
        class Config:
            other = width + 1
            widths = [width for _ in range(2)]
            def width_of(self, width=width):
                return width
            def pool(self):
                return 1
            pooled = pool
        """,
        "assert Config().width_of() == 8 and Config.widths == [8, 8]",
    ),
    "recursion, closures and walrus": family_source(
        """
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        found = [last := n for n in range(3)]
        def counter():
            count = 0
            def step():
                nonlocal count
                count += 1
                return count
            return step
        """,
        "assert depth(3) == 3 and last == 2 and counter()() == 1",
    ),
    # The text.
    "strings over several lines": family_source(
        '''
        """About: no docstring
          of the module."""
        TEXT = """a
            b
        c\\
        d"""
        FORM = f"""{len(
            TEXT)}
         e"""
        ''',
        "assert TEXT == 'a\\n    b\\nc' + 'd' and FORM == f'{len(TEXT)}\\n e', (TEXT, FORM)",
    ),
    "a byte order mark, tabs, form feeds and other line ends": "\ufeff"
    + family_source(
        "def tabbed():\n\tif True:\n\t\treturn 8\n\x0c\nwidth = 1 + \\\n  tabbed()\n", "assert width == 9"
    ).replace("\n", "\r\n"),
    "several statements on a line": family_source(
        "import os; import math; width = 8; import re; unused = 3\n",
        "assert width == 8",
        first="from __future__ import annotations; import sys\n",
    ),
    "an unused import beside a used one": family_source("from math import floor, sqrt\nimport os, re\n", "sqrt(4)"),
    "an import for type checkers": family_source(
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import timm
        """,
        "assert not TYPE_CHECKING",
    ),
    "stubs inside of a class that nothing needs": family_source(
        """
        class Unused:
            @torch.jit._overload_method
            def forward(self, x: int) -> int:
                pass
            def forward(self, x):
                return x
        width = 8
        class Used(nn.Conv2d):
            @torch.jit._overload_method
            def forward(self, x: int) -> int:
                pass
            def forward(self, x):
                return super().forward(x)
        """,
        "self.body = Used(in_shape[1], width, 3)",
    ),
    "what runs as a script": family_source(
        'if __name__ == "__main__":\n    import matplotlib\n', ""
    ) + 'if __name__ == "__main__":\n    print(Net)\n',
}  # fmt: skip
"""Families that are as experts what they are alone."""


def _forward(expression: str, head: str = "") -> str:
    return (
        f"{head}import torch.nn as nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {expression}\n"
    )


REFUSED = {
    "syntax": ("import torch\ndef f(:\n    pass\n", "line 2: not Python"),
    "no Net": ("import torch\n", "line 1: the source has no class Net"),
    "nothing": ("", "line 1: the source has no class Net"),
    "eval": (_forward("eval('x')"), "line 4: eval() looks names up"),
    "exec": (_forward("exec('y = x')"), "line 4: exec() looks names up"),
    "globals": (_forward("globals()[x]"), "line 4: globals() gives the names of the mixture's file"),
    "globals of a function": (_forward("self.forward.__globals__"), "line 4: __globals__ gives the names"),
    "locals": (_forward("locals()"), "line 4: locals() gives other names"),
    "vars": (_forward("names", "names = vars()\n"), "line 1: vars() gives other names"),
    "sys.modules": (_forward("sys.modules[__name__]", "import sys\n"), "line 5: names looked up in sys.modules"),
    "modules of sys": (_forward("modules", "from sys import modules\n"), "line 1: names looked up in sys.modules"),
    "frames": (_forward("sys._getframe()", "import sys\n"), "line 5: a look at the call stack"),
    "__qualname__": (_forward("type(x).__qualname__ == 'Net'"), "line 4: __qualname__ is another"),
    "a class that reads and binds a name": (
        _forward("Config.size", "size = 3\nclass Config:\n    size = size\n"),
        "line 3: the class reads the module's 'size' and binds the same name",
    ),
    "a class that may not have bound a name": (
        _forward("Config.size", "size = 3\nclass Config:\n    if size:\n        size = 4\n    other = size\n"),
        "line 3: the class reads the module's 'size'",
    ),
    "a method's default of the method's name": (
        _forward("Config.pool", "def pool(): pass\nclass Config:\n    def pool(self, f=pool): pass\n"),
        "line 3: the class reads the module's 'pool'",
    ),
    "global behind a local": (
        _forward("f", "n = 1\ndef f():\n    n = 2\n    def g():\n        global n\n        n = 3\n    return g\n"),
        "line 5: global n in a function inside another that has a 'n' of its own",
    ),
    "quotes for a dataclass": (
        _forward("Config", "from typing import ClassVar\nclass Config:\n    size: 'ClassVar[int]' = 3\n"),
        "line 3: a dataclass does not find 'ClassVar[int]'",
    ),
    "quotes that are looked up": (
        _forward("f", "import typing\ndef f(x: 'Net'): pass\nhints = typing.get_type_hints(f)\n")
        + "        return hints\n",
        "line 3: get_type_hints looks annotations in quotes up",
    ),
    "tracing of wrapped functions": (
        _forward("fx.symbolic_trace(f)", "from torch import fx\ndef f(x): return x\nfx.wrap('f')\n"),
        "line 7: traces what torch.fx.wrap marks",
    ),
    "import * of anything": (_forward("x", "from torch.distributed import *\n"), "line 1: import * hides"),
    "a package": (_forward("timm.create(x)", "import timm\n"), "line 1: imports timm"),
    "a package, inside": (_forward("x").replace("        r", "        import timm\n        r"), "line 4: imports timm"),
    "its own package": (_forward("Block(x)", "from .layers import Block\n"), "line 1: imports from its own package"),
}
"""Families that cannot become experts, with the message behind the family's name."""
