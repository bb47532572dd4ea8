"""Text of a family's function, compared as a whole, and refusals with their lines."""

from __future__ import annotations

import pytest

from nngen.errors import AssemblyError
from nngen.families.catalogue import make_family
from nngen.families.family_function import FamilyFunction, family_function
from nngen.types import Record

NET = "class Net:\n    pass\n"
FUTURE = "from __future__ import annotations\n"


def as_function(source: str) -> FamilyFunction:
    return family_function(make_family("Toy", source))


EDITS = {
    "a line leaves with its comment and the blank lines behind it": (
        f"import os  # unused\n\n\nimport re\n\n{NET}",
        NET,
    ),
    "a statement of several lines leaves as a whole": (
        "a = 1\nfrom os import (\n    path,\n    sep,\n)  # both\n\n"
        "@property\ndef other(): pass\nclass Net:\n    b = a\n",
        "a = 1\n@property\ndef other(): pass\nclass Net:\n    b = a\n",
    ),
    "a statement beside another becomes pass": (
        "import os; import math; w = math.pi; import re\nclass Net:\n    x = w\n",
        "pass; import math; w = math.pi; pass\nclass Net:\n    x = w\n",
    ),
    "a statement behind a colon becomes pass": (
        "if True: import os\nclass Net:\n    def learn(self): pass\n    def forward(self): pass\n",
        "if True: import os\nclass Net:\n    def forward(self): pass\n",
    ),
    "columns count bytes": (
        "é = 'üü'; import os; import math; à = math.pi\nclass Net:\n    x = é, à\n",
        "é = 'üü'; pass; import math; à = math.pi\nclass Net:\n    x = é, à\n",
    ),
    "of an import the names stay that are needed": (
        "import os, math as m, re as r\nfrom a import b\nfrom math import (pi,\n    tau)\n"
        "class Net:\n    x = m.e, tau\n",
        "import math as m\nfrom math import tau\nclass Net:\n    x = m.e, tau\n",
    ),
    "what runs as a script leaves": (
        f'if "__main__" == __name__:\n    import timm\n{NET}',
        NET,
    ),
    "what only looks like a script stays": (
        f'if __name__ == "__main__":\n    x = 1\nelse:\n    x = 2\nif __name__ != "__main__":\n    y = 1\n'
        f'if __name__ == "nngen":\n    z = 1\nif name == "__main__":\n    z = 2\n{NET}',
        f'name: object  # bound later, if at all\nif __name__ == "__main__":\n    x = 1\nelse:\n    x = 2\n'
        f'if __name__ != "__main__":\n    y = 1\nif __name__ == "nngen":\n    z = 1\n'
        f'if name == "__main__":\n    z = 2\n{NET}',
    ),
    "import * becomes the names that are read": (
        "from math import *\nfrom torch.nn import *\nclass Net:\n    x = sqrt(pi), other.floor\n",
        "other: object  # bound later, if at all\n"
        "from math import pi, sqrt\npass\nclass Net:\n    x = sqrt(pi), other.floor\n",
    ),
    "global at the top changes nothing": (
        "global w\nif True:\n    global v\nw = 1\nclass Net:\n    x = w\n",
        "pass\nif True:\n    pass\nw = 1\nclass Net:\n    x = w\n",
    ),
    "global becomes nonlocal": (
        "n = 1\ndef f():\n    global n, m; n = m = 2\n"
        "class Net:\n    def g(self):\n        global k\n        k = f()\n",
        "k: object  # bound later, if at all\nm: object  # bound later, if at all\n"
        "n = 1\ndef f():\n    nonlocal n, m; n = m = 2\n"
        "class Net:\n    def g(self):\n        nonlocal k\n        k = f()\n",
    ),
    "annotations are put in quotes where they are postponed": (
        f"{FUTURE}class Net:\n    a: int\n    if a:\n        b: A[B] = 1\n"
        "    def f(self, x: A, *y: B, z: C = 1, **k: D) -> E:\n        w: F = x\n    async def g(self) -> 'H': pass\n"
        "c: G = 1\nprint(c)\n",
        "F: object  # bound later, if at all\nG: object  # bound later, if at all\n"
        "class Net:\n    a: 'int'\n    if a:\n        b: 'A[B]' = 1\n"
        "    def f(self, x: 'A', *y: 'B', z: 'C' = 1, **k: 'D') -> 'E':\n        w: F = x\n"
        "    async def g(self) -> \"'H'\": pass\n"
        "c: G = 1\nprint(c)\n",
    ),
    "annotations that a dataclass looks for stay": (
        f"{FUTURE}class Net:\n    a: ClassVar[A] = 1\n"
        "    b: t.InitVar[B]\n    _: KW_ONLY\n    c: t.ClassVar\n    d: X.y\n",
        "ClassVar: object  # bound later, if at all\nKW_ONLY: object  # bound later, if at all\n"
        "t: object  # bound later, if at all\nclass Net:\n    a: ClassVar['A'] = 1\n"
        "    b: t.InitVar['B']\n    _: KW_ONLY\n    c: t.ClassVar\n    d: 'X.y'\n",
    ),
    "annotations that are not postponed stay": (
        "class Net:\n    a: int = 1\n    def f(self, x: int) -> int: pass\n",
        "class Net:\n    a: int = 1\n    def f(self, x: int) -> int: pass\n",
    ),
    "annotations that TorchScript reads stay, others are put in quotes": (
        f"{FUTURE}from torch import Tensor, jit\nclass Net:\n    a: Tensor = 1\n"
        "    def f(self, x: Tensor, y: List[Tensor], z: 'Tensor' = 1) -> int:\n        return jit.script(x)\n",
        "from torch import Tensor, jit\nclass Net:\n    a: 'Tensor' = 1\n"
        "    def f(self, x: Tensor, y: 'List[Tensor]', z: \"'Tensor'\" = 1) -> int:\n        return jit.script(x)\n",
    ),
    "torch.fx.wrap leaves wherever it stands": (
        "import torch.fx\nfrom torch.fx import wrap as w, wrap\nw('f')\nwrap('f')\ntorch.fx.wrap('f')\n"
        "@torch.fx.wrap\ndef f(x): return x\n@ w\n@other\nclass Net:\n    g = f\n",
        "other: object  # bound later, if at all\nimport torch.fx\nfrom torch.fx import wrap as w, wrap\n\n"
        "def f(x): return x\n\n@other\nclass Net:\n    g = f\n",
    ),
    "a decorator on the first line": (
        "@torch.fx.wrap\ndef f(x): return x\nclass Net:\n    g = f\n",
        "def f(x): return x\nclass Net:\n    g = f\n",
    ),
    "other names of the future, and the name from elsewhere": (
        "from __future__ import division\nfrom typing import annotations\nclass Net:\n    a: int = annotations\n",
        "from typing import annotations\nclass Net:\n    a: int = annotations\n",
    ),
    "wrap of another module stays": (
        "from functools import wraps as wrap\n@wrap\ndef f(x): return x\nwrap('f')\nclass Net:\n    g = f\n",
        "from functools import wraps as wrap\n@wrap\ndef f(x): return x\nwrap('f')\nclass Net:\n    g = f\n",
    ),
    "lines inside of strings are not indented": (
        'a = """\n  b\n\n\n\nc"""\nclass Net:\n    x = a, \'d\\\ne\'\n',
        'a = """\n  b\n\n\n\nc"""\nclass Net:\n    x = a, \'d\\\ne\'\n',
    ),
    "blank lines are at most two": (
        "\n\n\x0c\na = 1\n\n\n\n   \nclass Net:\n\n\n    b = a\n\n\n",
        "a = 1\n\n\nclass Net:\n\n\n    b = a\n",
    ),
    "a byte order mark and other line ends": (
        "\ufeffa = '''\r\nb'''\rclass Net:\r\n    x = a\r\n",
        "a = '''\nb'''\nclass Net:\n    x = a\n",
    ),
}


