"""Words, numbers and layout that a plan gives to its file."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from assembly_toys import make_family

from nngen.assembly.registries import GATES, GateNetwork
from nngen.assembly.render import _dictionary, _function_names, _summary, read_block
from nngen.assembly.template_context import definitions, number, template_context
from nngen.families.family_function import family_function
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate

HETERO = Plan(experts=tuple("ABCD"))
EQUAL = Plan(experts=("Dense",) * 9, kind="homogeneous")
ALONE = HETERO.alone("A")


def test_small_numbers_are_spelled() -> None:
    words = ["-1", "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "9", "10"]
    assert [number(count) for count in range(-1, 11)] == words


CONTEXTS: list[tuple[Plan, dict[str, Any]]] = [
    (
        HETERO,
        {
            "count": 4, "gated": True, "gate": {"noise": 0.1, "learned_noise": False, "k": 2},
            "gate_widths": (32, 64, 128), "gate_hidden": (32, 32), "log_temperature": 0.0, "log_noise": math.log(0.1),
            "top_k": False, "frozen": False, "calibrated": False, "routed": False, "routing_code": "",
            "losses": {"label_smoothing": 0.1, "bias": 0.0}, "terms": ["BALANCE * importance_loss(weights)"],
            "uses_probabilities": True, "rate_words": "a higher rate", "trained": "self.experts",
            "net_summary": "Four experts whose logits a gate blends with soft weights.",
        },
    ),
    (
        replace(
            EQUAL,
            gate=Gate(routing="top-k", k=3, width=5, depth=1, temperature=2.0, noise=0),
            losses=Losses(balance=0, bias=0.5),
            recipe=Recipe(gate_rate=1.0),
        ),
        {
            "count": 9, "gated": True, "gate": {"noise": 0.0, "learned_noise": False, "k": 3}, "gate_widths": (5,),
            "gate_hidden": (), "log_temperature": math.log(2), "log_noise": 0.0, "top_k": True, "frozen": False,
            "calibrated": False, "routed": True, "losses": {"label_smoothing": 0.1, "bias": 0.5}, "terms": [],
            "uses_probabilities": False, "rate_words": "the same rate",
            "trained": "nn.ModuleList([self.trunk, self.experts])",
            "net_summary": "9 equal experts over one trunk; a gate chooses three per image and blends their logits.",
        },
    ),
    (
        replace(
            HETERO,
            gate=Gate(network="calibrated", noise=0.5, temperature=0.5),
            losses=Losses(z=0.25, balance=0.125),
            recipe=Recipe(frozen=True, gate_rate=0.5),
        ),
        {
            "log_temperature": math.log(0.5), "log_noise": math.log(0.5), "top_k": False, "frozen": True,
            "calibrated": True, "routed": True, "rate_words": "a lower rate",
            "terms": ["BALANCE * importance_loss(probabilities)", "Z * z_loss(routing.clean)"],
            "net_summary":
                "Four experts that were trained alone and stay as they are; a gate blends their probabilities.",
        },
    ),
    (replace(HETERO, gate=Gate(learned_noise=True)), {"routed": True, "top_k": False}),
    (
        replace(ALONE, gate=Gate(routing="top-k", learned_noise=True, network="calibrated"), losses=Losses(z=1)),
        {
            "count": 1, "gated": False, "top_k": False, "calibrated": False, "routed": False, "routing_code": "",
            "loss_code": "", "terms": [], "uses_probabilities": False, "trained": "self.expert",
            "net_summary": "A family's network behind its adapter, trained with the recipe of mixtures.",
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("plan", "expected"), CONTEXTS)
def test_values_for_the_templates(plan: Plan, expected: dict[str, Any]) -> None:
    found = template_context(plan)
    assert {name: found[name] for name in expected} == expected


def test_constants_of_a_file() -> None:
    plan = replace(
        HETERO, gate=Gate(routing="top-k"), losses=Losses(switch=2, balance=0), recipe=Recipe(clip=3, warmup=0.5)
    )
    found = template_context(plan)
    assert [(item["name"], item["value"]) for item in found["constants"]] == [
        ("SWITCH", 2.0),
        ("CLIP", 3.0),
        ("WARMUP", 0.5),
        ("FLOOR", 0.01),
    ]
    assert found["recipe"] == {
        "optimizer": "adamw",
        "gate_rate": plan.recipe.gate_rate,
        "weight_decay": plan.recipe.weight_decay,
        "mixup": plan.recipe.mixup,
        "cutmix": 0.0,
        "ema": 0.0,
    }


def test_code_is_copied_where_it_is_needed() -> None:
    soft, top_k = template_context(HETERO), template_context(replace(HETERO, gate=Gate(routing="top-k")))
    noisy, alone = template_context(replace(HETERO, gate=Gate(learned_noise=True))), template_context(ALONE)

    def heads(code: str) -> list[str]:
        lines = (line.split("(")[0].rstrip(":") for line in code.splitlines())
        return [line for line in lines if line.startswith(("def ", "class "))]

    assert heads(top_k["routing_code"]) == ["class Routing", "def top_k_weights"]
    assert heads(noisy["routing_code"]) == ["class Routing"]
    assert heads(soft["loss_code"]) == ["def importance_loss"]
    assert heads(soft["diagnostics"]) == ["def soft_targets", "def batch_statistics", "def epoch_summary"]
    assert heads(alone["diagnostics"]) == ["def soft_targets"]


def test_definitions_are_read_by_name(tmp_path) -> None:
    file = tmp_path / "snippets.py"
    f, c = 'def f(x):\n    """F."""\n\n    return x', "class C:\n    x = 1"
    file.write_text(f'"""A file."""\n\nimport os\n\n\nX = 1\n\n\n{f}\n\n\n\n{c}\n\n\n# the end\n')
    assert definitions(file) == {"f": f, "C": c}


# Layout


def test_hyperparameters_stand_in_one_line_of_at_most_106_characters() -> None:
    assert _dictionary([("lr", 0.1), ("name", "x"), ("n", 2)]) == """{"lr": 0.1, "name": 'x', "n": 2}"""
    for length, whole in ((106, True), (107, False)):
        text = "x" * (length - len("""{"a": '', "b": 1}"""))
        expected = (
            f"""{{"a": '{text}', "b": 1}}"""
            if whole
            else f"""{{
            "a": '{text}',
            "b": 1,
        }}"""
        )
        assert _dictionary([("a", text), ("b", 1)]) == expected
    assert _dictionary([]) == "{}"


def test_lines_of_the_summary_have_at_most_110_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = set()
    for length in range(1, 60):
        monkeypatch.setitem(GATES, "own", GateNetwork(meaning="m" * length))
        lengths |= {len(line) for line in _summary(replace(HETERO, gate=Gate(network="own"))).splitlines()}
    assert max(lengths) == 110


def test_functions_have_names_of_their_own() -> None:
    source = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        return x\n"
    functions = [family_function(make_family(name, source)) for name in ("A-B", "A.B", "A_B", "Float", "C")]
    assert list(_function_names(functions).values()) == ["a_b", "a_b_2", "a_b_3", "float_2", "c"]


def test_a_block_tells_the_names_that_it_reads_and_binds() -> None:
    block = read_block("x = y.z + f(1)\n\n\ndef g(a):\n    return b")
    assert block.names == {"x", "y", "f", "b"}
    assert len(block.digests) == 2


@pytest.mark.parametrize(
    ("parts", "title"),
    [
        ({"experts": ("TinyConv", "TinyAux")}, "Mixture of two experts: TinyConv and TinyAux."),
        (
            {"experts": ("TinyAux", "TinyConv", "TinyAux", "TinyAux"), "repeats": True},
            "Mixture of four experts: TinyAux three times and TinyConv.",
        ),
        ({"experts": ("TinyAux", "TinyAux"), "repeats": True}, "Mixture of two experts: TinyAux two times."),
    ],
)
def test_the_title_of_a_file_names_its_experts(
    mix: Callable[..., Candidate], parts: dict[str, Any], title: str
) -> None:
    lines = mix(**parts).source.splitlines()
    assert lines[0] == f'"""{title}'
    families = len(set(parts["experts"]))
    summary = f"Written by nngen from {number(families)} model {'family' if families == 1 else 'families'} of LEMUR"
    assert lines[2].startswith(summary)
