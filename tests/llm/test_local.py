"""Model in this process: the real SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from optional import needs

from nngen.errors import RewriterError
from nngen.llm import optional_import
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind, Message, Options, Request, Rewriter, Status
from nngen.llm.rewriters.causal_models import load_model
from nngen.llm.rewriters.chat import load_tokenizer
from nngen.llm.rewriters.transformers_local import Local
from nngen.surrogate.plan_text import plan_text

pytestmark = [pytest.mark.slow, needs("llm", "transformers", "llguidance")]

NAMES = ("AirNet", "AlexNet", "DPN107", "DPN131", "DenseNet", "ICNet", "ResNet", "ShuffleNet", "SqueezeNet-1")
SPACE = PlanSpace(families=NAMES)
TURNS = (Message(role="user", content=f"Families: {', '.join(NAMES)}. Write one plan as JSON."),)


def _plan(seed: int, **more: Any) -> Request:
    return Request(kind=Kind.PLAN, messages=TURNS, seed=seed, space=SPACE, **{"max_tokens": 200, **more})


@pytest.fixture(scope="module")
def local(smollm_folder: Path) -> Local:
    return Local(str(smollm_folder), Options(batch=8))


def test_local_implements_the_protocol(local: Local) -> None:
    assert isinstance(local, Rewriter)
    assert not local.trusted
    assert local.name == "SmolLM2-135M-Instruct"


def test_every_draw_parses_as_a_plan(local: Local) -> None:
    replies = local.propose([_plan(seed, temperature=2.0) for seed in range(8)])
    plans = [SPACE.read(reply.text) for reply in replies]
    assert all(reply.status is Status.OK for reply in replies)
    assert all(len(set(plan.experts)) == 4 for plan in plans)
    assert len({plan_text(plan) for plan in plans}) > 4
    assert len(replies) == 8
    # Drawn text may have more tokens than a tokenizer would use for it.
    written = sum(reply.reply_tokens for reply in replies)
    assert written >= sum(local.tokens(reply.text) for reply in replies) > 0
    assert sum(reply.seconds for reply in replies) > 0


def test_the_seed_decides_a_reply_independent_of_the_batch(local: Local) -> None:
    alone = local.propose([_plan(3), _plan(4)])
    again = local.propose([_plan(4), _plan(3)])
    assert [reply.text for reply in alone] == [reply.text for reply in again[::-1]]
    assert alone[0].text != alone[1].text


def test_prompts_of_different_length_in_one_batch(local: Local) -> None:
    long = Message(role="user", content="Say the word blue. " * 12)
    short = Message(role="user", content="Say blue.")
    asked = [Request(kind=Kind.REGION, messages=(m,), seed=0, max_tokens=6, temperature=0.0) for m in (long, short)]
    together, apart = local.propose(asked), [local.propose([one])[0] for one in asked]
    assert [reply.prompt_tokens for reply in together] == [reply.prompt_tokens for reply in apart]
    assert together[0].prompt_tokens > 40 > together[1].prompt_tokens
    assert all(reply.text for reply in together)


def test_a_reply_at_the_limit_is_cut(local: Local) -> None:
    reply = local.propose([_plan(0, max_tokens=10)])[0]
    assert reply.status is Status.CUT
    assert reply.reply_tokens == 10
    assert reply.detail == "the reply reached 10 tokens"


def test_a_prompt_longer_than_the_context_is_rejected_and_the_others_are_answered(local: Local) -> None:
    long = Request(kind=Kind.FILE, messages=(Message(role="user", content="blue " * 9000),), seed=0, max_tokens=4)
    short = Request(kind=Kind.REGION, messages=(Message(role="user", content="Say blue."),), seed=0, max_tokens=4)
    first, second = local.propose([long, short])
    assert (first.status, first.text) == (Status.TOO_LONG, "")
    assert first.detail == f"the prompt takes {first.prompt_tokens:,} tokens, the model's context holds 8,192"
    assert second.text


def test_a_gguf_file_is_loaded(smollm: Path) -> None:
    model = load_model(str(smollm))
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008


def test_unloadable_models_are_refused(tmp_path: Path, smollm_folder: Path) -> None:
    with pytest.raises(RewriterError, match="no such file"):
        load_tokenizer(str(tmp_path / "none.gguf"))
    with pytest.raises(RewriterError, match=r"holds no config\.json"):
        load_model(str(tmp_path))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and then nothing")
    with pytest.raises(RewriterError, match=r"broken\.gguf cannot be loaded"):
        load_model(str(tmp_path / "broken.gguf"))
    with pytest.raises(RewriterError, match="no precision is called 'half'"):
        load_model(str(smollm_folder), precision="half")


def test_a_base_without_a_chat_template_is_refused(tmp_path: Path, smollm_folder: Path) -> None:
    tokenizer = load_tokenizer(str(smollm_folder))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    (tmp_path / "plain" / "config.json").write_text((smollm_folder / "config.json").read_text())
    with pytest.raises(RewriterError, match="has no chat template: take its instruction-tuned variant"):
        load_tokenizer(str(tmp_path / "plain"))


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, smollm_folder: Path) -> None:
    with pytest.raises(RewriterError, match="it is not a peft adapter"):
        load_model(str(smollm_folder), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/other-7b"}))
    with pytest.raises(RewriterError, match="was tuned on acme/other-7b, not on"):
        load_model(str(smollm_folder), tmp_path)


def test_the_grammar_accepts_every_plan_of_the_space(smollm_folder: Path) -> None:
    """Every family and every value can be written: the grammar accepts the text of the plan."""
    from nngen.llm.rewriters.decoding import PlanMatcher, tokenizer_for_grammar

    tokenizer = load_tokenizer(str(smollm_folder))
    wrapped = tokenizer_for_grammar(tokenizer, len(tokenizer))
    for seed in range(12):
        matcher = PlanMatcher(wrapped, SPACE)
        for token in tokenizer(plan_text(SPACE.draw(Random(seed))), add_special_tokens=False)["input_ids"]:
            assert matcher.allowed(len(tokenizer))[token]
            matcher.consume(token)
        allowed = matcher.allowed(len(tokenizer)).nonzero().flatten().tolist()
        assert allowed == [tokenizer.eos_token_id]


def test_a_missing_package_is_named_with_its_command() -> None:
    from nngen.errors import MissingExtraError

    with pytest.raises(MissingExtraError, match=r"pip install '\.\[llm\]'"):
        optional_import("surely_not_installed.part")


def test_an_embedding_is_independent_of_the_batch(smollm_folder: Path) -> None:
    import numpy as np

    from nngen.llm.embedding import Embedder

    embed = Embedder(str(smollm_folder), max_tokens=32, batch=2)
    texts = ["a gate of width 16", "a gate of width 64, and a great many words after it " * 3, "blue"]
    together, alone = embed(texts), np.concatenate([embed([text]) for text in texts])
    assert together.shape == (3, 576)
    likeness = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(together, alone, strict=True)]
    assert min(likeness) > 0.999
    assert float(together[0] @ together[2] / np.linalg.norm(together[0]) / np.linalg.norm(together[2])) < 0.99
    # Text beyond the limit is not read.
    assert np.array_equal(embed(["word " * 40]), embed(["word " * 50]))
