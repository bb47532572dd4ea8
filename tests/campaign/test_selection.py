"""Selection of quartets and turns of the adaptive sampler."""

import math
import os
from dataclasses import replace
from itertools import combinations

import pytest

from nngen.analysis.effects import effects, more_quartets, scores_of
from nngen.analysis.observations import observe
from nngen.analysis.report import collect
from nngen.archive import Archive
from nngen.campaign.budget import Budget
from nngen.campaign.protocols import Suggestion, Watcher
from nngen.campaign.selection import ChosenQuartets, source_of
from nngen.campaign.summary import summarise
from nngen.errors import ArchiveError, UsageError
from nngen.plan import Plan
from nngen.seeds import derive
from nngen.space import SAMPLERS
from nngen.space.registry import Choice, SamplerEntry
from nngen.testing.fakes import FakeEngine, fake_inputs
from nngen.testing.fakes import fake_campaign as campaign
from nngen.types import Outcome, Shape

TWENTY = "ABCDEFGHIJKLMNOPQRST"


class Skilled(FakeEngine):
    """Engine whose accuracies are sums over families; later letters add more."""

    def train(self, job, on_epoch=None):
        trial = super().train(job, on_epoch)
        worth = sum(TWENTY.index(name) for name in job.candidate.plan.experts) / 80
        return replace(trial, validation_accuracy=worth + job.spec.seed % 100 / 1e5)


def quartets(archive, name):
    return [trial.experts for trial in archive.trials(name)]


def explored(archive, name):
    return [flag for event in archive.events(name) for flag in event.detail.get("explored", ())]


def test_known_quartets_are_passed_over_failures_too(archive):
    campaign(archive, size=20, engine=FakeEngine(checks={"A": Outcome.SHAPE})).run()
    campaign(archive, name="two", size=15, skip_known=True).run()
    assert not set(quartets(archive, "one")) & set(quartets(archive, "two"))
    assert archive.campaign("two").known == 20
    with pytest.raises(UsageError, match="only 0 are not known"):
        campaign(archive, name="three", size=1, skip_known=True).run()
    campaign(archive, name="elsewhere", size=20, skip_known=True, shape=Shape(3, 8, 8)).run()
    assert quartets(archive, "elsewhere") == quartets(archive, "one")
    assert [c.name for c in archive.campaigns()] == ["one", "two", "elsewhere"]


def test_low_yield_families_are_left_out_and_the_reason_kept(archive):
    campaign(archive, size=35, engine=FakeEngine(trials={"A": Outcome.MEMORY})).run()
    campaign(archive, name="two", size=10, exclude_low_yield=True).run()
    record = archive.campaign("two")
    assert sorted(record.pool) == list("BCDEFG")
    assert record.left_out["A"].startswith("A: 0 of 20 quartets trained")
    assert not any("A" in quartet for quartet in quartets(archive, "two"))
    before = quartets(archive, "two")
    campaign(archive, name="two", size=10, exclude_low_yield=True).run()
    assert quartets(archive, "two") == before


def adaptive(archive, name="one", engine=None, **more):
    return campaign(
        archive, name=name, size=60, sampler="adaptive", epochs=1, inputs=fake_inputs(TWENTY), engine=engine, **more
    )


@pytest.mark.long
def test_adaptive_learns_and_keeps_exploring(archive):
    adaptive(archive, engine=Skilled()).run()
    taken, flags = quartets(archive, "one"), explored(archive, "one")
    assert len(taken) == len(set(taken)) == len(flags) == 60
    assert all(sum(flags[:n]) >= 0.25 * n for n in range(1, 61))
    assert sum(flags) < 45
    chosen = [quartet for quartet, flag in zip(taken, flags, strict=True) if not flag]
    assert sum(TWENTY.index(name) for quartet in chosen for name in quartet) / len(chosen) / 4 > 12


