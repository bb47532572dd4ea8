"""Local models of many architectures, chat templates and tokenizers: propose and tune, or one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optional import needs
from tiny_models import ARCHITECTURES, TEMPLATES, make

from nngen.errors import RewriterError
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build
from nngen.llm.finetuning.finetune import finetune
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.prompts import estimate_tokens
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.rewriters.base import Kind, Message, Options, Request, Status
from nngen.llm.rewriters.chat import Chat, load_tokenizer
from nngen.llm.rewriters.transformers_local import Local

pytestmark = [pytest.mark.slow, needs("llm", "trl", "peft", "llguidance")]

SPACE = PlanSpace(families=("AirNet", "AlexNet", "ICNet", "ResNet", "ShuffleNet"))
SYSTEM, USER = Message(role="system", content="You design."), Message(role="user", content="Write a plan.")


def _plan(seed: int, user: Message = USER, **more: Any) -> Request:
    asked = {"kind": Kind.PLAN, "messages": (SYSTEM, user), "seed": seed, "space": SPACE, "max_tokens": 512}
    return Request(**asked | more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Feedback set of twelve short questions with a good and a bad answer each."""
    examples = [
        Example(
            task=Task.IMPROVE,
            messages=(SYSTEM, Message(role="user", content=f"say {number}")),
            answer=f"yes yes {number}" if good else "no",
            good=good,
            score=float(good),
            group=f"A+B+C+{number}",
            origin="o",
            prompt="plan@1-0",
        )
        for number in range(12)
        for good in (True, False)
    ]
    yield build(examples, tmp_path_factory.mktemp("data") / "set", twins={}, count=estimate_tokens).folder


def _tune(base: Path, data: Path, out: Path, **more: Any) -> Any:
    settings = {
        "epochs": 1.0,
        "batch": 4,
        "accumulate": 1,
        "rank": 2,
        "max_tokens": 200,
        "precision": "float32",
        **more,
    }
    lines: list[str] = []
    return finetune(Tuning(base=str(base), **settings), data, out, lines.append), lines


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_proposes_and_is_tuned(architecture: str, data: Path, tmp_path: Path) -> None:
    base = make(tmp_path / "tiny", architecture)
    tuned, lines = _tune(base, data, tmp_path / "out")
    assert tuned.updates > 0
    assert any(line.startswith("LoRA on ") for line in lines)
    local = Local(str(base), Options(adapter=tuned.adapter, batch=4))
    other = Message(role="user", content="Write another plan, a longer question this time.")
    asked = [_plan(0), _plan(1), _plan(2, other)]
    replies = local.propose(asked)
    assert [SPACE.read(reply.text) is not None for reply in replies] == [True] * 3
    # The draws of a request are independent of its neighbours.
    assert [reply.text for reply in replies] == [local.propose([one])[0].text for one in asked]


@pytest.mark.parametrize(("architecture", "shares"), [("llama", True), ("gemma2", False)])
def test_what_prompts_begin_with_is_computed_once(architecture: str, shares: bool, tmp_path: Path) -> None:
    """With a sliding window it is computed for each different prompt, because padding would count inside of it."""
    local = Local(str(make(tmp_path / "tiny", architecture)), Options(batch=4))
    users = [Message(role="user", content=f"Write {text}") for text in ("one plan.", "one plan.", "another.")]
    prompts = [local.chat.prompt([SYSTEM.to_dict(), user.to_dict()]) for user in users]
    encoded = [local.chat.ids(prompt) for prompt in prompts]
    read: list[tuple[int, ...]] = []
    local.model.register_forward_pre_hook(lambda _, args, named: read.append(args[0].shape), with_kwargs=True)
    ids, mask, _ = local._read(prompts)
    assert mask.sum(1).tolist() == [len(tokens) for tokens in encoded]
    common = next(place for place, (one, other) in enumerate(zip(encoded[0], encoded[2], strict=False)) if one != other)
    rest = ids.shape[1] - 1
    assert read == ([(1, common), (2, rest - common)] if shares else [(2, rest)])


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name not in ("broken", "none")])
def test_every_template_proposes_and_is_tuned(template: str, data: Path, tmp_path: Path) -> None:
    base = make(tmp_path / "tiny", template=template)
    tuned, _ = _tune(base, data, tmp_path / "sft")
    local = Local(str(base), Options(adapter=tuned.adapter))
    prompt = local.chat.prompt([SYSTEM.to_dict(), USER.to_dict()])
    assert prompt.index("You design.") < prompt.index("Write a plan.")
    assert "<think>" not in prompt or prompt.endswith("</think>\n\n")
    assert SPACE.read(local.propose([_plan(0)])[0].text)
    head, answer = local.chat.dialogue([SYSTEM.to_dict(), USER.to_dict()], "yes")
    assert head == prompt
    assert (answer.strip().startswith("yes"), answer.endswith("<|im_end|>")) == (True, True)
    assert _tune(base, data, tmp_path / "dpo", method="dpo")[0].updates > 0


