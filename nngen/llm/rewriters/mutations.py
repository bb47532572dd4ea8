"""Changes a region without a model: interchangeable expressions, fractions and channel widths.

A site is an expression of the region that is listed in ``GROUPS``, a fraction, or a tuple of
channel widths. ``mutate_region`` changes one site, ``redraw_region`` draws every site anew. The
result may still fail the checks, which decide about it as about any other proposal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from random import Random

_PROGRESS = "min((done - WARMUP) / (1 - WARMUP), 1.0)"

GROUPS: tuple[tuple[str, ...], ...] = (
    # the gate
    ("nn.SiLU()", "nn.ReLU()", "nn.GELU()", "nn.ELU()", "nn.LeakyReLU(0.1)", "nn.Hardswish()", "nn.Mish()"),
    ("nn.GroupNorm(1, width)", "nn.GroupNorm(4, width)", "nn.BatchNorm2d(width)", "nn.Identity()"),
    ("nn.AdaptiveAvgPool2d(1)", "nn.AdaptiveMaxPool2d(1)"),
    (
        "nn.Conv2d(channels, width, kernel_size=3, stride=2, padding=1, bias=False)",
        "nn.Conv2d(channels, width, kernel_size=5, stride=2, padding=2, bias=False)",
        "nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=False)",
        "nn.Conv2d(channels, width, kernel_size=7, stride=4, padding=3, bias=False)",
    ),
    ("torch.randn_like(logits)", "torch.rand_like(logits)"),
    (
        "torch.softmax(logits / self.log_temperature.exp(), dim=-1)",
        "torch.softmax(logits * self.log_temperature.exp(), dim=-1)",
        "F.normalize(F.softplus(logits / self.log_temperature.exp()), p=1, dim=-1)",
        "torch.softmax(logits.clamp(-5, 5) / self.log_temperature.exp(), dim=-1)",
    ),
    # the mixing
    ("self.gate(x)", "F.dropout(self.gate(x), 0.1, self.training)", "self.gate(x).clamp(min=0.01)"),
    (
        "torch.stack(logits, dim=1)",
        "torch.stack(logits, dim=1).log_softmax(dim=-1)",
        "torch.stack(logits, dim=1).clamp(-10, 10)",
        "F.normalize(torch.stack(logits, dim=1), dim=-1)",
        "torch.stack(logits, dim=1).softmax(dim=-1)",
    ),
    ("weights.unsqueeze(-1)", "weights.sqrt().unsqueeze(-1)", "weights.square().unsqueeze(-1)", "weights[..., None]"),
    # the loss
    (
        "usage.var(unbiased=False) / usage.mean().square()",
        "usage.std(unbiased=False) / usage.mean()",
        "usage.max() - usage.min()",
        "(usage - usage.mean()).abs().sum()",
        "(usage - usage.mean()).square().sum()",
        "math.log(len(usage)) - torch.special.entr(usage).sum()",
    ),
    ("weights.mean(dim=0)", "weights.square().mean(dim=0).sqrt()", "weights.sum(dim=0) / len(weights)"),
    # the optimizer
    ("torch.optim.AdamW", "torch.optim.Adam", "torch.optim.NAdam", "torch.optim.RAdam", "torch.optim.Adamax"),
    ("list(experts.parameters())", "[p for p in experts.parameters() if p.requires_grad]"),
    # the schedule
    ("done / WARMUP", "(done / WARMUP) ** 2", "math.sqrt(done / WARMUP)", "math.sin(math.pi / 2 * done / WARMUP)"),
    (
        f"(1 + math.cos(math.pi * {_PROGRESS})) / 2",
        f"1 - {_PROGRESS}",
        f"(1 - {_PROGRESS}) ** 2",
        f"math.sqrt(1 - {_PROGRESS})",
        f"math.exp(-3 * {_PROGRESS})",
    ),
    # the augmentation
    (
        "torch.randperm(len(inputs), device=inputs.device)",
        "torch.arange(len(inputs), device=inputs.device).flip(0)",
        "torch.arange(len(inputs), device=inputs.device).roll(1)",
    ),
    (
        "inputs[partners]",
        "inputs[partners].flip(-1)",
        "inputs[partners].roll(1, -1)",
        "(inputs[partners] + torch.randn_like(inputs))",
    ),
    # the step
    (
        "nn.utils.clip_grad_norm_(self.parameters(), CLIP)",
        "nn.utils.clip_grad_value_(self.parameters(), CLIP)",
        "nn.utils.clip_grad_norm_(self.experts.parameters(), CLIP)",
    ),
    ("importance_loss(weights)", "importance_loss(weights).sqrt()", "importance_loss(weights.square())"),
)
"""Groups of interchangeable expressions; an expression stands in one group only."""

_SCALES = (0.25, 0.5, 2.0, 4.0)
_MAX = 100.0
_NEAR_ONE = (0.9, 0.95, 0.99, 0.999)
_WIDTHS = (8, 16, 32, 64)


def mutate_region(code: str, rng: Random) -> str | None:
    """Change one site of a region; None where the region has no site."""
    tree = ast.parse(code)
    sites = list(_sites(tree))
    if not sites:
        return None
    node, group = rng.choice(sites)
    return _write(tree, {node: rng.choice(group)})


def redraw_region(code: str, rng: Random) -> str | None:
    """Draw every site uniformly over its alternatives and itself; None where the region has no site."""
    tree = ast.parse(code)
    drawn = {node: rng.choice((ast.unparse(node), *group)) for node, group in _sites(tree)}
    return _write(tree, drawn) if drawn else None


def skeleton(code: str) -> str:
    """Write a region with every site blanked out: regions of one skeleton differ in table entries alone."""
    tree = ast.parse(code)
    return _write(tree, {node: repr(_kind(node, group)) for node, group in _sites(tree)})


def _kind(node: ast.expr, group: tuple[str, ...]) -> str:
    if isinstance(node, ast.Constant | ast.Tuple):
        return type(node).__name__
    return min(ast.unparse(node), *group)


def _sites(tree: ast.AST) -> Iterator[tuple[ast.expr, tuple[str, ...]]]:
    """Yield the sites of a tree with their alternatives, outermost first; sites do not nest."""
    if isinstance(tree, ast.expr):
        group = _alternatives(tree)
        if group:
            yield tree, group
            return
    for child in ast.iter_child_nodes(tree):
        yield from _sites(child)


def _alternatives(node: ast.expr) -> tuple[str, ...]:
    text = ast.unparse(node)
    group = _index().get(text)
    if group:
        return tuple(other for other in group if other != text)
    if isinstance(node, ast.Constant) and type(node.value) is float and 0 < node.value < _MAX:
        if 0.9 <= node.value < 1:
            return tuple(repr(value) for value in _NEAR_ONE if value != node.value)
        # A float stays a float: an integer could not be changed again.
        return tuple(repr(float(f"{node.value * scale:.6g}")) for scale in _SCALES if node.value * scale < _MAX)
    if isinstance(node, ast.Tuple) and all(
        isinstance(item, ast.Constant) and type(item.value) is int for item in node.elts
    ):
        rows = [f"({', '.join(str(width * 2**k) for k in range(depth))},)" for width in _WIDTHS for depth in (1, 2, 3)]
        return tuple(other for row in rows if (other := ast.unparse(ast.parse(row))) != text)
    return ()


@lru_cache(maxsize=1)
def _index() -> dict[str, tuple[str, ...]]:
    normal = [tuple(ast.unparse(ast.parse(text, mode="eval")) for text in group) for group in GROUPS]
    return {text: group for group in normal for text in group}


def _write(tree: ast.AST, drawn: dict[ast.expr, str]) -> str:
    class Exchange(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if isinstance(node, ast.expr) and node in drawn:
                return ast.parse(drawn[node], mode="eval").body
            return self.generic_visit(node)

    return ast.unparse(Exchange().visit(tree))
