"""Commands leaderboard, show, report, campaign ls and campaign status: output and errors."""

import json
import shlex

import pytest

from nngen.archive import Archive
from nngen.llm.proposals.log import Proposal, record
from nngen.llm.rewriters.base import Kind
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    with Archive.open(tmp_path / "a.db") as archive:
        fake_campaign(archive, engine=FakeEngine(checks={"A": Outcome.SHAPE})).run()
    return tmp_path / "a.db"


@pytest.fixture
def trials(path):
    with Archive.open(path, readonly=True) as archive:
        return archive.trials("one")


def test_leaderboard(nngen, trials):
    result = nngen("leaderboard", "--json")
    rows = json.loads(result.out)
    assert result.code == 0
    keys = {"rank", "id", "experts", "dataset", "epochs", "seeds", "validation_accuracy", "test_accuracy", "seconds"}
    assert keys | {"parameters"} <= rows[0].keys()
    trained = [t for t in trials if t.trained]
    assert len(rows) == len(trained)
    assert rows[0]["validation_accuracy"] == max(t.validation_accuracy for t in trained)
    assert rows[0]["test_accuracy"] is not None
    assert [row["test_accuracy"] for row in rows[1:]] == [None] * (len(rows) - 1)
    assert len(json.loads(nngen("leaderboard", "one", "--top", "1", "--json").out)) == 1
    assert rows[0]["id"][:13] in nngen("leaderboard").out


def test_show(nngen, trials):
    trial = next(t for t in trials if t.trained)
    told = json.loads(nngen("show", trial.candidate_id[:12], "--json").out)
    assert told["id"] == trial.candidate_id
    assert [e["family"] for e in told["experts"]] == list(trial.experts)
    assert told["checks"][0]["outcome"] == "valid"
    assert told["trials"][0]["spec"]["shape"] == "1x8x8"
    assert len(told["trials"][0]["curve"]) == 2
    assert "source" not in told
    assert nngen("show", trial.candidate_id[5:], "--source").out == f"EXPERTS = {list(trial.experts)!r}\n"
    text = nngen("show", trial.candidate_id).out
    assert f"{trial.validation_accuracy:.4f}" in text
    failed = next(t for t in trials if not t.trained)
    assert "A at 1x8x8" in nngen("show", failed.candidate_id).out


def test_commands_suggest_one_that_works_on_the_same_archive(nngen, path, monkeypatch):
    monkeypatch.delenv("NNGEN_ARCHIVE")
    best = nngen("leaderboard", "--archive", path)
    assert best.next.startswith("nngen show MoE4-")
    shown = nngen(*shlex.split(best.next)[1:])
    assert shown.code == 0
    assert nngen("campaign", "status", "one", "--archive", path).next == (
        f"nngen report one --out report.html --archive {path}"
    )


def test_a_failure_suggests_nothing(nngen, path):
    failed = nngen("show", "MoE4-zzz", "--archive", path)
    assert (failed.code, failed.next) == (2, "")


def test_show_prints_each_curve_under_its_campaign_and_seed(nngen, path):
    with Archive.open(path) as archive:
        fake_campaign(archive, name="two", epochs=1).run()
        trial = next(trial for trial in archive.trials("two") if trial.trained)
        same = archive.trials(candidate_id=trial.candidate_id)
    text = nngen("show", trial.candidate_id).out
    headings = [f"campaign {other.campaign}, seed {other.spec.seed}:" for other in same if other.curve]
    assert len(headings) == len(set(headings)) == 2
    for heading, curve in zip(headings, text.split("campaign ")[-2:], strict=True):
        assert curve.startswith(heading.removeprefix("campaign "))
        assert len(curve.split("\u2500")[-1].split("\n")) >= 3


def test_show_names_parent_and_children(nngen, path, trials):
    one, two, three = (t.candidate_id for t in trials[:3])
    with Archive.open(path) as archive:
        for index, child in enumerate((two, three)):
            made = Proposal(batch="p", index=index, rewriter="mutate", kind=Kind.PLAN, parent=one, candidate=child)
            record(archive, made)
    assert json.loads(nngen("show", one, "--json").out)["children"] == [two, three]
    assert json.loads(nngen("show", three, "--json").out)["parent"] == one
    assert f"children   {two[:13]} and {three[:13]}" in nngen("show", one).out
    assert f"parent     {one}" in nngen("show", two).out


