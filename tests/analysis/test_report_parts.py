"""Parts of a report: which figures have data, what is missing, environments, arguments, limits, and refusals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from nngen.analysis.quality.baselines import baselines_of
from nngen.analysis.quality.metrics import quality_of
from nngen.analysis.report import (
    _arguments,
    _environments,
    _explored,
    _limits,
    _missing,
    _resolved,
    collect,
    write_report,
)
from nngen.analysis.results import Funnel, template_note
from nngen.archive import Archive, LoopRole
from nngen.errors import UsageError
from nngen.testing.fakes import fake_campaign, fake_record


@pytest.fixture(scope="module")
def archive():
    with Archive.in_memory() as archive:
        fake_campaign(archive, name="full", size=30).run()
        yield archive


@pytest.fixture(scope="module")
def report(archive):
    return collect(archive, "full", price_per_hour=3600.0)


def without_point(effects):
    return replace(effects, families=tuple(replace(row, point=None) for row in effects.families))


def cut(trial, points):
    return replace(trial, curve=trial.curve[:points])


def test_a_figure_is_drawn_where_it_has_data(report):
    every = {"ranking", "funnel", "coverage", "effects", "pairs", "curves", "gates"}
    assert report.drawn == every
    unknown, none = without_point(report.effects), replace(report.funnel, trained=0)
    assert replace(report, rows=report.rows[:2]).drawn == every
    assert replace(report, rows=report.rows[:1]).drawn == every - {"ranking"}
    assert replace(report, rows=()).drawn == every - {"ranking"}
    assert replace(report, funnel=replace(report.funnel, drawn=0)).drawn == every - {"funnel"}
    assert replace(report, coverage=replace(report.coverage, quartets=0)).drawn == every - {"coverage"}
    assert replace(report, effects=replace(report.effects, pairs=())).drawn == every - {"pairs"}
    assert replace(report, effects=unknown).drawn == every - {"effects"} | {"families"}
    assert replace(report, effects=unknown, funnel=none).drawn == every - {"effects"}
    assert replace(report, funnel=none).drawn == every
    one = replace(report.funnel, drawn=1, trained=1)
    assert replace(report, funnel=one, coverage=replace(report.coverage, quartets=1)).drawn == every
    assert replace(report, effects=unknown, funnel=one).drawn == every - {"effects"} | {"families"}
    short = [cut(trial, 1) for trial in report.trials]
    untrained = replace(report.trials[0], validation_accuracy=None)
    assert replace(report, trials=(*short, untrained)).drawn == every - {"curves"}
    assert replace(report, trials=(*short, report.trials[0])).drawn == every
    assert replace(report, trials=()).drawn == every - {"curves", "gates"}


def test_rows_are_split_by_fidelity(report):
    first, second = replace(report.rows[0], rank=1), replace(report.rows[0], rank=2)
    found = replace(report, rows=(first, second, first))
    assert found.rankings == [[first, second], [first]]
    assert (found.ranked, found.best) == ([first, second], first)
    assert set(found.family_effects) == set("ABCDEFG")
    nothing = replace(report, rows=())
    assert (nothing.rankings, nothing.ranked, nothing.best) == ([], (), None)


NOT_DONE = "1 of 3 trials are not done yet: run the campaign again."
NOT_DRAWN = "2 of 5 quartets are not drawn yet: the sampler waits for results."
NONE = "No candidate could be trained, so no accuracies can be compared; the verdicts give the reasons."
ONE = "Only one candidate was trained: nothing can be concluded about families."


@pytest.mark.parametrize(
    ("trials", "done", "trained", "undrawn", "missing"),
    [
        (0, 0, 0, 2, ("The campaign has no trials.",)),
        (3, 3, 2, 0, ()),
        (3, 2, 2, 0, (NOT_DONE,)),
        (3, 3, 2, 2, (NOT_DRAWN,)),
        (3, 3, 0, 0, (NONE,)),
        (3, 3, 1, 0, (ONE,)),
        (3, 0, 0, -1, ("3 of 3 trials are not done yet: run the campaign again.",)),
        (3, 2, 1, 2, (NOT_DONE, NOT_DRAWN, ONE)),
    ],
)
def test_what_is_missing_is_said_in_sentences(trials, done, trained, undrawn, missing):
    came = Funnel(drawn=trials, done=done, assembled=done, checked=done, trained=trained)
    assert _missing([None] * trials, came, undrawn=undrawn) == missing


def test_trials_are_counted_by_environment():
    def ran(environment, isolation="process", data="d"):
        return SimpleNamespace(environment=environment, isolation=isolation, data_fingerprint=data)

    trials = [ran({"torch": "2", "cpu": ""}), ran({"torch": "3"}, ""), ran({"torch": "2", "cpu": ""}), ran({}, "", "")]
    assert _environments(trials) == (
        ({"data": "d", "isolation": "process", "torch": "2"}, 2),
        ({"data": "d", "torch": "3"}, 1),
    )
    assert list(_environments(trials)[0][0]) == ["data", "isolation", "torch"]


def test_arguments_are_written_in_words():
    found = _arguments(fake_record("one", rungs_continue=False, skip_known=True, rungs=(1, 2), epochs=2))
    assert not {"families", "name", "train size", "train_size"} & found.keys()
    assert (found["skip known"], found["rungs continue"], found["size"], found["reduction factor"]) == (
        *("yes", "no"),
        *(1, 3),
    )


def test_the_limits_end_with_answers_of_a_table_and_what_was_saved(monkeypatch):
    record = fake_record("one")
    store = SimpleNamespace(replayed=lambda _: {"table.recorded": 2}, trials=lambda name: [name])
    monkeypatch.setattr("nngen.analysis.report.saving", lambda spec, trials: SimpleNamespace(sentence=trials[0]))
    answers = "2 trials answered from a recorded table, not trained: 2 recorded (100%)"
    assert _limits(store, record, ()) == (answers,)
    early = fake_record("early", stop_early=True, rungs=(2, 3), epochs=3)
    assert _limits(store, early, ()) == (answers, "early")
    store.replayed = lambda _: {}
    assert _limits(store, early, ()) == ("early",)
    monkeypatch.setattr("nngen.analysis.report.saving", lambda *_: None)
    assert _limits(store, early, ()) == ()


def test_only_a_sampler_that_learns_explores(archive, report):
    assert report.explored is None
    alone = fake_record("one", sampler="alone")
    assert _explored(archive, alone) is None
    learning = fake_record("one", sampler="adaptive")
    events = [SimpleNamespace(detail={"explored": [True, False, True]}), SimpleNamespace(detail={})]
    assert _explored(SimpleNamespace(events=lambda _: events), learning) == 2


def test_the_name_of_a_loop_is_that_of_its_last_cycle():
    with Archive.in_memory() as archive:
        for cycle, role in enumerate((LoopRole.CYCLE, LoopRole.JUDGE)):
            fake_campaign(archive, name=f"c{cycle}", size=1, loop="l", cycle=0, role=role).run()
        assert [_resolved(archive, name) for name in ("l", "c0", "c1", "x")] == ["c0", "c0", "c1", "x"]
        fake_campaign(archive, name="l", size=1, seed=1).run()
        assert _resolved(archive, "l") == "l"


def test_a_campaign_without_a_pool_or_of_families_alone_is_refused(archive):
    record = archive.campaign("full")
    archive.add_campaign(replace(record, pool={}, spec=replace(record.spec, name="files")), [])
    with pytest.raises(UsageError) as error:
        collect(archive, "files")
    assert str(error.value) == (
        "campaign files has files and no pool of families to report on: nngen leaderboard files ranks them"
    )
    archive.add_campaign(replace(record, spec=replace(record.spec, name="alone", sampler="alone")), [])
    with pytest.raises(UsageError) as error:
        collect(archive, "alone")
    assert str(error.value) == (
        "campaign alone holds families alone: nngen leaderboard alone ranks them, and the report of the campaign that"
        " they belong to compares its mixtures with them"
    )


def test_the_price_and_the_rest_of_a_campaign_are_counted(archive, report, monkeypatch):
    monkeypatch.setattr(Archive, "template_versions", lambda *_: {0: 2})
    assert collect(archive, "full").templates == ""
    assert report.cost.total.money == pytest.approx(30.0)  # one second each
    record = archive.campaign("full")
    archive.add_campaign(
        replace(record, spec=replace(record.spec, name="half", size=9, epochs=1)), [t.plan for t in report.trials[:4]]
    )
    for ready, trial in zip(archive.trials("half")[:2], report.trials, strict=False):
        archive.start_trial(ready.id)
        archive.finish_trial(ready.id, result_of(trial))
    found = collect(archive, "half", price_per_hour=3600.0)
    assert found.missing == (
        "2 of 4 trials are not done yet: run the campaign again.",
        "5 of 9 quartets are not drawn yet: the sampler waits for results.",
    )
    assert (found.remaining.trials, found.remaining.money) == (7, pytest.approx(3.5, rel=1e-3))
    assert (found.revealed, found.coverage.quartets) == (0, 2)
    assert found.templates == template_note({0: 2}, over=False) != ""


def result_of(trial):
    from nngen.types import Trial

    return Trial(
        candidate_id=trial.candidate_id,
        spec=trial.spec,
        verdict=trial.verdict,
        validation_accuracy=trial.validation_accuracy,
        curve=trial.curve,
        seconds=1.0,
    )


def test_quality_is_of_the_first_seed_on_the_last_rung(tmp_path, monkeypatch):
    monkeypatch.setattr("nngen.analysis.figure_style.plotly_script", str)
    with Archive.in_memory() as archive:
        changes = {"size": 9, "epochs": 6, "rungs": (2, 6), "finalists": 3, "replicates": 3}
        fake_campaign(archive, name="ladder", **changes).run()
        found = write_report(archive, "ladder", tmp_path / "r.html")
        mine = [trial for trial in archive.trials("ladder") if trial.candidate_id == found.best.id]
        (last,) = (trial for trial in mine if trial.rung == 1 and trial.replicate == 0)
        assert len(mine) == 4
        assert found.quality == quality_of(archive, last)
        assert found.baselines == baselines_of(archive, found.campaign, last.fidelity)
        assert (found.funnel.drawn, found.coverage.quartets, found.best.seeds) == (9, 9, 3)
        assert len({trial.validation_accuracy for trial in mine}) > 1
