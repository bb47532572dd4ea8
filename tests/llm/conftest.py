"""Fixtures: plans over light families, an archive to learn from, and the real small model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from plan_engine import SPEC, PlanEngine, train

from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.llm.proposals.edits import SWAP, edit_text
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.base import Request
from nngen.llm.rewriters.baselines import Baseline, Mutate, Uniform
from nngen.plan import Plan
from nngen.testing.fakes import fake_dataset
from nngen.types import Candidate, Family, Interface

LIGHT = ("ComplexNet", "DPN107", "DPN68", "ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1")


class Swap(Baseline):
    """Rewriter that replaces one expert of the parent, by an edit."""

    name = "swap"

    def write(self, request: Request, rng: Random) -> str | None:
        assert request.space is not None
        return edit_text({SWAP: rng.choice(request.space.edits(request.parent)[SWAP])})


@pytest.fixture(scope="session")
def light(families: dict[str, Family]) -> dict[str, tuple[Family, Interface]]:
    """Seven light families of LEMUR with placeholder interfaces."""
    return {name: (families[name], Interface(low=32)) for name in LIGHT}


@pytest.fixture(scope="session")
def space() -> PlanSpace:
    return PlanSpace(families=LIGHT)


@pytest.fixture(scope="session")
def parent(light: dict[str, tuple[Family, Interface]]) -> Candidate:
    """Assembled mixture of real families."""
    plan = Plan(experts=("ComplexNet", "DPN68", "ICNet", "MobileNetV3"))
    return Assembler().assemble(plan, [light[name] for name in plan.experts])


@pytest.fixture(scope="session")
def inputs(light: dict[str, tuple[Family, Interface]]) -> CampaignInputs:
    return CampaignInputs(families=light, dataset=fake_dataset())


@pytest.fixture(scope="session")
def taught(inputs: CampaignInputs, space: PlanSpace) -> Iterator[Archive]:
    """Read-only archive with trained plans, edits of them, and rewritten regions, some of them refused."""
    engine = PlanEngine()
    with Archive.in_memory() as held:

        def proposer(rewriter: Any, batch: str) -> Proposer:
            return Proposer(
                archive=held, rewriter=rewriter, engine=engine, inputs=inputs, spec=SPEC, batch=batch, space=space
            )

        start = proposer(Uniform(), "start").plans(16, (), 0)
        train(held, "start", start, engine, inputs)
        parents = [Parent.of(held.candidate(row.candidate)) for row in start]
        children = proposer(Swap(), "children").plans(24, parents, 0, trials=held.trials())
        train(held, "children", children, engine, inputs)
        engine.refuse = "torch.optim.Adamax"
        proposer(Mutate(), "code").regions(32, parents, 0, ["gate", "schedule"])
        adaptive = [parent for parent in parents if parent.plan and parent.plan.recipe.optimizer == "adamw"]
        proposer(Uniform(), "more").regions(32, adaptive, 0, ["optimizer"])
        yield held


@pytest.fixture
def archive() -> Iterator[Archive]:
    with Archive.in_memory() as held:
        yield held


@pytest.fixture
def engine() -> PlanEngine:
    return PlanEngine()


@pytest.fixture
def make(archive: Archive, engine: PlanEngine, inputs: CampaignInputs, space: PlanSpace) -> Callable[..., Proposer]:
    """Return a function that makes the proposer of a batch, without a sandbox by default."""

    def build(rewriter: Any, batch: str = "b", **more: Any) -> Proposer:
        settings = {"sandbox": False, "archive": archive, **more}
        return Proposer(
            rewriter=rewriter, engine=engine, inputs=inputs, spec=SPEC, batch=batch, space=space, **settings
        )

    return build


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file, downloaded once into the user's cache by nngen."""
    pytest.importorskip("transformers")
    from nngen.testing.tiny_model import fetch

    return fetch()


@pytest.fixture(scope="session")
def smollm_folder(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a folder in transformers' layout, unpacked once."""
    from nngen.llm.rewriters.causal_models import load_model
    from nngen.llm.rewriters.chat import load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "SmolLM2-135M-Instruct"
    load_model(str(smollm), precision="bfloat16").save_pretrained(folder)
    load_tokenizer(str(smollm)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(smollm: Path) -> Any:
    from nngen.llm.rewriters.chat import load_tokenizer

    return load_tokenizer(str(smollm))
