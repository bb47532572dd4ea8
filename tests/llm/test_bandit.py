"""Rewriters that ask others: the bandit and the hybrid; and the draws of TPE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
from optional import needs

from nngen.errors import MissingExtraError, RewriterError
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.bandit import Bandit, Hybrid, Sequential
from nngen.llm.rewriters.base import Kind, Lessons, Message, Options, Reply, Request
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.factory import open_rewriter, rewriters_in, tunable_base
from nngen.plan import Gate, Plan
from nngen.surrogate.plan_text import plan_text

SPACE = PlanSpace(families=tuple("ABCDEFGH"))
optuna = needs("tpe", "optuna")


class Model:
    """Stand-in for a model: answers with its name, and keeps the requests."""

    trusted = False
    context = 2048

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, list[Request]()

    def tokens(self, text: str) -> int:
        return 7

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked += requests
        return [Reply(text=self.name) for _ in requests]


def ask(count: int, **more: Any) -> list[Request]:
    return [Request(kind=Kind.PLAN, messages=(), seed=seed, space=SPACE, **more) for seed in range(count)]


def shares(bandit: Bandit, gains: dict[str, tuple[float, ...]], count: int = 400) -> Counter[str]:
    replies = bandit.propose(ask(count, lessons=Lessons(gains=gains)))
    return Counter(reply.rewriter for reply in replies)


def test_the_rewriter_with_larger_gains_is_asked_more_often() -> None:
    bandit = Bandit([Model("a"), Model("b"), Model("c")])
    even = shares(bandit, {})
    assert min(even.values()) > 100
    # b gains; c was never tried, and stays in doubt.
    found = shares(bandit, {"a": (-0.03, 0.0, -0.01, 0.001) * 3, "b": (0.02, 0.03, 0.02, -0.01) * 3})
    assert found["b"] > 2 * found["a"]
    assert found["c"] > found["a"]
    # Losses count as no gain: a writer of wild plans whose best are good is not punished for the rest.
    wild = shares(bandit, {"a": (0.001,) * 12, "b": (-0.5, 0.03) * 6, "c": (0.001,) * 12})
    assert wild["b"] > 3 * max(wild["a"], wild["c"])


def test_a_choice_depends_on_its_own_seed_alone() -> None:
    gains = {"a": (0.01, 0.02), "b": (0.0, 0.015)}
    requests = ask(40, lessons=Lessons(gains=gains))
    whole = [reply.rewriter for reply in Bandit([Model("a"), Model("b")]).propose(requests)]
    assert set(whole) == {"a", "b"}
    alone = [Bandit([Model("a"), Model("b")]).propose([request])[0].rewriter for request in reversed(requests)]
    assert alone[::-1] == whole


def test_a_tuned_model_takes_the_place_and_the_gains_of_its_base() -> None:
    bandit = Bandit([Model("m.gguf"), Model("other")])
    bandit.with_tuned(Model("m.gguf+adapter-1"))
    assert [one.name for one in bandit.rewriters] == ["m.gguf+adapter-1", "other"]
    found = shares(bandit, {"m.gguf": (0.03, 0.02) * 5, "other": (0.0, 0.001) * 5})
    assert found["m.gguf+adapter-1"] > 2 * found["other"]


def test_a_tuned_model_takes_the_place_of_its_base_where_another_rewriter_asks_it() -> None:
    bandit = Bandit([Model("other"), Sequential(Model("m.gguf"))])
    bandit.with_tuned(Model("m.gguf+adapter-1"))
    inner = bandit.rewriters[1]
    assert isinstance(inner, Sequential)
    assert [one.name for one in inner.rewriters] == ["m.gguf+adapter-1"]


def test_a_sequential_model_sees_what_it_wrote_before_for_the_same_prompt() -> None:
    class Counter(Model):
        def propose(self, requests: Sequence[Request]) -> list[Reply]:
            super().propose(requests)
            return [Reply(text=f"draft {len(self.asked)}") for _ in requests]

    model = Counter("m")
    turns = [(Message(role="user", content=text),) for text in ("one", "two")]
    requests = [replace(request, messages=turns[request.seed % 2]) for request in ask(5)]
    replies = Sequential(model).propose(requests)
    assert [reply.text for reply in replies] == [f"draft {number}" for number in range(1, 6)]
    assert {reply.rewriter for reply in replies} == {"sequential-m"}
    head = "\n\nWritten already; write another one:\n"
    shown = [request.messages[-1].content for request in model.asked]
    assert shown == ["one", "two", f"one{head}draft 1", f"two{head}draft 2", f"one{head}draft 1\ndraft 3"]


def test_prompts_fit_the_smallest_model() -> None:
    small = Model("s")
    small.context = 512
    bandit = Bandit([Uniform(), Model("m"), small])
    assert (bandit.context, bandit.tokens("a b c"), bandit.trusted) == (512, 7, False)
    assert Bandit([Uniform(), Mutate()]).trusted


def test_several_rewriters_are_opened_with_the_options_that_they_take(tmp_path: Path) -> None:
    found = open_rewriter("random, mutate")
    assert isinstance(found, Bandit)
    assert (found.name, found.trusted) == ("random-mutate", True)
    several = open_rewriter("random,http://localhost:1", Options(model="small"))
    assert several.name == "random-small@localhost:1"
    with pytest.raises(RewriterError, match=r"--adapter is for --rewriter .*, not for random,mutate"):
        open_rewriter("random,mutate", Options(adapter=Path("adapter")))
    with pytest.raises(RewriterError, match="names a rewriter twice"):
        open_rewriter("random,random")
    with pytest.raises(RewriterError, match="--rewriter is empty"):
        open_rewriter(",")
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert rewriters_in(str(folder)) == (str(folder),)
    assert rewriters_in("https://host/v1?a=1,2") == ("https://host/v1?a=1,2",)


def test_one_model_among_the_rewriters_is_tuned() -> None:
    assert tunable_base("random,m.gguf,tpe") == "m.gguf"
    assert tunable_base("hybrid:m.gguf") == "m.gguf"
    assert tunable_base("m.gguf,sequential:m.gguf") == "m.gguf"
    assert tunable_base("random,http://localhost:1") is None
    assert tunable_base("hybrid:random") is None
    with pytest.raises(RewriterError, match=r"one model is tuned, and .* names m.gguf, n.gguf"):
        tunable_base("m.gguf,n.gguf")


def test_a_missing_optuna_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"\[tpe\]"):
        open_rewriter("tpe")


def lessons(count: int) -> Lessons:
    """Trained plans: A, B and wide gates raise accuracy."""
    rng = Random(0)
    plans = [SPACE.draw(rng) for _ in range(count)]
    return Lessons(plans=tuple((plan, worth(plan)) for plan in plans))


def worth(plan: Plan) -> float:
    return 0.5 + 0.05 * ("A" in plan.experts) + 0.05 * ("B" in plan.experts) + plan.gate.width / 1000


def test_cross_over_takes_the_better_of_the_trained_plans() -> None:
    parent = Plan(experts=tuple("EFGH"))
    known = Lessons(plans=((Plan(experts=tuple("ABCD")), 0.9), (Plan(experts=tuple("CDEF")), 0.1)))
    requests = ask(60, parent=parent, lessons=known)
    children = [SPACE.read(reply.text, parent) for reply in open_rewriter("cross").propose(requests)]
    assert all(set(child.experts) <= set("ABCDEFGH") and child != parent for child in children)
    assert sum(name in "AB" for child in children for name in child.experts) > 30
    alone = [SPACE.read(reply.text, parent) for reply in open_rewriter("cross").propose(ask(8, parent=parent))]
    assert all(child != parent for child in alone)
    assert open_rewriter("cross").propose([Request(kind=Kind.REGION, messages=(), seed=0, code="x = 1")])[0].text == ""


@optuna
def test_the_share_of_a_hybrid_s_model_is_an_option() -> None:
    hybrid = open_rewriter("hybrid:mutate", Options(model_share=1.0))
    assert {reply.rewriter for reply in hybrid.propose(ask(20))} == {"mutate"}
    with pytest.raises(RewriterError, match="--model-share is for --rewriter hybrid:MODEL, not for mutate"):
        open_rewriter("mutate", Options(model_share=0.5))


@pytest.mark.long
@optuna
def test_tpe_learns_from_trained_plans() -> None:
    tpe = open_rewriter("tpe")
    taught = tpe.propose(ask(40, lessons=lessons(60)))
    plans = [SPACE.read(reply.text) for reply in taught]
    untaught = [SPACE.read(reply.text) for reply in tpe.propose(ask(40))]
    assert fmean(map(worth, plans)) > fmean(map(worth, untaught)) + 0.03
    assert len(set(plans)) > 20
    assert tpe.trusted
    assert tpe.propose([Request(kind=Kind.REGION, messages=(), seed=0, code="x = 1")])[0].text == ""


@optuna
def test_a_draw_of_tpe_depends_on_its_own_seed_and_the_lessons_alone() -> None:
    requests = ask(12, lessons=lessons(30))
    whole = [reply.text for reply in open_rewriter("tpe").propose(requests)]
    alone = [open_rewriter("tpe").propose([request])[0].text for request in reversed(requests)]
    assert alone[::-1] == whole
    assert len(set(whole)) == 12


@optuna
def test_tpe_keeps_the_fields_outside_of_its_grammar_and_reads_only_such_plans() -> None:
    routed = Plan(experts=tuple("ABCD"), gate=Gate(routing="top-k"))
    strange = (
        Plan(experts=tuple("ABCZ")),
        Plan(experts=tuple("AABB"), repeats=True),
        Plan(experts=("A",), kind="single"),
        replace(routed, gate=Gate(routing="top-k", width=48)),
    )
    known = Lessons(plans=tuple((plan, 0.5) for plan in (*strange, routed)))
    (reply,) = open_rewriter("tpe").propose([replace(ask(1)[0], parent=routed, lessons=known)])
    assert SPACE.read(reply.text, routed).gate.routing == "top-k"


@pytest.mark.long
@optuna
def test_numbers_alone_keep_the_experts_and_are_learned_across_quartets() -> None:
    tuner = open_rewriter("tpe-numbers")
    parent = Plan(experts=tuple("DEFG"))
    replies = tuner.propose(ask(30, lessons=lessons(400), parent=parent))
    plans = [SPACE.read(reply.text, parent) for reply in replies]
    assert {plan.experts for plan in plans} == {parent.experts}
    assert fmean(plan.gate.width for plan in plans) > 48  # 37 without lessons
    best = max(lessons(60).plans, key=lambda row: row[1])[0]
    (reply,) = tuner.propose(ask(1, lessons=lessons(60)))
    assert SPACE.read(reply.text).experts == best.experts


@pytest.mark.long
@optuna
def test_the_hybrid_shows_the_sampler_s_plans_to_the_model() -> None:
    turns = (Message(role="system", content="s"), Message(role="user", content="write a plan"))
    requests = [replace(request, messages=turns) for request in ask(40, lessons=lessons(30))]
    model = Model("m")
    hybrid = Hybrid(model)
    replies = hybrid.propose(requests)
    found = Counter(reply.rewriter for reply in replies)
    assert min(found["m"], found["tpe"]) > 10
    system, user = model.asked[0].messages
    assert system.content == "s"
    shown = user.content.splitlines()[-2:]
    assert all(plan_text(SPACE.read(line)) == line for line in shown)
    assert "A classical sampler that knows all results would try:" in user.content
    assert Counter(reply.rewriter for reply in Hybrid(Model("m"), share=1).propose(requests)) == {"m": 40}
    assert Counter(reply.rewriter for reply in Hybrid(Model("m"), share=0).propose(requests)) == {"tpe": 40}
