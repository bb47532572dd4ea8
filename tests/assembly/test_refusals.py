"""Sources that cannot become experts: one clear line that names family and line."""

from __future__ import annotations

import pytest
from assembly_toys import as_expert

from nngen.errors import AssemblyError

NET = "import torch.nn as nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return {}\n"

CASES = {
    "syntax": ("import torch\ndef f(:\n    pass\n", "Toy: line 2: not Python"),
    "no Net": ("import torch\n", "Toy: line 1: the source has no class Net"),
    "nothing": ("", "Toy: line 1: the source has no class Net"),
    "star": ("import torch\nfrom torch.nn import *\n" + NET.format("x"), "Toy: line 2: import * hides"),
    "unbound": (NET.format("made_later(x)"), "Toy: line 4: the name 'made_later' is bound nowhere"),
    "eval": (NET.format("eval('x')"), "Toy: line 4: eval() runs code"),
    "exec": (NET.format("exec('y = x')"), "Toy: line 4: exec() runs code"),
    "globals": (NET.format("globals()[x]"), "Toy: line 4: names looked up in the module's namespace"),
    "globals, unknown": (NET.format("globals()['made_later']"), "Toy: line 4: the name 'made_later' only exists"),
    "globals, written": ("globals()['made'] = 1\n" + NET.format("x"), "Toy: line 1: the name 'made' only exists"),
    "vars": ("names = vars()\n" + NET.format("names"), "Toy: line 1: names looked up in the module's namespace"),
    "sys.modules": (
        "import sys\n" + NET.format("getattr(sys.modules[__name__], x)"),
        "Toy: line 5: names looked up in sys.modules",
    ),
    "wrap": (
        "import torch.fx\n" + NET.format("x") + "torch.fx.wrap('f')\n",
        "Toy: line 6: the name 'f' is bound nowhere",
    ),
    "package": (NET.format("timm.create(x)").replace("import", "import timm\nimport", 1), "Toy: line 1: imports timm"),
    "package, inside": (
        NET.format("x").replace("        r", "        import timm\n        r"),
        "Toy: line 4: imports timm",
    ),
    "own package": (
        "from .layers import Block\n" + NET.format("Block(x)"),
        "Toy: line 1: imports from its own package",
    ),
    "a module's name": ("import math\nmath = math.pi\n" + NET.format("math"), "Toy: line 1: binds a module's name"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_source_that_cannot_become_an_expert_is_refused(name: str) -> None:
    source, message = CASES[name]
    with pytest.raises(AssemblyError) as caught:
        as_expert(source)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "unused",
    [
        "def factory():\n    return made_later()\n",
        "def factory():\n    return eval('Net')\n",
        "import timm\ndef factory():\n    return timm.create()\n",
        "def factory(name):\n    return globals()[name]()\n",
    ],
)
def test_what_is_left_out_anyway_is_not_judged(unused: str) -> None:
    assert as_expert(unused + NET.format("x")).names == ("ToyNet",)
