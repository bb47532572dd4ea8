"""Fine-tuning, on a Llama of 50,000 weights made here with the real tokenizer."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optional import needs

from nngen.errors import RewriterError
from nngen.llm.finetuning import finetune as module
from nngen.llm.finetuning.config import Tuning, presets
from nngen.llm.finetuning.dataset import build
from nngen.llm.finetuning.finetune import finetune, outlook
from nngen.llm.finetuning.held_out import held_out
from nngen.llm.finetuning.rows import temper
from nngen.llm.finetuning.splits import Example, Task
from nngen.llm.finetuning.stored_set import read_view
from nngen.llm.finetuning.trainer import make_trainer, sft_tokens, trainer_rows
from nngen.llm.prompts import estimate_tokens
from nngen.llm.rewriters.base import Message
from nngen.llm.rewriters.causal_models import adapted, load_model, merge_adapter
from nngen.llm.rewriters.chat import Chat, load_tokenizer

pytestmark = [pytest.mark.slow, needs("llm", "trl", "peft")]


@pytest.fixture(scope="session")
def tiny(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    examples = [
        Example(
            task=Task.IMPROVE,
            messages=(Message(role="user", content=f"say {number}"),),
            answer=f"yes yes yes yes {number}" if good else "no",
            good=good,
            score=float(good),
            group="+".join(sorted({f"F{number % 7}", f"G{number}", f"H{number}", "A"})),
            origin="o",
            prompt="plan@1-0",
        )
        for number in range(16)
        for good in (True, False)
    ]
    folder = tmp_path_factory.mktemp("data") / "set"
    return build(examples, folder, twins={}, count=estimate_tokens).folder


def _tuning(tiny: Path, **more: Any) -> Tuning:
    settings = {"epochs": 2.0, "batch": 2, "accumulate": 1, "lr": 0.05, "rank": 4, "save_every": 3, **more}
    return Tuning(base=str(tiny), precision="float32", **settings)


def test_tuning_lowers_the_loss_and_writes_exactly_the_expected_files(tiny: Path, data: Path, tmp_path: Path) -> None:
    tuned = finetune(_tuning(tiny), data, tmp_path / "out")
    assert tuned.after.loss < tuned.before.loss - 0.1
    files = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert files == {"tuning.json", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    note = json.loads((tmp_path / "out" / "tuning.json").read_text())
    meta = json.loads((data / "feedback.json").read_text())
    assert note["fingerprint"] == meta["fingerprint"] == tuned.fingerprint
    assert note["prompts"] == ["plan@1-0"]
    assert note["tuning"]["base"] == "tiny"
    assert note["result"]["after"]["rows"] == tuned.after.rows > 0
    assert json.loads((tuned.adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny"
    load_model(str(tiny), tuned.adapter)
    again = finetune(_tuning(tiny), data, tmp_path / "out")
    assert again == tuned


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", '{"result": 3}', "\ufffd"])
def test_a_damaged_note_of_a_tuning_is_named(data: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "tuning.json").write_text(text)
    with pytest.raises(RewriterError, match=r"tuning\.json is damaged|holds a tuning with other arguments"):
        finetune(Tuning(base="model"), data, tmp_path)


def test_a_tuning_that_cannot_be_written_is_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RewriterError, match="cannot be written: File name too long"):
        finetune(Tuning(base="model"), data, tmp_path / ("x" * 300))


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, "3"])
def test_a_damaged_adapter_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(RewriterError, match="is not a peft adapter"):
        adapted(None, tmp_path, "model")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base = 3", "base must be a text, not 3"),
        ("base = 'x'\nepochs = 'many'", "epochs must be a number, not 'many'"),
        ("base = 'x'\nbatch = true", "batch must be a whole number, not True"),
        ("base = 'x'\nlr = nan", "lr must be positive, not nan"),
        ("base = 'x'\nepochs = inf", "epochs must be positive, not inf"),
        ("base = 'x'\ntasks = [1]", "tasks must be a list of names"),
        ("base = " + "[" * 5000, "cannot be read: "),
        ("rank = " + "9" * 5000, "cannot be read: "),
    ],
)
def test_odd_values_of_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "tuning.toml"
    file.write_text(text)
    with pytest.raises(RewriterError, match=message) as caught:
        Tuning.load(file)
    assert "\n" not in str(caught.value)


def test_a_tuning_is_estimated_from_others_of_its_kind_beside_it(data: Path, tmp_path: Path) -> None:
    tuning = Tuning(base="model", epochs=3, accumulate=2)
    found = outlook(tuning, data, tmp_path / "new")
    assert (found.updates, found.seconds, found.tunings) == (math.ceil(3 * math.ceil(found.rows / 2)), None, 0)
    for name, changes, seconds in (("a", {}, 10.0), ("b", {}, 30.0), ("c", {"batch": 7}, 999.0), ("d", {}, "damaged")):
        begun = {"tuning": replace(tuning, **changes).to_dict(), "result": {"seconds": seconds, "updates": 5}}
        (tmp_path / name).mkdir()
        (tmp_path / name / module.NOTE).write_text(json.dumps(begun if seconds != "damaged" else [1]))
    found = outlook(tuning, data, tmp_path / "new")
    assert found.tunings == 2
    assert found.seconds == pytest.approx((4 * found.updates, 2 * found.updates, 6 * found.updates))
    assert not (tmp_path / "new").exists()


def test_a_stopped_tuning_resumes_to_the_same_weights(
    tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch
    import torch
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    whole = finetune(_tuning(tiny), data, tmp_path / "whole")
    make = module.make_trainer

    def stopping(*given: Any) -> Any:
        trainer = make(*given)
        trainer.add_callback(Stop())
        return trainer

    monkeypatch.setattr(module, "make_trainer", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(_tuning(tiny), data, tmp_path / "parts")
    spent = tmp_path / "parts" / "checkpoints" / "seconds"
    spent.write_text(str(float(spent.read_text()) + 1000))
    assert not (tmp_path / "parts" / "adapter").exists()
    monkeypatch.setattr(module, "make_trainer", make)
    said: list[str] = []
    parts = finetune(_tuning(tiny), data, tmp_path / "parts", said.append)
    assert "going on from checkpoint-3" in said
    assert parts.updates == whole.updates
    assert whole.seconds < 1000 < parts.seconds
    one, two = (safetensors.torch.load_file(item.adapter / "adapter_model.safetensors") for item in (whole, parts))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_dpo_and_kto_train(tiny: Path, data: Path, tmp_path: Path, method: str) -> None:
    tuned = finetune(_tuning(tiny, method=method, epochs=1.0, max_tokens=64), data, tmp_path / "out")
    assert (tuned.adapter / "adapter_model.safetensors").is_file()
    assert tuned.updates > 0


def test_tempering_repeats_rare_regions() -> None:
    rows = [
        {"task": "region", "place": place, "n": n} for place, many in (("gate", 64), ("step", 4)) for n in range(many)
    ]
    assert temper(rows, 1.0, 0) == rows
    bent = temper(rows, 0.5, 0)
    assert bent == temper(rows, 0.5, 0)
    counts = {place: sum(row["place"] == place for row in bent) for place in ("gate", "step")}
    # 8 and 2 of 10, of 68.
    assert counts == {"gate": 54, "step": 14}
    assert len({row["n"] for row in bent if row["place"] == "gate"}) == 54
    assert {row["n"] for row in bent if row["place"] == "step"} == set(range(4))
    even = temper(rows, 0.0, 0)
    assert sum(row["place"] == "step" for row in even) == 34


def test_dpo_after_sft(tiny: Path, data: Path, tmp_path: Path) -> None:
    first = finetune(_tuning(tiny, epochs=1.0), data, tmp_path / "sft")
    second = finetune(_tuning(tiny, method="dpo", epochs=1.0, adapter=str(first.adapter)), data, tmp_path / "dpo")
    assert second.before.loss == pytest.approx(first.after.loss, abs=1e-4)


def test_the_folder_of_another_tuning_is_refused(tiny: Path, data: Path, tmp_path: Path) -> None:
    finetune(_tuning(tiny, epochs=0.2), data, tmp_path / "out")
    with pytest.raises(RewriterError, match="holds a tuning with other arguments or other data"):
        finetune(_tuning(tiny, epochs=0.3), data, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(RewriterError, match="holds something else"):
        finetune(_tuning(tiny), data, tmp_path / "mine")


def test_unusable_data_is_refused(tiny: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RewriterError, match="is not a feedback set"):
        finetune(_tuning(tiny), tmp_path, tmp_path / "a")
    with pytest.raises(RewriterError, match="has no train rows for sft"):
        finetune(_tuning(tiny, tasks=("code",)), data, tmp_path / "b")
    with pytest.raises(RewriterError, match="no row has at most 5 tokens"):
        finetune(_tuning(tiny, max_tokens=5), data, tmp_path / "c")


def test_a_packed_row_teaches_what_its_dialogues_teach_alone(tiny: Path, data: Path, tmp_path: Path) -> None:
    import torch

    tuning = _tuning(tiny, packing=True, batch=1, max_tokens=256)
    chat = Chat(load_tokenizer(str(tiny)))
    rows = trainer_rows("sft", chat, read_view(data, "sft", "train"), 256)
    model = load_model(str(tiny), precision="float32")
    with warnings.catch_warnings(action="ignore"):
        trainer = make_trainer(tuning, model, chat.tokenizer, rows, [], tmp_path / "out")
    packed = list(trainer.get_train_dataloader())
    assert len(packed) < len(rows) / 2
    # The mean over a packed batch is that of its answer tokens, as if each dialogue had been alone.
    seen = 0.0
    with torch.no_grad():
        for batch in packed:
            count = int((batch["labels"] != -100).sum())
            seen += (
                float(trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(count))) * count
            )
        alone = held_out(trainer.model, sft_tokens(chat, read_view(data, "sft", "train"), 256))
    assert seen == pytest.approx(alone.loss * alone.tokens, rel=1e-4)


def test_a_packed_tuning_ends_and_learns(tiny: Path, data: Path, tmp_path: Path) -> None:
    tuned = finetune(_tuning(tiny, packing=True, batch=1, epochs=8.0), data, tmp_path / "out")
    assert tuned.after.loss < tuned.before.loss


def test_a_merged_model_writes_what_base_and_adapter_write(tiny: Path, data: Path, tmp_path: Path) -> None:
    import torch

    tuned = finetune(_tuning(tiny), data, tmp_path / "out")
    merge_adapter(str(tiny), tuned.adapter, tmp_path / "merged")
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        apart, merged, bare = (
            model(ids).logits
            for model in (
                load_model(str(tiny), tuned.adapter, precision="float32"),
                load_model(str(tmp_path / "merged"), precision="float32"),
                load_model(str(tiny), precision="float32"),
            )
        )
    assert torch.allclose(apart, merged, atol=1e-4)
    assert not torch.allclose(bare, merged, atol=1e-2)
    assert load_tokenizer(str(tmp_path / "merged")).chat_template == load_tokenizer(str(tiny)).chat_template
    with pytest.raises(RewriterError, match="merged exists: choose another folder"):
        merge_adapter(str(tiny), tuned.adapter, tmp_path / "merged")
    with pytest.raises(RewriterError, match="was tuned on tiny, not on other"):
        merge_adapter("other", tuned.adapter, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", presets())
def test_a_preset_is_read(name: str) -> None:
    tuning = Tuning.load(presets()[name], base=None if "coder" in name else "model.gguf")
    assert tuning.method == "sft"
    assert Tuning.from_dict(tuning.to_dict()) == tuning


def test_invalid_configurations_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    for text, message in (
        ("base = 1 = 2", "is not valid TOML"),
        ("base = 'x'\nepoch = 3", "no field 'epoch'"),
        ("epochs = 3", "say what to tune"),
        ("base = 'x'\nmethod = 'ppo'", "no method is called 'ppo'"),
        ("base = 'x'\nrank = 0", "rank must be positive"),
        ("base = 'x'\nquantize = true", "needs a CUDA device"),
    ):
        file.write_text(text)
        with pytest.raises(RewriterError, match=message):
            Tuning.load(file)
    with pytest.raises(RewriterError, match="cannot be read"):
        Tuning.load(tmp_path / "none.toml")
