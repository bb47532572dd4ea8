"""JSON for programs: schemas of results, errors as objects, quiet and verbose, completion in a shell."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import nullcontext
from pathlib import Path

import json_contract
import pytest
from test_flags import COMMANDS, FLAGS

from nngen.archive import Archive
from nngen.cli.options.engine import EngineOptions
from nngen.testing.fakes import FakeEngine, fake_campaign

POOL = "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,BagNet"


@pytest.fixture
def archive(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Archive.open(tmp_path / "nngen.db") as archive:
        fake_campaign(archive).run()


def test_every_command_that_takes_json_has_a_schema():
    described = {name.partition(" --")[0] for name in json_contract.schemas()}
    assert {name for name, flags in FLAGS.items() if "--json" in flags} - described == set()
    assert described <= set(COMMANDS)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        "archive check",
        "campaign events one",
        "campaign ls",
        "campaign status one",
        "config init",
        "leaderboard",
        "plans ls",
        "plans show moev7",
        "plans cp moev7 plan.toml",
        "prompts ls",
        "prompts show plan",
    ],
)
def test_what_light_commands_print_fits_their_schema(nngen, archive, command):
    assert nngen(*command.split(), "--json").code == 0


@pytest.mark.parametrize("word", ["pause", "resume", "stop"])
def test_commands_to_a_running_campaign_fit_their_schema(nngen, archive, word):
    with Archive.open(Path("nngen.db")) as driver, driver.lock("one"):
        result = nngen("campaign", word, "one", "--json")
    assert json.loads(result.out) == {"campaign": "one", "command": word, "process": os.getpid()}


@pytest.mark.long
@pytest.mark.usefixtures("wheel")
def test_what_training_commands_print_fits_their_schema(nngen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The real commands, families and data set; an engine that trains nothing.
    monkeypatch.setattr(EngineOptions, "_open", lambda *_: nullcontext(FakeEngine()))
    monkeypatch.setattr("nngen.campaign.driver.measure_pace", lambda *_, **__: None)
    for command in (
        f"campaign run one --size 5 --families {POOL} --baselines",
        "campaign run one --epochs 2",
        f"experts train --families {POOL} --lr 0.01",
        "surrogate verify --quartets 3 --seeds 2",
        f"llm-propose --rewriter random -n 2 --train --families {POOL}",
        f"evolve loop --rewriter mutate --cycles 1 --start 3 --number 2 --families {POOL}",
        "fidelity --dataset mnist",
    ):
        result = nngen(*command.split(), "--json")
        assert (result.code, bool(json.loads(result.out))) == (0, True), f"{command}: {result.err}"


def test_what_fetching_a_model_prints_fits_its_schema(nngen, tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr("nngen.testing.tiny_model.fetch", lambda: tmp_path / "model.gguf")
    found = json.loads(nngen("llm", "fetch", "--out", tmp_path / "copy.gguf", "--json").out)
    assert found == {"path": str(tmp_path / "copy.gguf"), "bytes": 4}


def test_what_merging_an_adapter_prints_fits_its_schema(nngen, tmp_path, monkeypatch):
    def merge(base, adapter, out, **_):
        out.mkdir()
        (out / "model.safetensors").write_bytes(bytes(2**20))

    monkeypatch.setattr("nngen.llm.rewriters.causal_models.merge_adapter", merge)
    found = json.loads(nngen("adapter", "merge", "a", "--base", "b", "--out", tmp_path / "out", "--json").out)
    assert found == {"folder": str(tmp_path / "out"), "base": "b", "adapter": "a", "mib": 1.0}


def test_schemas_are_schemas():
    for name in json_contract.schemas():
        json_contract.Draft202012Validator.check_schema(json_contract.schemas()[name])


def test_a_key_that_disappears_or_changes_its_type_is_found(nngen, archive):
    rows = json.loads(nngen("campaign", "ls", "--json").out)
    validator = json_contract.validator("campaign ls")
    assert validator.is_valid(rows)
    assert validator.is_valid([rows[0] | {"new": 1}])
    assert not validator.is_valid([rows[0] | {"trials": "6"}])
    assert not validator.is_valid([{key: value for key, value in rows[0].items() if key != "trials"}])


def test_schemas_of_made_up_values():
    schema_of, merged = json_contract.schema_of, json_contract.merged
    first, second = schema_of({"a": 1, "names": {"AirNet": 1}}), schema_of({"a": 0.5, "b": None, "names": {}})
    both = merged(first, second)
    assert both["properties"]["a"] == {"type": ["number", "null"]}
    assert both["required"] == ["a", "names"]
    assert both["properties"]["names"]["additionalProperties"] == {"type": ["number", "null"]}
    assert merged(both, first) == merged(first, both) == both


@pytest.mark.parametrize(
    ("tokens", "kind", "code"),
    [
        (("campaign", "status", "onne", "--json"), "UsageError", 2),
        (("leaderboard", "--jsonn", "--json"), "UsageError", 2),
        (("sample", "--size", "0", "--json"), "UsageError", 2),
        (("leaderboard", "--archive", "none.db", "--json"), "ArchiveError", 1),
    ],
)
def test_errors_are_objects_beside_the_line(nngen, archive, tokens, kind, code):
    result = nngen(*tokens)
    error = json.loads(result.out)["error"]
    assert (result.code, error["kind"], error["exit_code"]) == (code, kind, code)
    assert result.err == f"nngen: {error['message']}\n"
    assert nngen(*tokens[:-1]).out == ""


def test_quiet_leaves_results_and_errors(nngen, archive):
    loud, quiet = nngen("leaderboard"), nngen("leaderboard", "-q")
    assert (quiet.out, quiet.err, quiet.next) == (loud.out, "", "")
    assert loud.next
    assert nngen("campaign", "status", "onne", "--quiet").err.startswith("nngen: no campaign 'onne'")


def test_quiet_trains_without_progress(nngen, archive, monkeypatch):
    from nngen.cli.progress import trial_progress

    nngen("leaderboard", "-q")
    with trial_progress() as watcher, Archive.open(Path("other.db")) as store:
        fake_campaign(store, watcher=watcher).run()
    assert nngen("leaderboard").err == ""


def test_verbose_names_archive_origin_of_values_and_error(nngen, archive, monkeypatch):
    monkeypatch.setenv("NNGEN_LEADERBOARD_TOP", "2")
    found = nngen("leaderboard", "-v")
    assert f"archive {Path.cwd() / 'nngen.db'}, read only" in found.err
    assert "--top 2 comes from env" in found.err
    assert "MiB at most in this process" in found.err
    assert "archive" not in nngen("leaderboard").err
    failed = nngen("campaign", "status", "onne", "--verbose")
    assert "Traceback" in failed.err and "in status" in failed.err
    assert "Traceback" not in nngen("campaign", "status", "onne").err


@pytest.mark.long
def test_a_shell_completes_commands_and_options(nngen, tmp_path):
    script = tmp_path / "nngen.bash"
    script.write_text(nngen("config", "completion", "bash").out)
    ask = """
        source "$1"; COMP_WORDS=(nngen campaign {word}); COMP_CWORD=2; COMP_LINE="nngen campaign {word}"
        COMP_POINT=${{#COMP_LINE}}; _nngen; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", ask.format(word="r"), "bash", script], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["run", "resume"], "")
    wrong = nngen("config", "completion", "tcsh")
    assert (wrong.code, wrong.err) == (2, "nngen: no completion for 'tcsh': choose bash, zsh, fish\n")