def indented(text: str) -> str:
    """Indent a text with strings over lines of no more than a few known beginnings."""
    inside, lines = False, []
    for line in text.splitlines():
        lines.append(line if inside or not line else f"    {line}")
        inside = (
            (line.count("'''") + line.count('"""')) % 2 == 1 if not inside else not ("'''" in line or '"""' in line)
        )
        inside = inside or line.endswith("\\")
    return "\n".join(lines) + "\n\n    return Net\n"


@pytest.mark.parametrize("name", EDITS)
def test_the_body_is_the_source_but_for_what_only_a_module_holds(name: str) -> None:
    source, expected = EDITS[name]
    assert as_function(source).body == indented(expected)


def test_builtins_that_a_source_binds_become_parameters() -> None:
    function = as_function(
        "import os.path as open\nprint = id = 1\ndef f():\n    global sum, x\n    sum = x = max\nclass Net:\n"
        "    y = f, print, open, __file__\n    def g(self, min): return min, __class__\n"
    )
    assert function.parameters == ("id", "open", "print", "sum")
    head = (
        "@cache\ndef toy(id=id, open=open, print=print, sum=sum):\n    x: object  # bound later, if at all\n    import"
    )
    assert function.text("toy").startswith(head)
    plain = as_function(NET)
    assert (plain.parameters, plain.text("a")) == (
        (),
        "@cache\ndef a():\n    class Net:\n        pass\n\n    return Net\n",
    )