@pytest.mark.long
def test_adaptive_resumes_where_it_was_killed(tmp_path):
    with Archive.open(tmp_path / "whole.db") as whole:
        adaptive(whole, engine=Skilled()).run()
        wanted = quartets(whole, "one"), explored(whole, "one")
    for boundary in (150, 400):
        path = tmp_path / f"{boundary}.db"
        child = os.fork()
        if child == 0:
            left = boundary

            def trace(statement):
                nonlocal left
                left -= statement.startswith(("BEGIN", "INSERT", "UPDATE", "COMMIT"))
                if left < 0:
                    os._exit(9)

            with Archive.open(path) as archive:
                archive._db.set_trace_callback(trace)
                adaptive(archive, engine=Skilled()).run()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        with Archive.open(path) as archive:
            assert 0 < len(archive.trials("one")) < 60
            told = summarise(archive, "one")
            assert (told.total, told.done < 60) == (60, True)
            report = collect(archive, "one")
            assert any("of 60 quartets are not drawn yet" in sentence for sentence in report.missing)
            assert report.remaining.trials == 60 - told.done
            adaptive(archive, engine=Skilled()).run()
            assert (quartets(archive, "one"), explored(archive, "one")) == wanted


@pytest.mark.long
def test_adaptive_begins_with_what_the_archive_knows(archive):
    campaign(archive, size=100, epochs=1, inputs=fake_inputs(TWENTY), engine=Skilled()).run()
    adaptive(archive, name="two", engine=Skilled(), skip_known=True).run()
    assert not all(explored(archive, "two")[:5])
    assert not set(quartets(archive, "one")) & set(quartets(archive, "two"))


def test_a_sampler_of_fixed_order_suggests_everything_at_once(archive):
    run = campaign(archive)
    run.run()
    record, trials = archive.campaign("one"), archive.trials("one")
    assert source_of(run.spec).suggest(record, trials, archive) == ()


def test_a_sampler_that_learns_suggests_nothing_beyond_the_size(archive):
    run = campaign(archive, sampler="adaptive", size=5)
    run.run()
    assert source_of(run.spec).suggest(archive.campaign("one"), archive.lines("one"), archive) == ()


class Suspect(Skilled):
    """Engine that marks every mixture with A, and gives all of them the same accuracy."""

    def __init__(self, accuracy):
        super().__init__()
        self.accuracy = accuracy

    def train(self, job, on_epoch=None):
        trial = super().train(job, on_epoch)
        if "A" not in job.candidate.plan.experts:
            return trial
        return replace(trial, validation_accuracy=self.accuracy, suspect="2 passes in epoch 1")


@pytest.mark.long
def test_adaptive_does_not_learn_from_suspect_accuracies():
    chosen = []
    for accuracy in (0.99, 0.01):
        with Archive.in_memory() as archive:
            adaptive(archive, engine=Suspect(accuracy)).run()
            chosen.append(quartets(archive, "one"))
    assert chosen[0] == chosen[1]


def test_events_that_do_not_say_what_was_explored_are_named_in_one_line(archive):
    run = adaptive(archive, engine=Skilled())
    run.run()
    archive.log("campaign.extended", campaign="one", trials=5)
    with pytest.raises(ArchiveError, match="do not say which quartets were explored"):
        source_of(run.spec).suggest(archive.campaign("one"), archive.lines("one"), archive)


def test_adaptive_says_what_it_cannot_do(archive):
    with pytest.raises(UsageError, match="only 35"):
        campaign(archive, sampler="adaptive", size=36).run()
    with pytest.raises(UsageError, match="--min-explore"):
        campaign(archive, sampler="adaptive", min_explore=0)
    assert archive.campaigns() == ()


def test_a_campaign_runs_with_a_sampler_added_by_one_registry_entry(archive, monkeypatch):
    def last_free(pool, size, seed, scores, *, before=(), known=(), min_explore=0.25):
        taken = {choice.quartet for choice in before} | set(known)
        free = [quartet for quartet in combinations(pool.families, pool.k) if quartet not in taken]
        return tuple(Choice(quartet=quartet, explored=False) for quartet in free[: -size - 1 : -1])

    monkeypatch.setitem(SAMPLERS, "last", SamplerEntry(summary="a toy that learns", choose=last_free))
    campaign(archive, sampler="last", size=5).run()
    assert quartets(archive, "one") == list(combinations("ABCDEFG", 4))[:-6:-1]
    assert explored(archive, "one") == [False] * 5


