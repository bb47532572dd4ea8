"""Commands ``experts train`` and ``surrogate rank``: rankings of an archive of fakes, and real families on digits."""

import json
import subprocess
import sys
import time

import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign_spec import ALONE
from nngen.testing.fakes import FakeEngine, fake_campaign
from nngen.types import Outcome


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    monkeypatch.chdir(tmp_path)
    with Archive.open(tmp_path / "a.db") as archive:
        engine = FakeEngine(trials={"G": Outcome.MEMORY})
        fake_campaign(archive, name="experts", sampler=ALONE, size=7, reveal=False, engine=engine).run()
    return tmp_path / "a.db"


def test_a_ranking_before_anything_was_trained_jointly(nngen, path):
    result = nngen("surrogate", "rank", "--top", "3")
    assert result.code == 0
    assert "6 families of experts after 2 epochs, 15 mixtures; two families disagree on " in result.out
    assert "is not known, because none was trained at this fidelity (at least 8 are needed)" in result.out
    assert "G is not ranked: memory: G at training" in result.err
    assert len([line for line in result.out.splitlines() if line.lstrip()[:2] in ("1 ", "2 ", "3 ", "4 ")]) == 3


def test_json_has_every_score_of_every_mixture(nngen, path):
    found = json.loads(nngen("surrogate", "rank", "--json", "--top", "100", "--by", "mean_single").out)
    assert (found["space"], found["by"], found["epochs"], len(found["mixtures"])) == (15, "mean_single", 2, 15)
    assert set(found["families"]) == set("ABCDEF")
    assert found["missing"] == {"G": "memory: G at training"}
    row = found["mixtures"][0]
    alone = [found["families"][name] for name in row["experts"]]
    assert row["mean_single"] == pytest.approx(sum(alone) / 4)
    assert row["trained"] is None and row["stacking"] is not None
    values = [row["mean_single"] for row in found["mixtures"]]
    assert values == sorted(values, reverse=True)


def test_joint_trainings_are_compared_with_every_score(nngen, path):
    with Archive.open(path) as archive:
        fake_campaign(archive, name="joint", size=35, finalists=4, replicates=2).run()
    found = json.loads(nngen("surrogate", "rank", "--json").out)
    assert found["by"] == "learned"
    assert {"learned", "effects", "stacking"} <= {row["score"] for row in found["agreements"]}
    assert any(row["trained"] is not None for row in found["mixtures"])
    text = nngen("surrogate", "rank").out
    assert "learned agrees with the accuracies of" in text or "how well learned ranks" in text


def test_the_ranked_space_is_one_page(nngen, path, tmp_path):
    assert nngen("surrogate", "rank", "--out", tmp_path / "space.html").code == 0
    page = (tmp_path / "space.html").read_text()
    assert "15 mixtures of 6 families" in page
    assert "How well mean_probabilities ranks jointly trained mixtures is not known" in page
    assert "G is not ranked: memory: G at training" in page
    # Six families of 0.5 s an epoch; 15 mixtures of four families each.
    assert "<b>6.0 s</b>" in page and "<b>60.0 s</b>" in page
    with Archive.open(path) as archive:
        fake_campaign(archive, name="joint", size=35, finalists=4, replicates=2).run()
    assert nngen("surrogate", "rank", "--out", tmp_path / "space.html").code == 0
    page = (tmp_path / "space.html").read_text()
    figure = json.loads(page.partition('id="figure-space">')[2].partition("</script>")[0].replace("\\u003c", "<"))
    parts = {part.get("name"): part for part in figure["data"]}
    assert {"every mixture", "trained jointly", "95 %"} <= set(parts)
    found = json.loads(nngen("surrogate", "rank", "--json", "--top", "15").out)["mixtures"]
    assert len(parts["trained jointly"]["x"]) == sum(row["trained"] is not None for row in found) == 15
    first = figure["data"][-1]
    assert first["customdata"][0] == ", ".join(found[0]["experts"])
    carried = json.loads(page.partition('id="figure-carried">')[2].partition("</script>")[0])["data"][0]
    assert len(carried["y"]) == 6