def test_a_function_knows_its_family_and_its_hyperparameters() -> None:
    best = Record(
        model="Toy", dataset="cifar-10", epoch=1, accuracy=0.5, duration_s=1.0, hyperparameters={"width": 3, "lr": 0.5}
    )
    source = f"def supported_hyperparameters():\n    return {{'width', 'lr', 'dropout'}}\n{NET}"
    family = make_family("Toy-1", source, best)
    function = family_function(family)
    assert (function.family, function.fingerprint) == ("Toy-1", family.fingerprint)
    assert function.hyperparameters == (("dropout", 0.2), ("lr", 0.5), ("width", 3))
    assert family_function(family, ["b", "a"]).hyperparameters == (("a", 0.1), ("b", 0.1))


BRINGS = "a mixture may only need torch, torchvision, numpy and the standard library"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "line 1: the source has no class Net"),
        ("x = (\n", "line 1: not Python: '(' was never closed"),
        ("x = 1\n  y = 2\n", "line 2: not Python: unexpected indent"),
        (
            "a" * 200_001,
            "line 1: not Python: longer than 200,000 characters, the most that is parsed outside of a worker",
        ),
        (f"import math\nimport os.path, timm.models\nprint(timm, math)\n{NET}", f"line 2: imports timm: {BRINGS}"),
        (f"from timm.models import x\nprint(x)\n{NET}", f"line 1: imports timm: {BRINGS}"),
        (f"\nfrom . import x\nprint(x)\n{NET}", "line 2: imports from its own package; a mixture stands alone"),
        (
            f"try:\n    from .math import *\nexcept ImportError:\n    pass\n{NET}",
            "line 2: import * hides which names it binds: name them",
        ),
        (f"\nfrom os import *\n{NET}", "line 2: import * hides which names it binds: name them"),
        (f"print(eval('1'))\n{NET}", "line 1: eval() looks names up that are not found inside a function"),
    ],
)
def test_a_refusal_names_the_family_and_the_line(source: str, message: str) -> None:
    with pytest.raises(AssemblyError) as refused:
        as_function(source)
    assert str(refused.value) == f"Toy: {message}"


@pytest.mark.parametrize(
    "source",
    [
        f"try:\n    import timm\nexcept ImportError:\n    from . import timm\n{NET}",
        f"try:\n    import timm\nexcept* ImportError:\n    pass\n{NET}",
        f"import typing\nif typing.TYPE_CHECKING:\n    import timm\n{NET}",
        "import numpy.linalg, torchvision.ops, sys\nfrom torch.nn import Module\n"
        f"print(numpy, torchvision, sys, Module)\n{NET}",
    ],
)
def test_imports_that_a_mixture_brings_or_that_may_fail_are_accepted(source: str) -> None:
    assert as_function(source).body == indented(source)


TRACED = "import torch.fx\n{wrap}\nclass Net:\n    def f(self):\n        return {trace}\n"


@pytest.mark.parametrize(
    "trace", ["torch.fx.symbolic_trace(g)", "Tracer", "x.create_feature_extractor", "get_graph_node_names"]
)
@pytest.mark.parametrize("wrap", ["torch.fx.wrap('g')", "@torch.fx.wrap\ndef g(x): pass"])
def test_tracing_is_refused_beside_what_is_wrapped_for_it(trace: str, wrap: str) -> None:
    source = TRACED.format(wrap=wrap, trace=trace)
    with pytest.raises(AssemblyError) as refused:
        as_function(source)
    line = source[: source.index(trace)].count("\n") + 1
    assert str(refused.value) == f"Toy: line {line}: traces what torch.fx.wrap marks, in a module alone"
    assert trace in as_function(TRACED.format(wrap="", trace=trace)).body
    assert "return 3" in as_function(TRACED.format(wrap=wrap, trace="3")).body
