"""Commands of campaigns: status with rungs and budgets, pause, resume, stop, watch, events, arguments from a file."""

import json
import os
import time
from pathlib import Path

import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign.budget import Budget
from nngen.cli.options.engine import EngineOptions
from nngen.cli.options.family import FamilyOptions
from nngen.errors import SomeFailedError
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    monkeypatch.chdir(tmp_path)
    with Archive.open(tmp_path / "a.db") as archive:
        engine = FakeEngine(trials={"A": Outcome.MEMORY})
        arguments = {"size": 9, "rungs": (1, 3), "epochs": 3, "finalists": 2, "replicates": 2}
        fake_campaign(archive, engine=engine, budget=Budget(max_cost=9.0, price_per_hour=2.0), **arguments).run()
    return tmp_path / "a.db"


def test_status_tells_rungs_budget_and_pace(nngen, path):
    told = json.loads(nngen("campaign", "status", "one", "--json").out)
    assert [(rung["epochs"], rung["trials"]) for rung in told["rungs"]] == [(1, 9), (3, 3)]
    assert told["over"]
    assert told["standing"]["promotions"] == 5
    assert told["standing"]["budget"] == {"max_cost": 9.0, "price_per_hour": 2.0}
    assert [row["seeds"] for row in told["finalists"]] == [2, 2]
    text = nngen("campaign", "status", "one").out
    for words in (
        "rung 2 (3 epochs): 3 of 3 done, 0 promoted",
        " of 9 cost",
        "5 promotions",
        "trials per hour",
        "over",
    ):
        assert words in text
    assert "3" in nngen("leaderboard", "--top", "1").out


def test_events_are_one_json_object_a_line(nngen, path):
    lines = [json.loads(line) for line in nngen("campaign", "events", "one").out.splitlines()]
    assert lines[0]["event"] == "campaign.created"
    assert lines[-1]["event"] in ("campaign.finished", "test.revealed")
    assert {"id", "at", "trial", "event", "detail"} == set(lines[0])
    promoted = next(line for line in lines if line["event"] == "trial.promoted")
    assert promoted["detail"]["rank"] == 1
    later = nngen("campaign", "events", "one", "--follow", "--after", str(lines[-2]["id"])).out
    assert [json.loads(line) for line in later.splitlines()] == lines[-1:]


def test_watch_ends_where_nobody_runs_it(nngen, path):
    result = nngen("campaign", "watch", "one")
    assert result.code == 0
    assert "14 of 14 trials are done already" in result.err
    assert "14 of 14 trials done" in result.out


class Slow(FakeEngine):
    def train(self, *args, **kwargs):
        time.sleep(0.2)
        return super().train(*args, **kwargs)


@pytest.mark.long
def test_watch_and_events_follow_what_another_process_does(nngen, path):
    child = os.fork()
    if child == 0:
        with Archive.open(path) as archive:
            fake_campaign(archive, name="two", seed=7, engine=Slow(), size=6, rungs=(1, 2), epochs=2).run()
        os._exit(0)
    try:
        for _ in range(100):
            with Archive.open(path, readonly=True) as archive:
                if archive.driver("two") and archive.counts("two")[TrialState.RUNNING]:
                    break
            time.sleep(0.05)
        assert f"running (process {child})" in nngen("campaign", "status", "two").out
        seen = nngen("campaign", "watch", "two")
    finally:
        os.waitpid(child, 0)
    assert "8 of 8 trials done" in seen.out
    assert " promoted to rung 2: number 1 by halving" in seen.err
    assert "two 8/8" in seen.err


@pytest.mark.parametrize("word", ["pause", "resume", "stop"])
def test_nobody_hears_a_wish(nngen, path, word):
    result = nngen("campaign", word, "one")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        f"nngen: campaign one is not being run, so there is nothing to {word}: nngen campaign run one\n"
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("tokens", "code", "words"),
    [
        (("pause", "onne"), 2, "did you mean one?"),
        (("watch", "onne"), 2, "did you mean one?"),
        (("events", "onne"), 2, "did you mean one?"),
        (("stop", "one", "--archive", "missing.db"), 1, "no archive at missing.db"),
        (("run",), 2, "the campaign has no name"),
        (("run", "missing.toml"), 2, "cannot read missing.toml: No such file"),
        (("run", "a.toml", "--config", "b.toml"), 2, "two files were named"),
        (("run", "new", "--size", "4", "--max-cost", "3"), 2, "add --price-per-hour"),
        (("run", "new", "--size", "4", "--max-trials", "0"), 2, "--max-trials must be a whole number from 1"),
        (("run", "new", "--size", "4", "--rungs", "1,x"), 2, "--rungs takes whole numbers separated by commas"),
        (("run", "new", "--size", "4", "--workers", "0"), 2, "--workers must be a whole number from 1"),
    ],
)
def test_one_line_and_the_right_code(nngen, path, tokens, code, words):
    result = nngen("campaign", *tokens)
    assert (result.code, result.out, len(result.err.splitlines())) == (code, "", 1)
    assert words in result.err
    with Archive.open(path, readonly=True) as archive:
        assert [campaign.name for campaign in archive.campaigns()] == ["one"]


