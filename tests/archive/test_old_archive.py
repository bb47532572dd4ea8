"""An archive written before this version is migrated, reported, resumed and exported; see ``old/README.md``."""

import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from nngen.analysis.loop_report import loops
from nngen.analysis.report import collect, render
from nngen.archive import Archive, LoopRole, TrialState
from nngen.archive.check import check, salvage
from nngen.assembly.identity import TEMPLATE_VERSION
from nngen.campaign.protocols import Watcher
from nngen.campaign.runner import Campaign
from nngen.campaign.setup import prepare
from nngen.campaign.summary import read_status, summarise
from nngen.datasets import load_dataset
from nngen.errors import ArchiveError
from nngen.lemur.source import open_lemur
from nngen.seeds import derive
from nngen.testing.fakes import FakeEngine

ROOT = Path(__file__).parents[2]
FAMILIES_FROM = [str(ROOT / "tests" / "assembly" / "families"), str(ROOT / "examples" / "families")]
PACKED = Path(__file__).parent / "old" / "archive.db.gz"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "old.db").write_bytes(gzip.decompress(PACKED.read_bytes()))
    return tmp_path / "old.db"


@pytest.fixture
def old(path):
    with Archive.open(path) as archive:
        yield archive


def test_a_reader_migrates_it_and_all_values_are_typed(path):
    with Archive.open(path, readonly=True) as archive:
        rungs = archive.campaign("rungs").spec
        assert (rungs.rungs, rungs.reduction_factor, rungs.min_explore) == ((1, 2), 2, 0.25)
        late = archive.trials("late")[0]
        assert (late.verdict.outcome, late.spec.time_limit_s) == ("timeout", 0.2)
        assert archive.campaign("late").spec.time_limit_s == 0.2
        fingerprint = archive.campaign("rungs").data_fingerprint
        assert {trial.data_fingerprint for trial in archive.trials("rungs")} == {fingerprint}
        assert archive._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert [file.name for file in path.parent.iterdir()] == ["old.db"]


def test_a_check_reads_a_migrated_copy(path, tmp_path):
    before = path.read_bytes()
    found = check(path)
    assert (found.problems, path.read_bytes()) == ({}, before)
    with Archive.open(path, readonly=True) as archive:
        assert found.rows["trials"] == len(archive.trials())
    assert salvage(path, tmp_path / "new.db").problems == {}


def test_a_file_that_cannot_be_migrated_is_named(path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ArchiveError, match="older nngen and cannot be migrated here"):
        Archive.open(path, readonly=True)


def test_an_archive_that_another_process_migrates_is_named(path, monkeypatch):
    monkeypatch.setattr("nngen.archive.connection._BUSY_S", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveError, match=r"locked for 0\.1 s by another process, .*: try again later$"):
            Archive.open(path, readonly=True)
    with Archive.open(path, readonly=True) as archive:
        assert archive.campaigns()


def test_loops_are_found_by_their_fields(old):
    stages = {campaign.name: (campaign.loop, campaign.cycle, campaign.role) for campaign in old.campaigns()}
    assert stages["loop-1"] == ("loop", 1, LoopRole.CYCLE)
    assert stages["chance-judge-0"] == ("chance", 0, LoopRole.JUDGE)
    assert stages["rungs"] == stages["edits"] == stages["half"] == (None, None, None)
    report = loops(old, "loop-1")
    assert [cycle.number for cycle in report.cycles if cycle.loop == "loop"] == [0, 1]
    assert [gap.other for gap in report.gaps] == ["chance"]
    assert loops(old, "edits") is None


def test_its_reports_are_collected(old):
    for name in ("rungs", "late", "open", "loop-1", "loop", "edits"):
        report = collect(old, name)
        assert report.campaign.name in (name, "loop-1")
    assert len(collect(old, "rungs").rows) == 6
    assert summarise(old, "rungs").best.test_accuracy is not None
    assert "<html" in render(collect(old, "open")).lower()
    assert read_status(old, "rungs").word == "not being run"


