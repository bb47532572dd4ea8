"""Valid and invalid cases of every check rule."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nngen.assembly.assemble import assemble
from nngen.assembly.plan_toml import preset
from nngen.checks import static_check
from nngen.checks.dynamic import dynamic_check, dynamic_rules
from nngen.checks.rule import CheckFailed, DynamicRule, Invalid, StaticRule
from nngen.checks.rules import static
from nngen.checks.source import Source
from nngen.checks.static import static_rules
from nngen.types import Outcome, Shape, Verdict

SHAPE = Shape(1, 4, 4)


def _name(value: object) -> str:
    return getattr(value, "name", None) or getattr(value, "message", "") or "source"


def _check(source: str, folder: Path) -> Verdict:
    path = folder / "candidate.py"
    path.write_text(source)
    return dynamic_check(path, shape=SHAPE, classes=10)


def _agrees(verdict: Verdict, rule: str, invalid: Invalid) -> None:
    assert verdict.rule == rule
    assert verdict.outcome is invalid.outcome
    assert invalid.message in verdict.message
    assert "\n" not in verdict.message
    if invalid.line is not None:
        assert verdict.line == invalid.line
        assert verdict.message.startswith(f"line {invalid.line}: ")


@pytest.mark.parametrize("rule", static_rules(), ids=_name)
def test_static_rule_accepts_its_valid_cases(rule: StaticRule) -> None:
    assert rule.VALID
    for source in rule.VALID:
        rule.check(Source(source))


@pytest.mark.parametrize(
    ("rule", "invalid"), [(rule, case) for rule in static_rules() for case in rule.INVALID], ids=_name
)
def test_static_rule_refuses_its_invalid_cases(rule: StaticRule, invalid: Invalid) -> None:
    with pytest.raises(CheckFailed) as refused:
        rule.check(Source(invalid.source))
    _agrees(refused.value.verdict, rule.name, invalid)


@pytest.mark.parametrize(
    ("rule", "source"), [(rule, source) for rule in dynamic_rules() for source in rule.VALID], ids=_name
)
def test_dynamic_rules_accept_the_valid_cases(rule: DynamicRule, source: str, tmp_path: Path) -> None:
    assert static_check(source).valid
    assert _check(source, tmp_path) == Verdict(outcome=Outcome.VALID)


@pytest.mark.parametrize(
    ("rule", "invalid"), [(rule, case) for rule in dynamic_rules() for case in rule.INVALID], ids=_name
)
def test_dynamic_rule_refuses_its_invalid_cases(rule: DynamicRule, invalid: Invalid, tmp_path: Path) -> None:
    _agrees(_check(invalid.source, tmp_path), rule.name, invalid)


def test_every_rule_has_cases_a_name_and_a_place_of_its_own() -> None:
    for rules in (static_rules(), dynamic_rules()):
        assert len({rule.order for rule in rules}) == len(rules)
    rules = [*static_rules(), *dynamic_rules()]
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.VALID and rule.INVALID for rule in rules)


@pytest.mark.long
@pytest.mark.parametrize(("noise", "k"), [(0.0, 1), (0.0, 2), (0.5, 2)])
def test_a_gate_that_begins_with_few_of_its_experts_starves_none(noise: float, k: int, tmp_path: Path) -> None:
    """Two batches of four reach about five of eight experts by chance, which is not a fault."""
    base = preset("moev7")
    losses = replace(base.losses, load=0.0)
    plan = replace(base, gate=replace(base.gate, noise=noise, k=k), losses=losses)
    path = tmp_path / "candidate.py"
    path.write_text(assemble(plan, []).source)
    for seed in range(3):
        torch.manual_seed(seed)
        assert dynamic_check(path, shape=Shape(1, 8, 8), classes=10, hyperparameters={}) == Verdict(
            outcome=Outcome.VALID
        )


TOY = """
import ast
from typing import ClassVar

from nngen.checks.rule import Invalid, StaticRule, fail
from nngen.checks.source import Source
from nngen.types import Outcome


class NoLambda(StaticRule):
    name: ClassVar[str] = "no-lambda"
    order: ClassVar[int] = 15
    VALID: ClassVar[tuple[str, ...]] = ("x = 1",)
    INVALID: ClassVar[tuple[Invalid, ...]] = (
        Invalid(source="f = lambda: 1", message="lambda", outcome=Outcome.FORBIDDEN, line=1),
    )

    def check(self, source: Source) -> None:
        for node in source.nodes:
            if isinstance(node, ast.Lambda):
                raise fail(Outcome.FORBIDDEN, self.name, "remove the lambda", line=node.lineno)
"""


def test_one_file_adds_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "f = lambda: 1"
    assert static_check(source).rule == "contract"
    before = list(static_rules())
    (tmp_path / "no_lambda.py").write_text(TOY)
    # Content of a file in nngen/checks/rules/static.
    monkeypatch.setattr(static, "__path__", [*static.__path__, str(tmp_path)])
    static_rules.cache_clear()
    try:
        (toy,) = (rule for rule in static_rules() if rule.name == "no-lambda")
        names = [rule.name for rule in sorted([*before, toy], key=lambda rule: rule.order)]
        assert [rule.name for rule in static_rules()] == names
        assert names.index("syntax") < names.index("no-lambda") < names.index("forbidden")
        _agrees(static_check(source), "no-lambda", toy.INVALID[0])
    finally:
        static_rules.cache_clear()
