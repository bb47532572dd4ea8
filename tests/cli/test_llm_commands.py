"""Commands that use rewriters."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from nngen.archive import Archive
from nngen.assembly.plan_toml import to_toml
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.surrogate.plan_text import plan_text
from nngen.testing.fakes import fake_record
from nngen.types import Candidate, EpochResult, Outcome, Shape, Trial, TrialSpec, Verdict

pytest.importorskip("yaml")

POOL = "ComplexNet,DPN107,DPN68,ICNet,MobileNetV3"
SPACE = PlanSpace(families=tuple("ABCDEFGH"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Archive with thirty trained plans of fake families: ``A`` and the gate's width raise accuracy."""
    path, rng = tmp_path / "a.db", Random(0)
    plans = [SPACE.draw(rng) for _ in range(30)]
    with Archive.open(path) as store:
        store.add_campaign(fake_record("first", epochs=2), plans)
        for trial in store.trials("first"):
            name = f"MoE4-{trial.position:032x}"
            store.add_candidate(Candidate(id=name, source=str(trial.position), canonical=name, plan=trial.plan))
            store.start_trial(trial.id)
            value = 0.5 + 0.1 * ("A" in trial.experts) + trial.plan.gate.width / 1000 + rng.random() / 100
            curve = tuple(EpochResult(epoch=n + 1, validation_accuracy=value - 0.1 + 0.1 * n) for n in range(2))
            result = Trial(
                candidate_id=name,
                spec=TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=2, seed=trial.position),
                verdict=Verdict(outcome=Outcome.VALID),
                validation_accuracy=value,
                curve=curve,
            )
            store.finish_trial(trial.id, result)
    return path


def test_prompts_are_listed_shown_and_rendered(nngen: Any, archive: Path) -> None:
    rows = json.loads(nngen("prompts", "ls", "--json").out)
    assert {"plan", "region", "file", "repair"} <= {row["name"] for row in rows}
    assert "Write one new plan" in nngen("prompts", "show", "plan").out
    told = json.loads(nngen("prompts", "render", "plan", "--archive", archive, "--json").out)
    text = told["messages"][-1]["content"]
    assert "A +" in text
    assert "The best plans so far" in text
    assert told["omitted"] == []
    short = json.loads(nngen("prompts", "render", "plan", "--archive", archive, "--budget", "500", "--json").out)
    assert short["tokens"] <= 500
    assert short["omitted"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("prompts", "show", "plam"), "no prompt is called 'plam'"),
        (("llm-propose", "--rewriter", "random", "--kind", "poem"), "no kind of proposal is called 'poem'"),
        (("llm-propose", "--rewriter", "random", "-n", "0"), "must be a whole number from 1"),
        (("llm-propose", "--rewriter", "random", "--parent", "x", "--from-top", "2"), "give one of them"),
        (
            ("llm-propose", "--rewriter", "random", "--pool", "8", "--kind", "region"),
            "drafts plans, not a region",
        ),
        (("llm-propose", "--rewriter", "random", "--pool", "8", "--repair"), "--pool drafts others instead: give one"),
        (("llm-propose", "--rewriter", "random", "--pool", "0"), "must be a whole number from 1"),
        (("llm-propose", "--rewriter", "random,mutate,random"), "names a rewriter twice"),
        (("evolve", "x", "--rewriter", "mutate", "--tune"), "--tune tunes a model in this process"),
        (("evolve", "x", "--rewriter", "random,mutate", "--tune"), "in this process, and random,mutate is not one"),
        (("evolve", "x", "--rewriter", "mutate", "--set", "rank=3"), "--config and --set are for --tune: add it"),
        (("evolve", "x", "--rewriter", "m.gguf", "--tune", "--set", "ranks=3"), "no field 'ranks'; did you mean rank"),
        (
            ("evolve", "x", "--rewriter", "m.gguf", "--tune", "--set", "rank"),
            "KEY=VALUE, such as epochs=2, not 'rank'",
        ),
        (("evolve", "x", "--rewriter", "m.gguf", "--tune", "--set", "base=n"), "--set base is not for evolve"),
        (("evolve", "x", "--rewriter", "m.gguf", "--tune", "--set", "rank=a"), "rank must be a whole number, not 'a'"),
        (("evolve", "x", "--rewriter", "mutate", "--kind", "plan,poem"), "no kind of proposal is called 'poem'"),
        (("evolve", "x", "--rewriter", "mutate", "--kind", "region", "--table", "t.json"), "--table answers for plans"),
        (("evolve", "x", "--rewriter", "mutate", "--model-share", "0.5"), "--model-share is for --rewriter hybrid"),
        (("evolve", "x", "--rewriter", "mutate", "--max-new", "0"), "--max-new must be a whole number from 1"),
        (("finetune",), "name the data and the folder for the adapter"),
        (("finetune", "--data", "d", "--out", "o"), "say what to tune"),
        (("finetune", "--data", "d", "--out", "o", "--preset", "huge"), "--preset takes one of"),
        (("feedback", "build", "--out", "x", "--tasks", "poems"), "no task is called 'poems'"),
        (("predict-accuracy", "--early", "soon"), "--early takes accuracies"),
        (("predict-accuracy", "--families", "A,B,C,Zoo"), "no trained mixture holds Zoo"),
        (("predict-accuracy", "firs"), "did you mean first"),
        (("predict-accuracy", "--model", "tree"), "no predictor is called 'tree'"),
        (("predict-accuracy", "--model", "lm"), "--model lm and --base NAME go together"),
        (("predict-accuracy", "--records", "9", "--early", "0.5"), "--records N uses N imported models"),
        (("predict-accuracy", "--records", "9"), "0 imported models have records on cifar-10 after 1 epoch"),
    ],
)
def test_wrong_arguments_are_refused(nngen: Any, archive: Path, tokens: tuple[str, ...], message: str) -> None:
    more = () if tokens[0] in ("prompts", "finetune") else ("--archive", archive)
    done = nngen(*tokens, *more)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_presets_are_listed(nngen: Any) -> None:
    rows = json.loads(nngen("finetune", "--presets", "--json").out)
    assert {"coder-1.5b-24gb", "coder-7b-24gb", "coder-32b-80gb"} <= {row["preset"] for row in rows}