def test_all_mixtures_as_parquet(nngen, path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with Archive.open(path) as archive:
        fake_campaign(archive, name="joint", size=35).run()
    result = nngen("surrogate", "rank", "--top", "1", "--parquet", tmp_path / "space.parquet")
    assert result.code == 0 and "wrote " in result.out
    table = parquet.read_table(tmp_path / "space.parquet")
    rows = json.loads(nngen("surrogate", "rank", "--json", "--top", "15").out)["mixtures"]
    assert table.schema.metadata[b"campaign"] == b"experts" and table.schema.metadata[b"by"] == b"learned"
    for written, row in zip(table.to_pylist(), rows, strict=True):
        assert {name: written[name] for name in row} == row
        assert written["seeds"] == 1


def test_pyarrow_is_an_extra(nngen, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = nngen("surrogate", "rank", "--parquet", tmp_path / "space.parquet")
    assert (result.code, result.out) == (2, "")
    assert "pyarrow is not installed: pip install '.[parquet]'" in result.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "space.txt"), "--out space.txt must end in .html"),
        (("--parquet", "space.csv"), "--parquet space.csv must end in .parquet"),
        (("--by", "stackin"), "no score is called 'stackin': did you mean stacking?"),
        (("--by", "learned"), "learned is fitted to joint trainings, and how well learned ranks"),
        (("--epochs", "7"), "campaign experts trained its families for 2 epochs, not for 7"),
        (("other",), "no campaign 'other'"),
    ],
)
def test_what_cannot_be_ranked_is_refused(nngen, path, words, message):
    result = nngen("surrogate", "rank", *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_campaign_of_mixtures_is_not_gone_on_with(nngen, path):
    with Archive.open(path) as archive:
        fake_campaign(archive, name="joint", size=2).run()
    result = nngen("experts", "train", "joint")
    assert (result.code, result.err) == (
        2,
        "nngen: campaign joint holds mixtures: choose another name for the families alone\n",
    )


@pytest.mark.slow
def test_families_of_lemur_are_trained_alone_and_ranked(nngen, tmp_path, monkeypatch, lemur):
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "a.db"))
    words = ("experts", "train", "small", "--families", "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet,BagNet")
    words += ("--dataset", "digits", "--train-size", "200", "--rungs", "1,2")
    result = nngen(*words)
    assert (result.code, result.next) == (0, "nngen surrogate rank small")
    with Archive.open(tmp_path / "a.db") as archive:
        done = archive.trials("small")
        assert [(trial.rung, trial.spec.epochs) for trial in done] == [(0, 1)] * 5 + [(1, 2)] * 5
        assert all(trial.trained and archive.logits(trial.id) for trial in done)
    found = json.loads(nngen("surrogate", "rank", "--epochs", "1", "--json").out)
    assert len(found["mixtures"]) == 5 and all(row["ridge_gate"] is not None for row in found["mixtures"])
    # A second seed is a growth of the same campaign: nothing is trained again.
    again = nngen("experts", "train", "small", "--seeds", "2")
    assert again.code == 0
    with Archive.open(tmp_path / "a.db") as archive:
        assert len(archive.trials("small")) == 15
    assert json.loads(nngen("surrogate", "rank", "--json").out)["seeds"] == 2
    # Mixtures that are drawn from the ranking are trained as the families were; the same command goes on with them.
    words = ("surrogate", "verify", "small", "--quartets", "2", "--seeds", "1", "--epochs", "1")
    for _ in range(2):
        result = nngen(*words)
        assert (result.code, result.next) == (0, "nngen surrogate rank small")
    assert nngen("campaign", "run", "small-joint-1").code == 0
    ranking = json.loads(nngen("surrogate", "rank", "--epochs", "1", "--json").out)
    with Archive.open(tmp_path / "a.db") as archive:
        trained = {tuple(sorted(t.experts)): t.validation_accuracy for t in archive.trials("small-joint-1")}
    rows = {tuple(row["experts"]): row["trained"] for row in ranking["mixtures"] if row["trained"] is not None}
    assert len(trained) == 2 and rows == trained
    assert "2 of these mixtures were trained jointly" in ranking["belief"]


def half_trained(path):
    """Return whether one family is trained and another one is being trained."""
    if not path.exists():
        return False
    with Archive.open(path, readonly=True) as archive:
        counts = archive.counts("small")
        return counts[TrialState.DONE] > 0 and counts[TrialState.RUNNING] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_families_killed_and_resumed_rank_to_the_same_bytes(nngen, tmp_path, lemur):
    words = ["experts", "train", "small", "--families", "ShuffleNet,MobileNetV3,SqueezeNet-1,ICNet"]
    words += ["--dataset", "digits", "--train-size", "200", "--threads", "1"]
    killed, whole = tmp_path / "killed.db", tmp_path / "whole.db"
    command = [sys.executable, "-m", "nngen", *words, "--archive", str(killed)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        give_up = time.monotonic() + 300
        while not half_trained(killed):
            assert child.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        child.kill()
    with Archive.open(killed, readonly=True) as archive:
        assert archive.counts("small")[TrialState.DONE] < 4
    assert nngen(*words, "--archive", killed).code == 0
    assert nngen(*words, "--archive", whole).code == 0
    for step in (("rank", "--json"), ("gates", "--json")):
        mine, other = (nngen("surrogate", *step, "--archive", path) for path in (killed, whole))
        assert (mine.code, mine.out) == (0, other.out)