@pytest.fixture
def arguments(nngen, tmp_path, monkeypatch):
    """Return the arguments of ``campaign run`` as the campaign receives them, by name."""
    monkeypatch.chdir(tmp_path)

    def parse(*tokens, text=None):
        found = {}

        def settle(machines, spec, selection, *, table):
            found.update(spec.typed(), families=selection, engine=machines)
            return {"size": 1}

        def stored(place, name, budget):
            found.update(name=name, budget=budget.typed(), archive=place)
            raise SomeFailedError("all arguments were read")

        monkeypatch.setattr(EngineOptions, "settle", settle)
        monkeypatch.setattr("nngen.cli.campaign.execution.read_stored", stored)
        if text is not None:
            (tmp_path / "third.toml").write_text(text)
        result = nngen("campaign", "run", *tokens)
        return found if result.code == SomeFailedError.exit_code else result

    return parse


def test_nothing_typed_is_nothing_given(arguments):
    found = arguments("first", "--workers", "2")
    assert found == {
        "name": "first",
        "families": FamilyOptions(),
        "budget": {},
        "engine": EngineOptions(workers=2),
        "archive": Path("nngen.db"),
    }


def test_a_file_of_arguments(arguments):
    text = 'size = 8\nfamilies = ["A", "B"]\nrungs = [1, 3]\nlr = 1\n'
    text += 'skip-known = true\ndata_root = "data"\nmax-hours = 2\n'
    given = arguments("third.toml", "--size", "9", text=text)
    assert (given["name"], given["size"], given["rungs"]) == ("third", 9, (1, 3))
    assert given["families"].families == ("A", "B")
    assert (given["lr"], given["skip_known"], str(given["engine"].data_root)) == (1.0, True, "data")
    assert isinstance(given["budget"]["max_hours"], float)
    assert "config" not in given
    other = arguments("third.toml", text='name = "other"\nfamilies_from = ["x", "y"]\nfamilies = "A, B"\n')
    assert other["name"] == "other"
    assert (other["families"].families_from, other["families"].families) == (("x", "y"), ("A", "B"))
    assert arguments("mine", "--config", "third.toml", text=text)["name"] == "mine"
    assert arguments("--config", "third.toml", text=text)["name"] == "third"


def test_the_example_files_hold_arguments(arguments):
    files = sorted((Path(__file__).parents[2] / "examples" / "campaigns").glob("*.toml"))
    assert files
    for file in files:
        given = arguments(file)
        assert given["name"] == file.stem
        assert given["rungs"] == (1, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise = 8\n", "unknown key sise: did you mean size"),
        ("size = 8.5\n", "size must be a whole number from 1 to 1,000,000,000, not '8.5'"),
        ("size = true\n", "size must be a whole number"),
        ('lr = "x"\n', "lr must be a number"),
        ("skip_known = 5\n", "skip_known must be true or false"),
        ("rungs = []\n", "rungs takes whole numbers separated by commas"),
        ("json = true\n", "unknown key json"),
        ("size = \n", "is not valid TOML"),
        ("[size]\nx = 1\n", "unknown key size"),
        ("engine = [1, 2]\n", "engine"),
    ],
)
def test_a_file_with_a_mistake(arguments, text, words):
    result = arguments("third.toml", text=text)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert "third.toml" in result.err
    assert words in result.err


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("first", "--size", "8.5"), "--size must be a whole number from 1 to 1,000,000,000, not '8.5'"),
        (("first", "--lr", "x"), "--lr must be a number above 0, not 'x'"),
        (("first", "--sise", "8"), "unknown option --sise: did you mean --size"),
        (("first", "--families", ","), "--families names nothing: write names separated by commas"),
        (("first", "--engine", "slurm"), "unknown engine 'slurm': choose local or ray"),
        (("first", "--gpu-share", "0.5"), "--gpu-share is for --engine ray"),
    ],
)
def test_a_mistake_on_the_command_line(arguments, tokens, words):
    result = arguments(*tokens)
    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert words in result.err