@pytest.mark.parametrize("eos", [None, "<|endoftext|>", "<|im_end|>"])
def test_tokenizers_without_an_end_or_padding_take_that_of_a_turn(eos: str | None, data: Path, tmp_path: Path) -> None:
    base = make(tmp_path / "tiny", eos=eos)
    tokenizer = load_tokenizer(str(base))
    assert (tokenizer.eos_token, tokenizer.pad_token) == (eos or "<|im_end|>",) * 2
    assert tokenizer.decode([Chat(tokenizer).turn_end]) == "<|im_end|>"
    assert all(SPACE.read(reply.text) for reply in Local(str(base)).propose([_plan(0), _plan(1)]))
    assert _tune(base, data, tmp_path / "out", method="kto")[0].updates > 0


def test_a_tokenizer_without_any_end_is_one_line(tmp_path: Path) -> None:
    base = make(tmp_path / "tiny", eos=None, special=False)
    with pytest.raises(RewriterError, match="neither its tokenizer nor its chat template has a token that ends"):
        load_tokenizer(str(base))


@pytest.mark.parametrize(
    ("template", "message"),
    [("broken", "the chat template cannot be used: .*no_such_filter"), ("none", "has no chat template")],
)
def test_a_template_that_cannot_be_used_is_one_line(tmp_path: Path, template: str, message: str) -> None:
    base = make(tmp_path / "tiny", template=template)
    with pytest.raises(RewriterError, match=message) as caught:
        load_tokenizer(str(base))
    assert "\n" not in str(caught.value)


def test_a_template_may_be_given_as_a_file(tmp_path: Path, data: Path) -> None:
    base, file = make(tmp_path / "tiny", template="none"), tmp_path / "chat.jinja"
    file.write_text(TEMPLATES["chatml"])
    tuned, _ = _tune(base, data, tmp_path / "out", chat_template=str(file))
    local = Local(str(base), Options(adapter=tuned.adapter, chat_template=str(file)))
    assert SPACE.read(local.propose([_plan(0)])[0].text)
    with pytest.raises(RewriterError, match=r"none\.jinja cannot be read"):
        load_tokenizer(str(base), str(tmp_path / "none.jinja"))


def test_files_of_a_model_may_be_links_as_in_the_cache_of_a_hub(tmp_path: Path) -> None:
    """The cache keeps contents in ``blobs``, and links to them in a folder for each revision."""
    base, snapshot = make(tmp_path / "tiny"), tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    direct = Local(str(base)).propose([_plan(0)])[0]
    for number, file in enumerate(sorted(base.iterdir())):
        file.rename(tmp_path / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    linked = Local(str(snapshot)).propose([_plan(0)])[0]
    assert (linked.status, linked.text) == (direct.status, direct.text)
    assert SPACE.read(linked.text)


def test_a_context_that_is_too_small_is_said_before_the_weights_are_loaded(tmp_path: Path, data: Path) -> None:
    base = make(tmp_path / "tiny", "gpt2", n_positions=32)
    (base / "model.safetensors").unlink()
    long = Message(role="user", content="blue " * 40)
    reply = Local(str(base)).propose([_plan(0, long)])[0]
    assert reply.status is Status.TOO_LONG
    assert reply.detail.endswith("the model's context holds 32")
    with pytest.raises(RewriterError, match="no row has at most 32 tokens"):
        _tune(base, data, tmp_path / "out")
    with pytest.raises(RewriterError, match="cannot be loaded"):
        Local(str(base)).propose([_plan(0, messages=(Message(role="user", content="a"),))])


def test_dialogues_over_the_context_are_left_out(tmp_path: Path, data: Path) -> None:
    base = make(tmp_path / "tiny", "gpt2", n_positions=150)
    tuned, lines = _tune(base, data, tmp_path / "out")
    assert tuned.updates > 0
    assert "dialogues of more than 150 tokens are left out: the model's context holds no more" in lines


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_a_model_that_does_not_write_text_is_one_line(tmp_path: Path, architecture: str) -> None:
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2} if architecture == "t5" else {}
    base = make(tmp_path / "tiny", architecture, **sizes)
    with pytest.raises(RewriterError, match="not a causal language model"):
        Local(str(base))


