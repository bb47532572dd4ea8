"""Imports of LEMUR's records: once, complete, and separate from trials of nngen."""

import json
import os
import sqlite3

import pytest
from fake_lemur import MODELS, make_database, make_tree, source

from nngen.archive import Archive
from nngen.archive import import_lemur as module
from nngen.archive.import_lemur import choose_models, find_twins, fingerprint, import_lemur, kind_of
from nngen.errors import UsageError
from nngen.lemur.source import open_lemur
from nngen.types import Candidate


@pytest.fixture
def tree(tmp_path):
    return make_tree(tmp_path / "lemur")


@pytest.fixture
def database(tree):
    return make_database(tree)


@pytest.fixture
def archive():
    with Archive.in_memory() as made:
        yield made


def take(archive, path, **asked):
    lemur = open_lemur(path)
    return import_lemur(archive, lemur, choose_models(lemur, **asked), dataset=asked.get("dataset"))


@pytest.mark.parametrize("kind", ["checkout", "database"])
def test_everything_is_kept_with_its_fidelity(archive, tree, database, kind):
    found = take(archive, tree if kind == "checkout" else database)
    assert (found.models, found.new_models, found.unreadable) == (6, 6, 1)
    assert (found.trials, found.new_trials, found.orphans) == (5, 5, 0)
    assert {model.name: model.source for model in archive.external.models()} == MODELS
    best, worse, later = archive.external.records(dataset="cifar-10", model="Alpha")
    assert (best.accuracy, worse.accuracy, later.accuracy) == (0.5, 0.4, 0.6)
    assert (best.epoch, later.epoch, best.duration_s) == (1, 2, 1.0)
    assert best.hyperparameters == {"batch": 64, "lr": 0.01, "momentum": 0.9, "transform": "norm_32"}
    assert worse.hyperparameters["lr"] == 0.1