class Notes(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def resumed(old, name, engine=None, **more):
    """Resume a campaign of the old archive with real families and templates, and a fake engine."""
    record, notes = old.campaign(name), Notes()
    dataset = load_dataset(record.spec.dataset)
    inputs = prepare(record.spec, dataset, record, lemur=open_lemur(), families_from=FAMILIES_FROM)
    run = Campaign(spec=record.spec, archive=old, inputs=inputs, engine=engine or FakeEngine(), watcher=notes, **more)
    return run.run(), notes.lines


@pytest.mark.usefixtures("wheel")
def test_open_quartets_are_assembled_with_the_present_templates(old):
    before = {trial.id: trial.candidate_id for trial in old.trials("open") if trial.state is TrialState.DONE}
    note = f"candidates assembled with older templates: {len(before)} with version 0; "
    note += f"open quartets are assembled with version {TEMPLATE_VERSION}"
    assert summarise(old, "open").templates == note
    assert "Candidates assembled with older templates" in render(collect(old, "open"))
    summary, notes = resumed(old, "open")
    assert note in notes
    assert (summary.over, summary.failed) == (True, 0)
    trials = old.trials("open")
    assert {trial.id: trial.candidate_id for trial in trials if trial.id in before} == before
    versions = {old.candidate(trial.candidate_id).template_version for trial in trials if trial.id not in before}
    assert versions == {TEMPLATE_VERSION}
    assert summary.template_versions == {0: len(before), TEMPLATE_VERSION: 4 - len(before)}
    assert "older templates: 1 with version 0" in summary.templates


@pytest.mark.usefixtures("wheel")
def test_open_proposals_are_trained_in_the_sandbox(old):
    open_trials = [trial for trial in old.trials("half") if trial.state is not TrialState.DONE]
    assert len(open_trials) == 2
    assert {trial.given for trial in open_trials} == {True}
    assert {trial.candidate_id for trial in open_trials} <= set(old.campaign("half").candidates)
    assert summarise(old, "half").templates == ""
    summary, notes = resumed(old, "half")
    assert (summary.over, notes) == (True, [])
    done = old.trials("half")
    assert [trial.candidate_id for trial in done] == list(old.campaign("half").candidates)
    seed = old.campaign("half").spec.seed
    assert all(trial.spec.seed == derive(seed, "trial", trial.candidate_id) for trial in done)


@pytest.mark.usefixtures("wheel")
def test_a_finished_campaign_is_resumed_without_a_new_trial(old):
    engine, before = FakeEngine(), old.trials("rungs")
    summary, notes = resumed(old, "rungs", engine)
    assert (summary.over, engine.trained, notes, old.trials("rungs")) == (True, [], [], before)


@pytest.mark.usefixtures("wheel")
def test_commands_read_and_export_it(nngen, path, tmp_path):
    listed = json.loads(nngen("campaign", "ls", "--archive", path, "--json").out)
    assert [row["campaign"] for row in listed][:3] == ["rungs", "late", "open"]
    assert "open quartets are assembled with version" in nngen("campaign", "status", "open", "--archive", path).out
    assert nngen("report", "loop", "--archive", path, "--out", tmp_path / "r.html").code == 0
    result = nngen("export", "rungs", "--min-accuracy", "0.6", "--archive", path, "--out", tmp_path / "out", "--json")
    assert (result.code, result.err) == (0, "")
    with Archive.open(path) as archive:
        best = summarise(archive, "rungs").best
        files = list((tmp_path / "out").rglob(f"*{best.candidate_id}*.py"))
        assert files[0].read_text() == archive.candidate(best.candidate_id).source


def test_migrated_again_nothing_changes(path):
    with Archive.open(path) as archive:
        first = archive.campaigns(), archive.trials(), archive.events()
    with Archive.open(path) as archive:
        assert (archive.campaigns(), archive.trials(), archive.events()) == first
