"""A judge without an engine, plans over light families, and the real small model."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.prompt_context import plan_values
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.training import train_proposals
from nngen.plan import Plan
from nngen.types import Candidate, EpochResult, Family, Interface, Outcome, Shape, Trial, TrialSpec, Verdict

LIGHT = ("ComplexNet", "DPN107", "DPN68", "ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1")


class PlanJudge:
    """Knows the truth: accuracy is a sum over families and the gate's width, plus a little noise of the seed."""

    sandboxed = False
    classes = 10

    def __init__(self) -> None:
        self.spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=1)
        self.checked: list[str] = []
        self.trained: list[str] = []
        self.levels: list[bool] = []
        self.refuse = ""

    def check(self, candidate: Candidate, *, trusted: bool) -> Verdict:
        self.levels.append(trusted)
        self.checked.append(candidate.id)
        if self.refuse and self.refuse in candidate.source:
            return Verdict(outcome=Outcome.SHAPE, rule="shape", message=f"{self.refuse} does not fit")
        return Verdict(outcome=Outcome.VALID)

    def train(self, candidate: Candidate, seed: int, *, trusted: bool) -> Trial:
        self.levels.append(trusted)
        self.trained.append(candidate.id)
        truth = sum(_worth(name) for name in candidate.plan.experts) if candidate.plan else 0.5
        noise = (int(hashlib.sha256(f"{candidate.id}{seed}".encode()).hexdigest()[:4], 16) / 65535 - 0.5) * 0.0005
        accuracy = 0.3 + truth + noise
        return Trial(
            candidate_id=candidate.id,
            spec=dataclasses.replace(self.spec, seed=seed),
            verdict=Verdict(outcome=Outcome.VALID),
            validation_accuracy=accuracy,
            curve=(EpochResult(epoch=1, validation_accuracy=accuracy),),
        )


def _worth(name: str) -> float:
    return int(hashlib.sha256(name.encode()).hexdigest()[:2], 16) / 2550


@pytest.fixture(scope="session")
def light(families: dict[str, Family]) -> dict[str, tuple[Family, Interface]]:
    """Seven light families of LEMUR; what they accept matters to no test here."""
    return {name: (families[name], Interface(low=32)) for name in LIGHT}


@pytest.fixture(scope="session")
def space() -> PlanSpace:
    return PlanSpace(families=LIGHT)


@pytest.fixture(scope="session")
def parent(light: dict[str, tuple[Family, Interface]]) -> Candidate:
    """A real mixture, assembled."""
    plan = Plan(experts=("ComplexNet", "DPN68", "ICNet", "MobileNetV3"))
    return Assembler().assemble(plan, [light[name] for name in plan.experts])


@pytest.fixture(scope="session")
def taught(light: dict[str, tuple[Family, Interface]], space: PlanSpace) -> Iterator[Archive]:
    """An archive with trained plans and rewritten regions, some of them refused; read it only."""
    judge = PlanJudge()
    with Archive.in_memory() as held:

        def proposer(rewriter: Any, batch: str) -> Proposer:
            return Proposer(archive=held, rewriter=rewriter, judge=judge, families=light, batch=batch, space=space)

        start = proposer(Uniform(), "start").plans(16, plan_values((), space), (), 0)
        train_proposals(held, "start", start, judge, light, 0)
        parents = [Parent.of(held.candidate(row.candidate)) for row in start]
        judge.refuse = "torch.optim.Adamax"
        proposer(Mutate(), "code").regions(32, parents, 0, ["gate", "schedule"])
        proposer(Uniform(), "more").regions(32, parents, 0, ["optimizer"])
        yield held


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive.in_memory() as held:
        yield held


@pytest.fixture
def judge() -> PlanJudge:
    return PlanJudge()


@pytest.fixture
def ground(light: dict[str, tuple[Family, Interface]], judge: PlanJudge) -> Any:
    return SimpleNamespace(families=light, judge=judge)


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, fetched once into the user's cache by our own code."""
    pytest.importorskip("transformers")
    from nngen.testing.tiny_model import fetch

    return fetch()


@pytest.fixture(scope="session")
def smollm_folder(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a folder in transformers' layout, unpacked once."""
    from nngen.llm.rewriters.transformers_local import load_model, load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    load_model(str(smollm), precision="bfloat16").save_pretrained(folder)
    load_tokenizer(str(smollm)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(smollm: Path) -> Any:
    from nngen.llm.rewriters.transformers_local import load_tokenizer

    return load_tokenizer(str(smollm))