@pytest.mark.long
def test_helper_processes_import_no_module_of_the_current_folder(tmp_path, monkeypatch):
    for name in ("selectors", "struct", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('TAKEN', 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_FEW", 1)
    assert module._fingerprints({"a": "x = 1\n"}, 2, None)["a"].nn_id == fingerprint("x = 1\n").nn_id
    assert not (tmp_path / "TAKEN").exists()


@pytest.fixture
def pools(monkeypatch):
    """Pools that were made: workers, how they start and a variable of the environment; then that they were closed."""
    made = []

    class Pool:
        def __init__(self, workers, mp_context):
            made.append((workers, mp_context.get_start_method(), os.environ.get("PYTHONSAFEPATH")))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            made.append("closed")

        map = staticmethod(map)

    monkeypatch.setattr(module, "ProcessPoolExecutor", Pool)
    return made


@pytest.mark.parametrize(
    ("jobs", "count", "slices"),
    [(2, 500, (250, 500)), (2, 499, (250, 499)), (1, 500, (250, 500)), (3, 501, (250, 500, 501))],
)
def test_500_sources_are_fingerprinted_in_processes_of_their_own(jobs, count, slices, pools):
    done, sources = [], {f"m{number}": f"x = {number}" for number in range(count)}
    prints = module._fingerprints(sources, jobs, lambda *numbers: done.append(numbers))
    assert pools == ([(jobs, "spawn", "1"), "closed"] if jobs > 1 and count >= 500 else [])
    assert done == [(number, 2 * count) for number in slices]
    assert list(prints) == list(sources)
    assert prints["m7"].canonical == fingerprint("x = 7").canonical


@pytest.mark.parametrize("before", [None, "", "yes"])
def test_a_variable_of_the_environment_is_put_back(before, pools, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 1)
    if before is None:
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    module._fingerprints({"a": "x = 1"}, 2, None)
    assert pools == [(2, "spawn", "1"), "closed"]
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_an_import_uses_two_processes_unless_told(archive, tree, pools, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 1)
    take(archive, tree)
    assert [made[0] for made in pools[::2]] == [2]


def test_progress_counts_each_model_twice(archive, tree, monkeypatch):
    """Once when it is fingerprinted, once when results of it are stored; here 2 results at a time, of 2 models."""
    monkeypatch.setattr(module, "_CHUNK", 2)
    monkeypatch.setattr(module, "_SLICE", 4)
    lemur, done = open_lemur(tree), []
    import_lemur(archive, lemur, choose_models(lemur), progress=lambda *numbers: done.append(numbers))
    assert done == [(4, 12), (6, 12), (7, 12), (8, 12), (8, 12)]


def test_sources_with_doubtful_escapes_warn_nobody(archive, tree):
    """Tests treat warnings as errors."""
    (tree / "ab/nn/nn/Delta.py").write_text('x = "\\d"\n')
    found = take(archive, tree)
    assert (found.models, found.unreadable) == (7, 1)


def test_an_import_is_an_event(archive, tree):
    lemur = open_lemur(tree)
    for asked, models, new in (({"dataset": "mnist"}, 1, 1), ({}, 6, 4), ({}, 6, 0)):
        take(archive, tree, **asked)
        last = archive.events()[-1]
        assert (last.kind, last.campaign, last.trial_id) == ("lemur.imported", None, None)
        expected = {"origin": lemur.name, "dataset": asked.get("dataset"), "models": models, "trials": new}
        assert last.detail == expected


def test_results_of_other_models_are_counted(archive, tree):
    lemur = open_lemur(tree)
    found = import_lemur(archive, lemur, ["MoE-hetero2-Alpha-Beta"])
    assert (found.models, found.trials, found.orphans) == (1, 1, 4)
    assert archive.external.counts() == {"models": 1, "series": 1, "settings": 1, "trials": 1}


def test_the_id_of_hyperparameters_is_one_short_line(archive, tree):
    file = tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha/1.json"
    [first] = json.loads(file.read_text())
    odd = [first | {"uid": "a\nb"}, first | {"uid": "u" * 200}, first | {"uid": 7}]
    del first["uid"]
    file.write_text(json.dumps([*odd, first]))
    take(archive, tree, dataset="mnist")
    uids = [uid for (uid,) in archive._db.execute("SELECT uid FROM foreign_settings ORDER BY id")]
    assert uids == ["a b", "u" * 99 + "…", "7", ""]


def test_twice_adds_nothing(archive, tree):
    take(archive, tree)
    before = archive.external.counts()
    again = take(archive, tree)
    assert (again.new_models, again.new_trials, again.trials) == (0, 0, 5)
    assert archive.external.counts() == before


def test_new_records_are_added(archive, tree):
    take(archive, tree)
    file = tree / "ab/nn/stat/train/img-classification_cifar-10_acc_Beta/1.json"
    donor = tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha/1.json"
    file.write_text(donor.read_text())
    assert take(archive, tree).new_trials == 1
    assert [record.accuracy for record in archive.external.records(model="Beta")] == [0.9]


def test_an_import_that_died_goes_on(archive, tree, monkeypatch):
    monkeypatch.setattr("nngen.archive.import_lemur._CHUNK", 2)
    lemur, died = open_lemur(tree), []

    def die(done, total):
        died.append(done)
        if done > len(MODELS):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_lemur(archive, lemur, choose_models(lemur), progress=die)
    assert archive.external.counts()["trials"] == 2
    assert take(archive, tree).new_trials == 3


def test_twins_in_three_senses(archive, tree):
    twins = take(archive, tree).twins
    assert twins.white_space == (("Beta", "Beta-twin"),)
    assert twins.canonical == (("Beta", "Beta-twin", "Gamma"),)
    assert twins.near == (("Alpha", "Beta", "Beta-twin"),)


def test_near_twins_differ_in_a_few_tokens():
    lines = [f"layer_{number} = make({number}, width={number * 7})" for number in range(200)]
    near = [*lines[:100], "layer_100 = make(100, width=3)", *lines[101:]]
    far = [line.replace("layer", "block").replace("make", "build") for line in lines]
    prints = {name: fingerprint("\n".join(text)) for name, text in (("a", lines), ("b", near), ("c", far))}
    twins = find_twins(prints)
    assert (twins.white_space, twins.canonical, twins.near) == ((), (), (("a", "b"),))


def test_twins_are_two_or_more():
    prints = {name: fingerprint(text) for name, text in (("b", "x = 1\n"), ("c", "y = 2"), ("a", "x = 1  # same"))}
    twins = find_twins(prints)
    assert (twins.white_space, twins.canonical) == ((), (("a", "b"),))


def test_own_candidates_that_lemur_knows(archive, tree):
    archive.add_candidate(Candidate(id="MoE4-" + "1" * 32, source=source(8) + "\n", canonical="c"))
    assert take(archive, tree).known == ("MoE4-" + "1" * 32,)


def test_kinds():
    assert [kind_of(name) for name in ("Alpha", "MoE-hetero2-A-B", "MoEv7", "ga-1", "Alpha-0123abcd")] == [
        "base",
        "hetero",
        "mixture",
        "generated",
        "generated",
    ]


def test_one_kind_on_one_data_set(archive, tree):
    found = take(archive, tree, dataset="cifar-10", kind="hetero")
    assert (found.models, found.trials, found.orphans) == (1, 1, 3)
    assert [model.kind for model in archive.external.models()] == ["hetero"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dataset": "nope"}, "no results on 'nope'; it has some on cifar-10, mnist"),
        ({"dataset": "mnist", "kind": "hetero"}, "no results of kind hetero on 'mnist'"),
        ({"kind": "other"}, "^no kind of model is called 'other': choose any or hetero$"),
    ],
)
def test_nothing_to_import(tree, asked, message):
    with pytest.raises(UsageError, match=message):
        choose_models(open_lemur(tree), **asked)


def test_a_lemur_without_mixtures_has_none_to_import(tree):
    (tree / "ab/nn/nn/MoE-hetero2-Alpha-Beta.py").unlink()
    lemur = open_lemur(tree)
    with pytest.raises(UsageError) as caught:
        choose_models(lemur, kind="hetero")
    assert str(caught.value) == f"{lemur.name} holds no model of kind hetero: choose --kind any"
    assert choose_models(lemur) == sorted(MODELS.keys() - {"MoE-hetero2-Alpha-Beta"})
    assert choose_models(lemur, dataset="mnist") == ["Alpha"]


def test_broken_results_are_named_and_left_out(archive, tree, caplog):
    whole = take(archive, tree).trials
    (tree / "ab/nn/stat/train/img-classification_mnist_acc_Alpha/1.json").write_text("[{")
    assert 0 < take(archive, tree).trials < whole
    assert "mnist_acc_Alpha/1.json is broken" in caplog.text


def test_foreign_facts_cannot_be_changed(tmp_path, tree):
    with Archive.open(tmp_path / "a.db") as archive:
        take(archive, tree)
    db = sqlite3.connect(tmp_path / "a.db")
    for statement in ("UPDATE foreign_trials SET accuracy = 1", "DELETE FROM foreign_models"):
        with pytest.raises(sqlite3.DatabaseError, match="keeps its foreign"):
            db.execute(statement)
    db.close()


def test_the_command(nngen, tree, tmp_path):
    done = nngen("lemur", "import", "--from", tree, "--archive", tmp_path / "a.db", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["new_trials"] == 5
    bad = nngen("lemur", "import", "--from", tree, "--archive", tmp_path / "b.db", "--dataset", "nope")
    assert (bad.code, bad.out) == (2, "")
    assert not (tmp_path / "b.db").exists()


@pytest.mark.slow
def test_a_family_of_the_real_wheel(archive, lemur):
    names = [name for name in choose_models(lemur, dataset="cifar-10") if kind_of(name) == "base"]
    found = import_lemur(archive, lemur, names, dataset="cifar-10")
    assert found.models == len(names) >= 34
    theirs = sorted(record.accuracy for record in lemur.records("ResNet", "cifar-10"))
    assert sorted(record.accuracy for record in archive.external.records(dataset="cifar-10", model="ResNet")) == theirs
