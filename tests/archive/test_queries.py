"""Queries of an archive beside the contract: labels, records, plans, parents, events, and messages with names."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from nngen.archive import Archive, NewTrial, Promotion, TrialState
from nngen.archive.records import BriefScore, copied_result
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.testing.archive_contract import CANDIDATE, FAILED, PLANS, RESULT, SPEC
from nngen.testing.fakes import fake_record
from nngen.types import Family, Outcome, Record, Shape, Verdict

RECORD = Record(
    model="A", dataset="mnist", epoch=2, accuracy=0.5, duration_s=3.0, hyperparameters={"lr": 0.1, "batch": 8}
)


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        archive.add_candidate(CANDIDATE, {"A": None, "B": None})
        archive.add_campaign(fake_record("one", size=3), PLANS, why="test")
        yield archive


def trained(archive, trial_id, result=RESULT, **more):
    archive.start_trial(trial_id)
    archive.finish_trial(trial_id, result, **more)


def test_facts_of_a_data_set_are_stored_once_and_are_empty_before(archive):
    empty = (archive.validation_labels("d1"), archive.class_names("d1"), archive.image_features("d1"))
    assert empty == (b"", (), b"")
    archive.add_labels("d1", b"\x01\x00\x02\x00", ("cat", "Hündin"))
    archive.add_labels("d1", b"\x07\x00", ("dog",))
    archive.add_labels("d2", b"\x05\x00")
    archive.add_image_features("d1", b"\x00\x3c")
    archive.add_image_features("d1", b"\x00\x00")
    found = (archive.validation_labels("d1"), archive.class_names("d1"), archive.image_features("d1"))
    assert found == (b"\x01\x00\x02\x00", ("cat", "Hündin"), b"\x00\x3c")
    assert (archive.validation_labels("d2"), archive.class_names("d2")) == (b"\x05\x00", ())
    assert (archive.predictions(1, "test"), archive.logits(1)) == (b"", b"")


def test_records_of_families_are_found_by_their_sources(archive):
    for name, best in (("A", RECORD), ("B", None), ("C", replace(RECORD, model="C"))):
        archive.add_family(Family(name=name, source=name, fingerprint=f"f{name}", best=best))
    assert archive.recorded(["fC", "fB", "fA", "fX"]) == (RECORD, replace(RECORD, model="C"))
    assert archive.recorded(["fB"]) == ()


def test_plans_are_those_of_candidates_that_have_one(archive):
    archive.add_candidate(replace(CANDIDATE, id="MoE4-" + "b" * 32, canonical="c2", plan=None))
    archive.add_candidate(replace(CANDIDATE, id="MoE4-" + "c" * 32, canonical="c3", plan=PLANS[1]))
    ids = [f"MoE4-{letter * 32}" for letter in "abcx"]
    assert archive.plans(ids) == {ids[0]: PLANS[0], ids[2]: PLANS[1]}


def test_the_parent_of_a_candidate_is_the_first_one_that_another_had(archive):
    pairs = [("b", "a"), ("b", "c"), ("c", "c"), ("d", ""), ("", "a"), ("e", None), (3, "a"), ("f", "b"), ("g", 5)]
    for child, parent in pairs:
        archive.log("proposal", campaign="one", candidate=child, parent=parent)
    archive.log("proposal", campaign="none", candidate="h", parent="a")
    archive.log("note", campaign="one", candidate="i", parent="a")
    assert archive.parents() == {"b": "a", "f": "b"}


def test_answers_of_a_recorded_table_are_counted_by_rule_and_check_nothing(archive):
    for trial_id, rule in ((1, "table.exact"), (2, "table.near"), (3, "assembly")):
        trained(archive, trial_id, Verdict(outcome=Outcome.SHAPE, rule=rule))
    assert archive.replayed("one") == {"table.exact": 1, "table.near": 1}
    assert archive.replayed("two") == {}
    shape = Shape(1, 8, 8)
    archive.add_verdict(CANDIDATE.id, FAILED, shape=shape, classes=10)
    archive.add_verdict(CANDIDATE.id, Verdict(outcome=Outcome.VALID, rule="table.exact"), shape=shape, classes=10)
    assert archive.checked(CANDIDATE.id, shape, 10) == FAILED


def test_events_are_counted_and_read_from_their_end(archive):
    assert archive.last_event_id() == archive.last_event_id("one") == 1
    assert archive.last_event_id("two") == 0
    archive.log("trial.epoch", campaign="one", trial_id=1, epoch=1)
    archive.log("trial.epoch", campaign="one", trial_id=1, epoch=2)
    archive.log("trial.epoch", campaign="two", epoch=9)
    archive.log("control.stop", campaign="one")
    assert [event.detail["epoch"] for event in archive.epochs("one")] == [2, 1]
    assert (archive.count_events("one", "trial.epoch"), archive.count_events("one", "trial")) == (2, 0)
    assert (archive.last_event_id(), archive.last_event_id("one"), archive.last_event_id("two")) == (5, 5, 4)
    last = archive.last_event("one")
    assert (last.id, last.kind, last.trial_id, last.campaign, last.detail) == (3, "trial.epoch", 1, "one", {"epoch": 2})
    assert archive.last_event("one", before=2).detail == {"trials": 3, "why": "test"}
    assert archive.last_event("one", before=1) is None
    largest = 2**63 - 2
    archive._db.execute("INSERT INTO events VALUES (?, '2026-01-01', 'one', NULL, 'far', '{}')", [largest])
    assert archive.last_event("one").id == archive.last_event_id("one") == archive.last_event_id() == largest
    assert archive.last_event("one", before=largest).id == 3


def test_a_campaign_that_grows_keeps_its_changes_as_an_event(archive):
    grown = fake_record("one", size=5, pool={"A": "f"}, classes=10)
    archive.change_campaign(grown, size=5)
    assert archive.campaign("one") == replace(grown, created_at=archive.campaign("one").created_at)
    assert archive.add_trials("one", [PLANS[0], PLANS[1]], reason="more") == (4, 5)
    assert [trial.position for trial in archive.trials("one")] == [0, 1, 2, 3, 4]
    changed, extended = archive.events("one")[-2:]
    assert (changed.kind, changed.detail) == ("campaign.changed", {"size": 5})
    assert (extended.kind, extended.detail) == ("campaign.extended", {"trials": 2, "reason": "more"})


def test_given_candidates_keep_their_seed_when_they_are_promoted(archive):
    archive.add_campaign(
        fake_record("two"),
        [NewTrial(plan=PLANS[0], candidate_id=CANDIDATE.id, seed=9), NewTrial(plan=PLANS[1], seed=8)],
    )
    trained(archive, 4)
    archive.start_trial(5)
    archive.finish_trial(5, replace(RESULT, validation_accuracy=0.25))
    archive.promote("two", [Promotion(trial_id=4, rung=1), Promotion(trial_id=5, rung=1, replicate=2)])
    rows = [(t.given, t.given_seed, t.candidate_id, t.rung, t.replicate, t.state.value) for t in archive.trials("two")]
    assert rows == [
        (True, 9, CANDIDATE.id, 0, 0, "done"),
        (False, None, CANDIDATE.id, 0, 0, "done"),
        (True, 9, CANDIDATE.id, 1, 0, "ready"),
        (False, None, None, 1, 2, "ready"),
    ]


def test_scores_are_those_of_trained_trials_with_their_fidelity(archive):
    trained(archive, 1)
    trained(archive, 2, FAILED)
    archive.reveal_test(1, 0.25)
    [score] = archive.scores("one")
    assert (score.id, score.candidate_id, score.experts) == (1, CANDIDATE.id, PLANS[0].experts)
    assert (score.seed, score.spec) == (7, replace(SPEC, seed=0))
    assert (score.test_accuracy, score.validation_accuracy, score.suspect) == (0.25, 0.5, "2 passes in epoch 1")
    assert score.fidelity == archive.trial(1).fidelity == SPEC.fidelity("d1", 32)
    assert list(archive.scores()) == [score]
    assert list(archive.scores("two")) == []


def test_a_stored_trial_tells_what_it_knows(archive):
    ready = archive.trial(1)
    assert (ready.fidelity, ready.outcome, ready.trained, ready.seed, ready.epochs_trained) == (None, None, False, 0, 1)
    trained(archive, 1, replace(RESULT, spec=replace(SPEC, epochs=5), epochs_before=2))
    done = archive.trial(1)
    assert (done.outcome, done.trained, done.seed, done.epochs_trained) == (Outcome.VALID, True, 7, 3)
    assert done.experts == tuple("ABCD")
    assert done.started_at <= done.finished_at


def test_a_copied_result_is_that_of_the_first_trial(archive):
    trained(archive, 1)
    copied = copied_result(archive.trial(1), b"\x01\x00", b"\x02\x00\x03\x00", b"\x00\x3c\x00\x00")
    assert copied == RESULT
    assert copied_result(archive.trial(1), b"", b"").validation_logits == b""


@pytest.mark.parametrize("missing", ["candidate_id", "spec", "verdict"])
def test_only_a_whole_result_is_copied(missing, archive):
    trained(archive, 1)
    with pytest.raises(AssertionError):
        copied_result(replace(archive.trial(1), **{missing: None}), b"", b"")


@pytest.mark.parametrize("missing", ["seconds", "peak_mib"])
def test_a_copied_result_without_an_amount_has_none(missing, archive):
    """Archives of the first versions left it out where it was 0."""
    trained(archive, 1)
    copied = copied_result(replace(archive.trial(1), **{missing: None}), b"", b"")
    assert getattr(copied, missing) == 0.0
    assert copied == replace(
        RESULT, validation_predictions=b"", test_predictions=b"", validation_logits=b"", **{missing: 0.0}
    )


def test_a_result_without_a_fingerprint_of_its_data_is_read_in_both_ways(archive):
    trained(archive, 1, replace(RESULT, data_fingerprint=""))
    [score] = archive.scores()
    assert archive.trial(1).data_fingerprint == ""
    assert score.fidelity == archive.trial(1).fidelity == SPEC.fidelity("", 32)


def test_a_closed_archive_answers_nothing(tmp_path):
    with Archive.open(tmp_path / "b.db") as archive:
        archive.log("x")
    message = f"^archive {tmp_path / 'b.db'}: Cannot operate on a closed database\\.$"
    with pytest.raises(ArchiveError, match=message):
        archive.events()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("b.db")] == ["b.db"]


def test_others_see_the_work_of_a_block_at_its_end(archive):
    with Archive(archive.path) as reader:
        with archive.together():
            archive.start_trial(1)
            archive.log("x", campaign="one")
            assert len(archive.events("one")) == 3
            assert (len(reader.events("one")), reader.counts("one")[TrialState.RUNNING]) == (1, 0)
        assert (len(reader.events("one")), reader.counts("one")[TrialState.RUNNING]) == (3, 1)
        with pytest.raises(ArchiveError, match="readonly"), reader.together():
            reader.log("x")


def test_a_block_notices_that_the_file_is_gone(archive):
    with pytest.raises(ArchiveError) as caught, archive.together():
        archive.log("x", campaign="one")
        archive.path.unlink()
        archive.log("y", campaign="one")
    rescued = archive.path.with_name("a.db.rescued")
    assert f"removed or replaced while it was written; what was stored is in {rescued}: " in str(caught.value)
    with Archive(rescued) as saved:
        assert [event.kind for event in saved.events("one")] == ["campaign.created", "x", "y"]
    with pytest.raises(ArchiveError, match="removed or replaced"), archive.together():
        raise AssertionError("not reached")


def test_defaults_of_records_are_the_first_of_each(archive):
    assert (NewTrial(plan=PLANS[0]).seed, NewTrial(plan=PLANS[0]).candidate_id) == (None, None)
    trained(archive, 1)
    archive.promote("one", [Promotion(trial_id=1, rung=1)])
    last = archive.trials("one")[-1]
    assert (last.position, last.rung, last.replicate) == (0, 1, 0)
    assert archive.events("one")[-1].detail == {"rung": 1, "replicate": 0}
    record = fake_record("two")
    assert (record.classes, record.known, record.pool, record.left_out, record.candidates) == (0, 0, {}, {}, ())


def test_brief_lines_lack_experts_and_seeds(archive):
    trained(archive, 1)
    whole, brief = archive.lines("one")[0], archive.lines("one", brief=True)[0]
    assert (whole.experts, whole.seed) == (tuple("ABCD"), 7)
    assert brief == whole._replace(experts=(), seed=0)


def test_brief_scores_are_those_of_whole_scores(archive):
    for number in (1, 2):
        trained(archive, number)
    archive.reveal_test(2, 0.25)
    trained(archive, 3, FAILED)
    whole, brief = list(archive.scores("one")), list(archive.brief_scores("one"))
    assert [score.id for score in whole] == [1, 2]
    assert brief == [BriefScore(**{name: getattr(score, name) for name in BriefScore._fields}) for score in whole]
    assert [score.test_accuracy for score in brief] == [None, 0.25]
    assert list(archive.brief_scores()) == brief and list(archive.brief_scores("two")) == []
    assert archive.score(2) == whole[1]
    with pytest.raises(ArchiveError, match=r"no trained trial 3 in .*a\.db"):
        archive.score(3)


def test_experts_are_known_by_the_position_of_the_candidate(archive):
    trained(archive, 1)
    archive.promote("one", [Promotion(trial_id=1, rung=0, replicate=1), Promotion(trial_id=1, rung=1)])
    assert archive.experts("one") == dict(enumerate(plan.experts for plan in PLANS))
    assert archive.experts("two") == {}


def test_trials_are_chosen_by_their_numbers_and_the_newest_by_their_count(archive):
    trained(archive, 1)
    for number in (2, 3):
        trained(archive, number, FAILED)
    assert [trial.id for trial in archive.trials(ids=[3, 1, 9])] == [1, 3]
    assert archive.trials(ids=[1])[0] == archive.trial(1)
    assert archive.trials(ids=[]) == ()
    assert [[trial.id for trial in archive.trials("one", last=last)] for last in (0, 1, 2, 9)] == [
        [],
        [3],
        [2, 3],
        [1, 2, 3],
    ]
    assert [trial.id for trial in archive.trials("one", failed=True, last=1)] == [3]
    assert [trial.id for trial in archive.trials("one", failed=True, ids=[1, 2])] == [2]


def test_trials_without_their_curves_and_failed_ones(archive):
    trained(archive, 1)
    trained(archive, 2, FAILED)
    [first] = archive.trials("one", state=TrialState.DONE, candidate_id=CANDIDATE.id, curves=False)
    assert first == replace(archive.trial(1), curve=())
    assert [trial.id for trial in archive.trials(failed=True)] == [2]
    assert archive.trial(2).verdict == FAILED


def test_weights_and_the_driver_belong_to_a_file(archive, tmp_path):
    assert archive.weights == tmp_path / "a.db.weights"
    assert archive.driver("one") is None
    with archive.lock("one"):
        assert archive.driver("one") == os.getpid()
    with Archive.in_memory() as memory, memory.lock("one"):
        assert (memory.weights, memory.driver("one"), memory.path) == (None, None, None)
        with pytest.raises(ArchiveError, match=r"^no trial 7 in this archive$"):
            memory.trial(7)


def test_names_that_are_not_there_show_those_that_are(archive):
    place = archive.path
    with pytest.raises(UsageError) as caught:
        archive.campaign("zzzzzz")
    assert str(caught.value) == f"no campaign 'zzzzzz' in {place}: it holds one"
    for name in "bcdef":
        archive.add_campaign(fake_record(name * 3), [])
    with pytest.raises(UsageError, match=r"it holds one, bbb, ccc, ddd, eee, \.\.\.$"):
        archive.campaign("zzzzzz")
    with Archive.in_memory() as empty, pytest.raises(UsageError, match=r"in this archive: it holds no candidates yet$"):
        empty.candidate("a")


@pytest.mark.parametrize(("count", "shown"), [(4, "one, a0, a1, a2"), (5, "one, a0, a1, a2, a3")])
def test_up_to_five_names_are_all(count, shown, archive):
    for number in range(count - 1):
        archive.add_campaign(fake_record(f"a{number}"), [])
    with pytest.raises(UsageError) as caught:
        archive.campaign("zzzzzz")
    assert str(caught.value) == f"no campaign 'zzzzzz' in {archive.path}: it holds {shown}"


@pytest.mark.parametrize(("count", "shown"), [(2, "a1, a2"), (3, "a1, a2, a3"), (4, "a1, a2, a3, ...")])
def test_a_beginning_that_fits_several_candidates_shows_three(count, shown):
    with Archive.in_memory() as archive:
        for number in range(1, count + 1):
            archive.add_candidate(replace(CANDIDATE, id=f"a{number}", canonical=str(number)))
        with pytest.raises(UsageError) as caught:
            archive.candidate("a")
        assert str(caught.value) == f"'a' fits {count} candidates ({shown}): type more of it"
        assert archive.candidate("a2").id == "a2"


def test_a_candidate_is_stored_with_its_experts(archive):
    family = Family(name="B", source="s", fingerprint="f", best=None)
    archive.add_family(family)
    made = replace(CANDIDATE, id="MoE4-" + "e" * 32, canonical="c5", template_version=3)
    assert archive.add_candidate(made, {"B": "f"}) is True
    stored = archive.candidate(made.id)
    assert (stored.experts, stored.fingerprints) == (tuple("ABCD"), ("", "f", "", ""))
    assert (stored.source, stored.canonical, stored.plan, stored.template_version) == ("x = 1\n", "c5", PLANS[0], 3)
    assert archive.candidates()[-1] == stored
    assert not archive.knows(Plan(experts=("X", "Y")))
    assert Path(archive.path).exists()
