"""Prompts and their budgets."""

from __future__ import annotations

from pathlib import Path

import pytest

from nngen.archive import Archive
from nngen.errors import RewriterError
from nngen.llm.prompts import MAX_EXAMPLES, estimate_tokens, load_prompts, prompt, render
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.plan import Plan
from nngen.surrogate.plan_text import plan_text
from nngen.testing.fakes import fake_record
from nngen.types import Candidate, Outcome, Shape, Trial, TrialSpec, Verdict

PLAN = Plan(experts=("A", "B", "C", "D"))

VALUES: dict[str, dict[str, object]] = {
    "plan": {
        "families": [{"name": f"Family{n}", "effect": "+0.1 [-0.2, +0.4] (12)"} for n in range(20)],
        "inseparable": ["Always (4)"],
        "unmeasured": ["Rare"],
        "numbers": [{"name": "recipe.mixup", "effect": "0 +0.4 +-0.9 (3), 0.1 -0.4 +-0.9 (3)"}] * 11,
        "pairs": [{"name": "A + B", "effect": "+0.3 [+0.1, +0.5] (4)"}] * 10,
        "noise": "4.0",
        "best": [{"accuracy": "0.9600", "text": plan_text(PLAN)}] * 3,
        "failures": ["A, B, C, D: shape, the message"],
        "tried": [{"edit": '{"recipe.mixup":0}', "gain": "+0.4, inside the noise"}],
        "parent": {"accuracy": "0.9500", "text": plan_text(PLAN), "edited": True},
    },
    "region": {"region": "gate", "purpose": "weighs", "accuracy": "0.9", "code": "class Gate:\n    pass"},
    "file": {"experts": ["A", "B"], "accuracy": "", "code": "x = 1"},
    "repair": {"message": "line 3: invalid syntax"},
    "accuracy": {"text": "{}", "dataset": "digits", "epochs": 2, "early": [{"epoch": 1, "accuracy": "0.9"}]},
    "code": {"dataset": "cifar-10", "epochs": 1, "hyperparameters": "lr 0.01", "code": "x = 1"},
    "source": {"text": "{}"},
    "delta": {"dataset": "digits", "epochs": 1, "hyperparameters": "", "accuracy": "0.9", "code": "x = 1"},
}


def test_every_shipped_prompt_is_rendered_here() -> None:
    assert set(load_prompts()) == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_a_prompt_renders_within_its_budget(name: str) -> None:
    asked = prompt(name)
    filled = render(asked, VALUES[name], estimate_tokens)
    assert filled.tokens <= asked.budget
    assert filled.prompt.startswith(f"{name}@{asked.version}-")
    assert filled.messages[-1].role == "user"
    assert "{{" not in filled.messages[-1].content


def test_items_that_do_not_fit_are_dropped_in_order_and_counted() -> None:
    filled = render(prompt("plan"), VALUES["plan"], estimate_tokens, 560)
    assert filled.tokens <= 560
    assert filled.omitted[:2] == ("1 of 1 failures", "10 of 10 pairs")
    assert "Improve on this plan" in filled.messages[-1].content


def test_a_prompt_over_its_budget_is_refused() -> None:
    with pytest.raises(RewriterError, match="over its budget of 20"):
        render(prompt("plan"), VALUES["plan"], estimate_tokens, 20)


def test_missing_and_unknown_inputs_are_refused() -> None:
    with pytest.raises(RewriterError, match=r"missing or unknown: \['message'\]"):
        render(prompt("repair"), {}, estimate_tokens)
    with pytest.raises(RewriterError, match="no prompt is called 'plam'"):
        prompt("plam")


HEAD = "version: 1\npurpose: p\noutput: plan\ninputs: [a]\nexamples: 0\nbudget: 9\ndrop: []\nsystem: s\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no head", "does not begin with a YAML head"),
        ("---\nversion: 1\n---\nbody", "the head must hold version, purpose"),
        (f"---\n{HEAD.replace('budget: 9', 'budget: much')}---\nbody", "budget is not of type int"),
        (f"---\n{HEAD.replace('examples: 0', 'examples: 4')}---\nbody", f"more than {MAX_EXAMPLES}"),
        (f"---\n{HEAD.replace('drop: []', 'drop: [b]')}---\nbody", "drop names b, not among the inputs"),
    ],
)
def test_a_broken_head_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.md.j2").write_text(text)
    with pytest.raises(RewriterError, match=message):
        load_prompts(tmp_path)


def test_an_empty_archive_gives_a_short_prompt() -> None:
    values = plan_values((), PlanSpace(families=("A", "B", "C", "D")))
    assert values["unmeasured"] == ["A", "B", "C", "D"]
    text = render(prompt("plan"), values, estimate_tokens).messages[-1].content
    assert text == "Families not trained yet: A, B, C, D\nWrite one new plan, better than these, as JSON on one line."


def test_a_family_of_every_trained_quartet_is_not_called_untrained() -> None:
    quartets = (("A", "B", "C", "D"), ("A", "B", "C", "E"), ("A", "B", "D", "E"), ("A", "C", "D", "E"))
    with Archive.in_memory() as archive:
        archive.add_campaign(fake_record("c"), [Plan(experts=quartet) for quartet in quartets])
        for trial in archive.trials():
            name = f"MoE4-{trial.position:032x}"
            archive.add_candidate(Candidate(id=name, source=name, canonical=name, plan=trial.plan))
            archive.start_trial(trial.id)
            result = Trial(
                candidate_id=name,
                spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=1),
                verdict=Verdict(outcome=Outcome.VALID),
                validation_accuracy=0.5 + trial.position / 10,
            )
            archive.finish_trial(trial.id, result)
        values = plan_values(archive.trials(), PlanSpace(families=("A", "B", "C", "D", "E", "F")))
    assert values["inseparable"] == ["A (4)"]
    assert values["unmeasured"] == ["F"]
    text = render(prompt("plan"), values, estimate_tokens).messages[-1].content
    assert "so that their effect is unknown, with the number of trials: A (4)" in text
    assert "Families not trained yet: F" in text