def test_accuracy_is_predicted_with_its_error(nngen: Any, archive: Path, tmp_path: Path) -> None:
    told = json.loads(nngen("predict-accuracy", "--archive", archive, "--json").out)
    held_out = {row["predictor"]: row for row in told["held_out"]}
    assert told["prediction"] is None
    assert held_out["plan"]["rmse"] < held_out["families"]["rmse"] < held_out["mean"]["rmse"]
    assert "plan + 1 epoch" in held_out
    plan = tmp_path / "plan.toml"
    plan.write_text(to_toml(SPACE.draw(Random(99))))
    asked = nngen("predict-accuracy", "first", "--archive", archive, "--plan", plan, "--early", "0.5", "--json")
    assert 0.4 < json.loads(asked.out)["prediction"] < 0.9
    plan.write_text('{"experts": ["A", "B", "C", "D"]}')
    refused = nngen("predict-accuracy", "--archive", archive, "--plan", plan)
    assert (refused.code, "plan.toml: it is not valid TOML" in refused.err) == (2, True)


@pytest.mark.network
def test_an_empty_archive_is_refused(nngen: Any, tmp_path: Path) -> None:
    Archive.open(tmp_path / "empty.db").close()
    done = nngen("predict-accuracy", "--archive", tmp_path / "empty.db")
    assert (done.code, "holds no trained mixture" in done.err) == (2, True)
    pytest.importorskip("datasets")
    done = nngen("feedback", "build", "--out", tmp_path / "set", "--archive", tmp_path / "empty.db")
    assert (done.code, "too small to split" in done.err) == (2, True)
    assert not (tmp_path / "set").exists()