def test_a_tokenizer_of_another_model_is_one_line(tmp_path: Path, data: Path) -> None:
    base = make(tmp_path / "tiny", vocabulary=100)
    with pytest.raises(RewriterError, match="they do not belong together"):
        Local(str(base)).propose([_plan(0)])
    with pytest.raises(RewriterError, match="they do not belong together"):
        _tune(base, data, tmp_path / "out")


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "model.safetensors", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 3}'])
def test_a_damaged_file_of_a_model_is_one_line(tmp_path: Path, file: str, text: str) -> None:
    base = make(tmp_path / "tiny")
    (base / file).write_text(text)
    try:
        Local(str(base)).propose([_plan(0)])
    except RewriterError as error:
        assert "\n" not in str(error)


def test_the_named_layers_are_tuned_and_no_match_is_one_line(tmp_path: Path, data: Path) -> None:
    base = make(tmp_path / "tiny", "gpt_neox")
    _, lines = _tune(base, data, tmp_path / "out", targets=("query_key_value",))
    assert any(line.startswith("LoRA on 2 layers (query_key_value): ") for line in lines)
    with pytest.raises(RewriterError, match=r"cannot be tuned: .*q_proj"):
        _tune(base, data, tmp_path / "none", targets=("q_proj",))


@pytest.mark.parametrize("method", ["sft", "dpo", "kto"])
def test_every_method_runs_with_the_defaults(tmp_path: Path, data: Path, method: str) -> None:
    base = make(tmp_path / "tiny")
    lines: list[str] = []
    tuning = Tuning(base=str(base), method=method)
    assert tuning.batch == (2 if method == "kto" else 1)
    assert finetune(tuning, data, tmp_path / "out", lines.append).updates > 0
    with pytest.raises(RewriterError, match="take --batch 2 or more"):
        Tuning(base=str(base), method="kto", batch=1)


def test_standard_output_holds_the_result_alone(tmp_path: Path, data: Path, nngen: Any) -> None:
    base = make(tmp_path / "tiny")
    arguments = ("--data", data, "--base", base, "--out", tmp_path / "out", "--accumulate", "1", "--json")
    done = nngen("finetune", *arguments, "--epochs", "1")
    assert done.code == 0
    told = json.loads(done.out)
    assert told["updates"] > 5
    assert "5 of " in done.err
    assert " s an update, " in done.err
    assert "min left" in done.err


def test_the_validation_split_chooses_the_weights(tmp_path: Path, data: Path) -> None:
    import shutil

    copy = tmp_path / "set"
    shutil.copytree(data, copy)
    file = copy / "sft" / "validation.jsonl"
    # What is learned makes these answers less likely with every update.
    file.write_text(file.read_text().replace("yes yes ", "#" * 60))
    base = make(tmp_path / "tiny")
    tuned, lines = _tune(base, copy, tmp_path / "out", epochs=6.0, lr=0.05, save_every=2)
    assert tuned.chosen < tuned.updates
    assert f"the validation split chose the weights after {tuned.chosen} of {tuned.updates} updates" in lines
    with_all, _ = _tune(base, data, tmp_path / "all", epochs=6.0, lr=0.05, save_every=2)
    assert with_all.chosen > tuned.chosen