def test_diff_names_the_fields_of_the_plans_and_the_gain(nngen, trials):
    first, second = [t for t in trials if t.trained][:2]
    told = json.loads(nngen("diff", first.candidate_id, second.candidate_id, "--json", "--source").out)
    assert told["plan"] == {"experts": {"old": list(first.experts), "new": list(second.experts)}}
    assert told["results"][0]["gain"] == second.validation_accuracy - first.validation_accuracy
    assert (told["lines_added"], told["lines_removed"]) == (1, 1)
    assert f"+EXPERTS = {list(second.experts)!r}" in told["source"]
    text = nngen("diff", first.candidate_id, second.candidate_id).out
    assert ", ".join(second.experts) in text
    assert "source: 1 lines added, 1 removed" in text
    same = nngen("diff", first.candidate_id, first.candidate_id).out
    assert "plan: the same" in same
    assert "source: the same" in same


def test_diff_compares_accuracies_under_the_same_augmentation_alone(nngen, path):
    with Archive.open(path) as archive:
        fake_campaign(archive, name="two", seed=1, augment="flip").run()
        plain, flipped = ({t.candidate_id for t in archive.trials(name) if t.trained} for name in ("one", "two"))
    told = nngen("diff", min(plain - flipped), min(flipped - plain), "--json", "--source")
    assert json.loads(told.out)["results"] == []


def test_campaign_ls_and_status(nngen, trials):
    row = json.loads(nngen("campaign", "ls", "--json").out)[0]
    failed = [t for t in trials if not t.trained]
    assert (row["campaign"], row["trials"], row["failed"]) == ("one", 6, len(failed))
    told = json.loads(nngen("campaign", "status", "one", "--json").out)
    assert told["outcomes"] == {"valid": 6 - len(failed), "shape": len(failed)}
    assert told["arguments"]["size"] == 6
    assert [f["message"] for f in told["failures"]] == ["A at 1x8x8 with 10 classes"] * len(failed)
    text = nngen("campaign", "status", "one").out
    assert "6 of 6 trials done" in text
    assert "test accuracy 0." in text
    assert "one" in nngen("campaign", "ls").out


@pytest.mark.long
def test_report(nngen, path):
    out = path.parent / "r.html"
    told = json.loads(nngen("report", "one", "--out", out, "--json").out)
    assert (told["drawn"], told["report"]) == (6, str(out))
    assert out.read_text().startswith("<!doctype html>")
    assert "6 quartets" in nngen("report", "one", "--out", out).out
    pytest.importorskip("matplotlib")
    told = nngen("report", "one", "--figures", out.parent / "figures")
    assert "ranking.pdf" in told.out
    assert sorted(path.suffix for path in (out.parent / "figures").iterdir()) == [".pdf"] * len(
        told.out.split(".pdf")[1:]
    )


def test_an_archive_without_anything(nngen, tmp_path):
    Archive.open(tmp_path / "new.db").close()
    assert nngen("leaderboard", "--archive", tmp_path / "new.db").out == "nothing was trained yet\n"
    assert nngen("leaderboard", "--archive", tmp_path / "new.db", "--json").out == "[]\n"
    assert nngen("campaign", "ls", "--archive", tmp_path / "new.db").out == "no campaign yet\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("tokens", "code", "words"),
    [
        (("show", "MoE4-zzz"), 2, "no candidate 'MoE4-zzz'"),
        (("show", "MoE4"), 2, "fits 6 candidates"),
        (("report", "onne", "--out", "r.html"), 2, "did you mean one?"),
        (("campaign", "status", "onne"), 2, "did you mean one?"),
        (("leaderboard", "onne"), 2, "did you mean one?"),
        (("leaderboard", "--top", "0"), 2, "--top must be a whole number from 1"),
        (("leaderboard", "--archive", "missing.db"), 1, "no archive at missing.db"),
        (("report", "one"), 2, "--out"),
        (("report", "one", "--out", "."), 2, "is a folder"),
        (("report", "one", "--figures", __file__), 2, "names a folder"),
        (("report", "one", "--out", "r.html", "--price-per-hour", "-1"), 2, "must be a number of at least 0"),
    ],
)
def test_one_line_and_the_right_code(nngen, path, monkeypatch, tokens, code, words):
    monkeypatch.chdir(path.parent)
    before = sorted(path.parent.iterdir())
    result = nngen(*tokens)
    assert result.code == code
    assert words in result.err
    assert len(result.err.splitlines()) == 1
    assert result.out == ""
    assert sorted(path.parent.iterdir()) == before


def test_a_file_that_is_not_an_archive(nngen, tmp_path):
    (tmp_path / "x.db").write_text("hello " * 500)
    result = nngen("leaderboard", "--archive", tmp_path / "x.db")
    assert (result.code, len(result.err.splitlines())) == (1, 1)
    assert "is not an archive" in result.err