def test_a_feedback_set_is_built(nngen: Any, archive: Path, tmp_path: Path, wheel: Path) -> None:
    pytest.importorskip("datasets")
    done = nngen("feedback", "build", "--out", tmp_path / "set", "--archive", archive, "--json")
    told = json.loads(done.out)
    assert told["tasks"]["accuracy"] == 30
    assert (tmp_path / "set" / "README.md").is_file()


@pytest.mark.parametrize("command", ["llm-propose", "evolve"])
def test_trials_of_proposals_take_the_options_of_campaigns(nngen: Any, command: str) -> None:
    text = nngen(command, "--help").out
    for flag in ("--engine", "--workers", "--address", "--max-trials", "--max-hours", "--time-limit", "--memory-mib"):
        assert flag in text
    words = "".join(char for char in text if char.isprintable() and char not in "│╭╮╰╯─")
    assert "random (uniform draws)" in " ".join(words.split())


@pytest.mark.slow
def test_proposals_end_to_end(nngen: Any, tmp_path: Path, wheel: Path) -> None:
    where = ("--families", POOL, "--archive", tmp_path / "p.db", "--json")
    told = json.loads(nngen("llm-propose", "--rewriter", "random", "-n", "2", "--train", *where).out)
    assert told["funnel"]["checked"] == told["funnel"]["trained"] == 2
    assert told["batch"] == "random-plan-0"
    again = nngen("llm-propose", "--rewriter", "random", "-n", "2", "--train", *where)
    assert json.loads(again.out) == told
    other = nngen("llm-propose", "--rewriter", "random", "-n", "2", "--train", "--epochs", "2", *where)
    assert (other.code, "began with --epochs 1, not --epochs 2" in other.err) == (2, True)
    asked = ("--kind", "region", "-n", "3", "--region", "gate,mixing")
    code = nngen("llm-propose", "--rewriter", "mutate", *asked, *where)
    rows = json.loads(code.out)["proposals"]
    assert [row["region"] for row in rows] == ["gate", "mixing", "gate"]
    assert {row["outcome"] for row in rows} == {"valid"}
    assert all(row["parent"] for row in rows)
    listed = json.loads(nngen("leaderboard", "--archive", tmp_path / "p.db", "--json").out)
    assert len(listed) == 2
    drafted = nngen("llm-propose", "--rewriter", "random,mutate", "--pool", "12", "-n", "2", "--from-top", "1", *where)
    told = json.loads(drafted.out)
    assert (told["batch"], told["funnel"]["new"]) == ("random-mutate-plan-0", 2)
    assert sum(turn["drafted"] for turn in told["drafts"]) == sum(row["drafts"] for row in told["writers"]) == 12
    assert "a ranker needs 8 trained plans, and 2 are trained at this fidelity" in drafted.err


@pytest.mark.slow
def test_a_server_that_was_down_is_asked_again_by_the_same_command(nngen: Any, tmp_path: Path, wheel: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, where = f"http://127.0.0.1:{port}", ("--families", POOL, "--archive", tmp_path / "p.db")
    asked = ("llm-propose", "--rewriter", url, "--kind", "plan", "-n", "2", "--train", "--name", "y", *where)
    down = nngen(*asked)
    assert (down.code, down.err.count("Traceback")) == (1, 0)
    assert f"no reply came back: no server answers at {url}" in down.err
    plan = plan_text(PlanSpace(families=tuple(POOL.split(","))).draw(Random(0)))
    replies = [plan, None]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            text = replies.pop(0)
            body = b"[" * 100_000
            if text is not None:
                body = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        half = nngen(*asked)
        assert (half.code, "1 of 2 requests have no reply" in half.err) == (3, True)
        # Nothing is trained before the batch is whole.
        assert "no campaign" in nngen("campaign", "status", "y", "--archive", tmp_path / "p.db").err
        replies.append("no plan")
        whole = nngen(*asked, "--json")
        server.shutdown()
    assert whole.code == 0
    funnel = json.loads(whole.out)["funnel"]
    assert (funnel["asked"], funnel["checked"], funnel["trained"]) == (2, 1, 1)
    assert replies == []
