"""The contract of every archive (``nngen.archive``) as a test class, for archives written elsewhere too.

Subclass it in a test module and give it a fixture that returns an empty archive::

    class TestMyArchive(ArchiveContract):
        @pytest.fixture
        def archive(self):
            with MyArchive() as archive:
                yield archive
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from nngen.archive import Archive, LoopRole, NewTrial, Promotion, TrialLine, TrialState
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.types import Candidate, EpochResult, Family, Outcome, Shape, Trial, TrialSpec, Verdict

__all__ = ["ArchiveContract"]

PLANS = [Plan(experts=tuple(names)) for names in ("ABCD", "ABCE", "BCDE")]
CANDIDATE = Candidate(id="MoE4-" + "a" * 32, source="x = 1\n", canonical="c1", plan=PLANS[0])
SPEC = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), seed=7)
RESULT = Trial(
    candidate_id=CANDIDATE.id,
    spec=SPEC,
    verdict=Verdict(outcome=Outcome.VALID),
    validation_accuracy=0.5,
    curve=(
        EpochResult(
            epoch=1, validation_accuracy=0.5, train_loss=1.25, seconds=2.0, usage=(0.7, 0.3), entropy=0.6, samples=4
        ),
    ),
    validation_predictions=b"\x01\x00",
    test_predictions=b"\x02\x00\x03\x00",
    validation_logits=b"\x00\x3c\x00\x00",
    parameters=10,
    seconds=3.0,
    peak_mib=99.5,
    batch=32,
    batches_tried=(64, 32),
    prm={"lr": 1e-3, "batch": 32},
    energy_j=1.5,
    predicted_mib=90.0,
    data_fingerprint="d1",
    isolation="process",
    suspect="2 passes in epoch 1",
    environment={"torch": "2"},
)
FAILED = Verdict(outcome=Outcome.SHAPE, rule="assembly", message="no", line=3)
RECORD = fake_record("one", size=3, seed=4, pool={"A": "f"}, loop="l", cycle=2, role=LoopRole.JUDGE)


def _run(archive: Archive, trial_id: int, result: Trial | Verdict, *, copied_from: int | None = None) -> None:
    archive.start_trial(trial_id)
    archive.finish_trial(trial_id, result, copied_from=copied_from)


class ArchiveContract:
    """Tests of the contract; a subclass names the archive in a fixture ``archive``."""

    @pytest.fixture
    def filled(self, archive: Archive) -> Archive:
        """An archive with a campaign of three trials and one candidate."""
        archive.add_campaign(RECORD, PLANS)
        archive.add_candidate(CANDIDATE)
        return archive

    def test_a_campaign_makes_ready_trials_in_order(self, filled: Archive) -> None:
        trials = filled.trials("one")
        assert [t.plan for t in trials] == PLANS
        assert {t.state for t in trials} == {TrialState.READY}
        assert replace(filled.campaign("one"), created_at="") == RECORD
        assert [c.name for c in filled.campaigns()] == ["one"]

    def test_further_trials_stand_behind_the_first(self, filled: Archive) -> None:
        filled.add_trials("one", [Plan(experts=tuple("ACDE"))], explored=[False])
        assert [t.position for t in filled.trials("one")] == [0, 1, 2, 3]
        assert filled.trials("one")[3].state is TrialState.READY
        assert filled.events("one")[-1].detail == {"trials": 1, "explored": [False]}
        filled.add_campaign(fake_record("none"), [])
        filled.add_trials("none", PLANS[:1])
        assert [t.position for t in filled.trials("none")] == [0]

    def test_a_given_candidate_stands_in_its_ready_trial(self, filled: Archive) -> None:
        given = NewTrial(plan=PLANS[1], candidate_id=CANDIDATE.id, seed=5)
        filled.add_trials("one", [given])
        trial = filled.trials("one")[-1]
        assert (trial.state, trial.candidate_id, trial.plan) == (TrialState.READY, CANDIDATE.id, PLANS[1])
        assert (trial.given, trial.given_seed) == (True, 5)
        assert not filled.trials("one")[0].given
        _run(filled, trial.id, RESULT)
        filled.promote("one", [Promotion(trial_id=trial.id, rung=1)])
        promoted = filled.trials("one")[-1]
        assert (promoted.candidate_id, promoted.given, promoted.given_seed) == (CANDIDATE.id, True, 5)

    def test_candidates_are_counted_by_the_version_of_their_templates(self, filled: Archive) -> None:
        newer = replace(CANDIDATE, id="MoE4-" + "b" * 32, canonical="c2", template_version=7)
        outside = replace(CANDIDATE, id="MoE4-" + "c" * 32, canonical="c3", plan=None)
        for candidate, trial in zip((CANDIDATE, newer, outside), filled.trials("one"), strict=True):
            filled.add_candidate(candidate)
            _run(filled, trial.id, replace(RESULT, candidate_id=candidate.id))
        assert filled.template_versions("one") == {0: 1, 7: 1}
        assert filled.candidate(newer.id).template_version == 7

    def test_a_name_is_given_once(self, filled: Archive) -> None:
        with pytest.raises(UsageError, match="one"):
            filled.add_campaign(fake_record("one"), [])
        assert len(filled.trials("one")) == 3

    def test_an_unknown_campaign_names_the_nearest(self, filled: Archive) -> None:
        with pytest.raises(UsageError, match="did you mean one"):
            filled.campaign("onne")

    def test_a_finished_trial_is_whole(self, filled: Archive) -> None:
        first = filled.trials("one")[0].id
        _run(filled, first, RESULT)
        stored = filled.trials("one", state=TrialState.DONE)[0]
        for name in (field.name for field in fields(RESULT) if not field.name.endswith(("_predictions", "_logits"))):
            assert getattr(stored, name) == getattr(RESULT, name), name
        assert filled.predictions(first, "test") == RESULT.test_predictions
        assert filled.predictions(first, "validation") == RESULT.validation_predictions
        assert filled.logits(first) == RESULT.validation_logits
        assert filled.logits(first + 1) == b""
        assert filled.trials(candidate_id=CANDIDATE.id) == (stored,)
        assert filled.trial(first) == stored

    def test_candidates_passed_by_their_last_check(self, filled: Archive) -> None:
        filled.add_candidate(CANDIDATE)
        shape = Shape(3, 8, 8)
        assert filled.passed(shape, 10) == frozenset()
        for outcome in (Outcome.SHAPE, Outcome.VALID):
            filled.add_verdict(CANDIDATE.id, Verdict(outcome=outcome), shape=shape, classes=10)
        assert filled.passed(shape, 10) == {CANDIDATE.id}
        assert filled.passed(shape, 9) == filled.passed(Shape(3, 9, 9), 10) == frozenset()
        filled.add_verdict(CANDIDATE.id, Verdict(outcome=Outcome.SHAPE), shape=shape, classes=10)
        assert filled.passed(shape, 10) == frozenset()

    def test_calls_made_together_are_stored_or_undone_one_by_one(self, filled: Archive) -> None:
        with pytest.raises(ZeroDivisionError), filled.together():
            filled.start_trial(filled.trials("one")[0].id)
            with pytest.raises(ArchiveError, match="no trial 99"):
                filled.requeue_trial(99, reason="")
            with pytest.raises(UsageError, match="already"):
                filled.add_campaign(fake_record("one"), [])
            filled.log("last", campaign="one")
            raise ZeroDivisionError
        assert filled.counts("one")[TrialState.RUNNING] == 1
        assert [event.kind for event in filled.events("one")][-2:] == ["trial.started", "last"]

    def test_lines_are_the_trials_in_brief(self, filled: Archive) -> None:
        _run(filled, filled.trials("one")[0].id, RESULT)
        _run(filled, filled.trials("one")[1].id, FAILED)
        for line, trial in zip(filled.lines("one"), filled.trials("one"), strict=True):
            same = (*TrialLine._fields, "trained")
            assert [getattr(line, name) for name in same] == [getattr(trial, name) for name in same]
        assert filled.lines() == filled.lines("one")
        assert filled.lines("other") == ()

    def test_added_and_promoted_trials_are_told_by_their_ids(self, filled: Archive) -> None:
        first = filled.trials("one")[0].id
        _run(filled, first, RESULT)
        added = filled.add_trials("one", [Plan(experts=tuple("BCDE"))])
        promoted = filled.promote("one", [Promotion(trial_id=first, rung=1), Promotion(trial_id=first, rung=2)])
        assert [trial.id for trial in filled.trials("one")][3:] == [*added, *promoted]

    def test_events_are_chosen_by_the_beginning_of_their_kind(self, filled: Archive) -> None:
        for kind in ("budget.set", "budget.spent", "control.stop"):
            filled.log(kind, campaign="one")
        found = [event.kind for event in filled.events("one", kinds=("budget.", "control.stop"))]
        assert found == ["budget.set", "budget.spent", "control.stop"]
        assert filled.events("one", kinds=()) == ()
        last = filled.last_event("one")
        assert last is not None and last.kind == "budget.spent"
        before = filled.last_event("one", before=last.id)
        assert before is not None and before.kind == "budget.set"
        assert filled.last_event("other") is None

    def test_a_plan_that_never_became_a_candidate(self, filled: Archive) -> None:
        last = filled.trials("one")[2].id
        _run(filled, last, FAILED)
        stored = filled.trials("one")[2]
        assert stored.verdict == FAILED
        assert stored.candidate_id is None
        assert filled.quartets() == {("B", "C", "D", "E"): "shape"}

    @pytest.mark.parametrize("path", ["finish", "start start", "start finish start", "start finish finish"])
    def test_forbidden_transitions(self, filled: Archive, path: str) -> None:
        first = filled.trials("one")[0].id
        steps = {"start": lambda: filled.start_trial(first), "finish": lambda: filled.finish_trial(first, RESULT)}
        *before, last = path.split()
        for step in before:
            steps[step]()
        with pytest.raises(ArchiveError, match="cannot become"):
            steps[last]()

    def test_an_unknown_trial(self, filled: Archive) -> None:
        with pytest.raises(ArchiveError, match="no trial 99"):
            filled.trial(99)
        with pytest.raises(ArchiveError, match="no trial 99"):
            filled.start_trial(99)

    def test_requeue_turns_back_only_what_runs(self, filled: Archive) -> None:
        done, running, _ = (t.id for t in filled.trials("one"))
        _run(filled, done, RESULT)
        filled.start_trial(running)
        assert filled.requeue("one") == 1
        assert [t.state for t in filled.trials("one")] == [TrialState.DONE, TrialState.READY, TrialState.READY]
        assert filled.requeue("one") == 0

    def test_one_trial_is_put_back_with_its_reason(self, filled: Archive) -> None:
        first, second, _ = (t.id for t in filled.trials("one"))
        filled.start_trial(first)
        filled.start_trial(second)
        filled.requeue_trial(second, reason="lost")
        assert [t.state for t in filled.trials("one")][:2] == [TrialState.RUNNING, TrialState.READY]
        event = filled.events("one")[-1]
        assert (event.kind, event.trial_id, event.detail) == ("trial.requeued", second, {"reason": "lost"})
        with pytest.raises(ArchiveError, match="cannot become"):
            filled.requeue_trial(second, reason="lost")

    def test_a_promotion_is_a_ready_trial_and_an_event(self, filled: Archive) -> None:
        first, second, _ = (t.id for t in filled.trials("one"))
        _run(filled, first, RESULT)
        filled.promote("one", [Promotion(trial_id=first, rung=1, reason={"rank": 1})])
        filled.promote("one", [Promotion(trial_id=first, rung=1, replicate=1)])
        *_, higher, again = filled.trials("one")
        assert (higher.position, higher.rung, higher.replicate, higher.state) == (0, 1, 0, TrialState.READY)
        assert (again.plan, again.rung, again.replicate) == (PLANS[0], 1, 1)
        event = filled.events("one")[-2]
        assert (event.kind, event.trial_id) == ("trial.promoted", first)
        assert event.detail == {"rung": 1, "replicate": 0, "rank": 1}
        before = filled.trials("one"), filled.events("one")
        with pytest.raises(ArchiveError, match="UNIQUE"):
            filled.promote("one", [Promotion(trial_id=first, rung=2), Promotion(trial_id=first, rung=1)])
        with pytest.raises(ArchiveError, match="not a finished trial"):
            filled.promote("one", [Promotion(trial_id=second, rung=1)])
        assert (filled.trials("one"), filled.events("one")) == before

    def test_trials_are_counted_by_state(self, filled: Archive) -> None:
        filled.start_trial(filled.trials("one")[0].id)
        assert filled.counts("one") == {TrialState.READY: 2, TrialState.RUNNING: 1, TrialState.DONE: 0}
        assert set(filled.counts("none").values()) == {0}

    def test_trials_are_counted_by_rung(self, filled: Archive) -> None:
        first, second, _ = (trial.id for trial in filled.trials("one"))
        _run(filled, first, RESULT)
        _run(filled, second, FAILED)
        filled.promote("one", [Promotion(trial_id=first, rung=1), Promotion(trial_id=first, rung=0, replicate=1)])
        filled.start_trial(filled.trials("one")[-1].id)
        low, again, high = filled.tallies("one")
        assert (low.rung, low.trials, low.done, low.trained, low.failed, low.best) == (0, 3, 2, 1, 1, 0.5)
        assert (again.again, again.trials, again.running, again.best) == (True, 1, 1, None)
        assert (high.rung, high.again, high.trials, high.done) == (1, False, 1, 0)
        assert filled.tallies("none") == ()

    def test_events_after_one(self, filled: Archive) -> None:
        filled.log("a", campaign="one", trial_id=1, x=1)
        filled.log("b", campaign="two")
        filled.log("c", campaign="one")
        first = next(event for event in filled.events("one") if event.kind == "a")
        assert (first.trial_id, first.detail) == (1, {"x": 1})
        assert [event.kind for event in filled.events("one", after=first.id)] == ["c"]
        assert [event.kind for event in filled.events(after=first.id)] == ["b", "c"]

    def test_facts_are_added_once(self, filled: Archive) -> None:
        assert filled.add_candidate(CANDIDATE) is False
        with pytest.raises(ArchiveError, match="white space"):
            filled.add_candidate(replace(CANDIDATE, canonical="c2"))
        family = Family(name="A", source="s", fingerprint="f", best=None)
        filled.add_family(family)
        filled.add_family(family)
        assert [c.id for c in filled.candidates()] == [CANDIDATE.id]

    def test_a_candidate_is_found_by_the_start_of_its_id(self, filled: Archive) -> None:
        other = replace(CANDIDATE, id="MoE4-ab" + "c" * 30, plan=None)
        filled.add_candidate(other, {})
        filled.add_verdict(CANDIDATE.id, FAILED, shape=SPEC.shape, classes=10)
        found = filled.candidate("aaa")
        assert (found.id, found.experts, found.verdicts) == (CANDIDATE.id, tuple("ABCD"), (FAILED,))
        assert filled.candidate(other.id).plan is None
        with pytest.raises(UsageError, match="fits 2 candidates"):
            filled.candidate("MoE4-a")
        with pytest.raises(UsageError, match="did you mean MoE4-a"):
            filled.candidate("MoE4-" + "a" * 20 + "b")

    def test_canonical_hashes_are_those_of_all_candidates(self, archive: Archive) -> None:
        assert archive.canonicals() == {}
        archive.add_candidate(CANDIDATE)
        archive.add_candidate(replace(CANDIDATE, id="MoE4-" + "b" * 32, canonical="c2", plan=None))
        archive.add_candidate(replace(CANDIDATE, id="MoE4-" + "c" * 32))
        assert set(archive.canonicals().values()) == {"c1", "c2"}
        assert archive.canonicals() == {stored.id: stored.canonical for stored in archive.candidates()}

    def test_a_plan_is_known_by_a_candidate_or_a_trial(self, filled: Archive) -> None:
        trial = filled.trials("one")[0]
        assert filled.knows(trial.plan)
        fresh = Plan(experts=("never", "tried"))
        assert not filled.knows(fresh)
        filled.add_candidate(replace(CANDIDATE, id="MoE4-" + "d" * 32, plan=fresh))
        assert filled.knows(fresh)

    def test_the_last_verdict_of_a_check_counts(self, filled: Archive) -> None:
        for verdict in (FAILED, RESULT.verdict):
            filled.add_verdict(CANDIDATE.id, verdict, shape=SPEC.shape, classes=10)
            assert filled.checked(CANDIDATE.id, SPEC.shape, 10) == verdict
        assert filled.checked(CANDIDATE.id, SPEC.shape, 9) is None
        assert filled.checked(CANDIDATE.id, Shape(3, 8, 8), 10) is None

    def test_a_test_accuracy_is_revealed_once(self, filled: Archive) -> None:
        first = filled.trials("one")[0].id
        with pytest.raises(ArchiveError, match="finished"):
            filled.reveal_test(first, 0.4)
        _run(filled, first, RESULT)
        assert filled.reveal_test(first, 0.4) == 0.4
        assert filled.reveal_test(first, 0.9) == 0.4
        assert filled.trials("one")[0].test_accuracy == 0.4
        assert [e.kind for e in filled.events("one")].count("test.revealed") == 1

    def test_the_same_work_is_found(self, filled: Archive) -> None:
        first, second, _ = (t.id for t in filled.trials("one"))
        assert filled.same_trial(CANDIDATE.id, SPEC, "d1") is None
        _run(filled, first, RESULT)
        found = filled.same_trial(CANDIDATE.id, SPEC, "d1")
        assert found is not None
        assert (found.id, found.curve, found.suspect) == (first, RESULT.curve, RESULT.suspect)
        assert filled.same_trial(CANDIDATE.id, replace(SPEC, epochs=2), "d1") is None
        assert filled.same_trial(CANDIDATE.id, SPEC, "d2") is None
        longer = replace(SPEC, time_limit_s=2 * SPEC.time_limit_s)
        assert filled.same_trial(CANDIDATE.id, longer, "d1") is not None
        assert filled.same_trial(CANDIDATE.id, replace(longer, epochs=2), "d1") is None
        assert filled.same_trial(CANDIDATE.id, replace(SPEC, time_limit_s=RESULT.seconds / 2), "d1") is None
        _run(filled, second, RESULT, copied_from=first)
        assert filled.trials("one")[1].copied_from == first

    def test_a_failure_is_not_the_same_under_another_time_limit(self, filled: Archive) -> None:
        slow = Verdict(outcome=Outcome.TIMEOUT, rule="time", message="it reached its time limit")
        _run(filled, filled.trials("one")[0].id, replace(RESULT, verdict=slow, validation_accuracy=None))
        assert filled.same_trial(CANDIDATE.id, SPEC, "d1") is not None
        longer = replace(SPEC, time_limit_s=2 * SPEC.time_limit_s)
        assert filled.same_trial(CANDIDATE.id, longer, "d1") is None

    def test_events_tell_the_story_in_order(self, filled: Archive) -> None:
        first = filled.trials("one")[0].id
        _run(filled, first, FAILED)
        filled.log("campaign.note", campaign="one", reason="why")
        kinds = ["campaign.created", "trial.started", "trial.finished", "campaign.note"]
        assert [e.kind for e in filled.events("one")] == kinds
        assert filled.events("one")[-1].detail == {"reason": "why"}
        assert filled.events("other") == ()