class Heard(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_a_campaign_says_how_many_quartets_its_pool_needs(archive):
    few, enough = Heard(), Heard()
    campaign(archive, size=7, watcher=few).run()
    assert few.lines[-1] == (
        "too few quartets (7) for an effect of each of 7 families: at least 8 must be trained (--size 8)"
    )
    campaign(archive, name="two", size=8, watcher=enough).run()
    assert enough.lines[-1] == "an effect of each of 7 families needs at least 8 trained quartets: 8 are drawn"
    shown = effects(observe(archive.lines("one")), "ABCDEFG")
    assert (shown.needed, any(row.interval for row in shown.families)) == (8, False)
    assert more_quartets(shown, "one", 7) == (
        "an effect with an interval for each of 7 families needs at least 8 trained quartets: "
        "nngen campaign run one --size 8 draws more"
    )
    assert all(row.interval for row in effects(observe(archive.lines("two")), "ABCDEFG").families)
    assert more_quartets(effects(observe(archive.lines("two")), "ABCDEFG"), "two", 8) == ""


def test_a_sample_that_leaves_families_alike_needs_more(archive):
    heard = Heard()
    campaign(archive, size=12, sampler="lexicographic", watcher=heard).run()
    assert "too few quartets (12) for an effect of each of 7 families: at least 13 must" in heard.lines[-1]
    assert effects(observe(archive.lines("one")), "ABCDEFG").needed == 13


def test_failures_are_counted_on(archive):
    campaign(archive, size=10, engine=FakeEngine(trials={"A": Outcome.MEMORY})).run()
    found = effects(observe(archive.lines("one")), "ABCDEFG")
    asked = more_quartets(found, "one", 10)
    assert f"--size {math.ceil(found.needed * 10 / found.trained)} " in asked


def test_a_sampler_that_learns_is_given_what_is_known_and_asked_for_a_turn(archive):
    parts = {"inputs": fake_inputs("ABCDE"), "size": 4, "sampler": "adaptive", "skip_known": True, "min_explore": 0.5}
    campaign(archive, budget=Budget(max_trials=1), **parts).run()
    campaign(archive, name="other", inputs=fake_inputs("ABCDEF"), size=15, seed=3).run()
    asked = []

    def choose(*arguments, **options):
        asked.append((arguments, options))
        return (Choice(quartet=tuple("ABCE"), explored=False),)

    record, trials = archive.campaign("one"), archive.lines("one")
    found = ChosenQuartets(chooser=choose).suggest(record, trials, archive)
    assert found == [Suggestion(plan=Plan(experts=tuple("ABCE")), explored=False)]
    ((pool, turn, seed, scores), options) = asked[0]
    # Of four quartets two are stored. All five of the pool are known by now, which is refused at the beginning alone.
    assert (pool.families, turn, seed) == (tuple("ABCDE"), 2, derive(0, "campaign", "adaptive"))
    before = tuple(Choice(quartet=trial.experts, explored=True) for trial in trials)
    known = frozenset(combinations("ABCDEF", 4))
    assert (len(trials), options) == (2, {"before": before, "known": known, "min_explore": 0.5})
    lines = observe([*archive.lines("other"), *trials])
    assert scores == scores_of(effects([line for line in lines if "F" not in line.quartet], "ABCDE"))
    begins = replace(record, spec=replace(record.spec, name="new"))
    with pytest.raises(UsageError, match="4 new quartets were asked for, but only 0 are not known already"):
        ChosenQuartets(chooser=choose).suggest(begins, (), archive)
    with pytest.raises(UsageError, match="5 new quartets were asked for, but only 0 are not known already"):
        ChosenQuartets(chooser=choose).suggest(replace(record, spec=replace(record.spec, size=5)), trials, archive)
    assert len(asked) == 1


def test_a_sampler_that_learns_may_take_every_quartet_that_is_left(archive):
    parts = {"inputs": fake_inputs("ABCDE"), "sampler": "adaptive", "skip_known": True}
    campaign(archive, size=2, **parts).run()
    campaign(archive, name="two", size=3, **parts).run()
    assert {*quartets(archive, "one"), *quartets(archive, "two")} == set(combinations("ABCDE", 4))
    four = parts | {"inputs": fake_inputs("ABCD"), "size": 1}
    assert "ABCD" in ["".join(quartet) for quartet in quartets(archive, "one") + quartets(archive, "two")]
    with pytest.raises(UsageError, match="1 new quartets were asked for, but only 0 are not known already"):
        campaign(archive, name="three", **four).run()
