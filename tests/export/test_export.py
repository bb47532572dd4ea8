"""Exports in LEMUR's layout: once, complete, and readable by nngen's reader of LEMUR."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_lemur import source

from nngen.errors import ArchiveError, DataError, ExportError, UsageError
from nngen.export.database import export_to_database
from nngen.export.folder import export_to_folder
from nngen.export.journal import staging
from nngen.export.model_card import card, requirements
from nngen.export.selection import TrainedFiles, gather, select
from nngen.export.weights import with_weights
from nngen.lemur.layout import LemurVersion, uid
from nngen.lemur.records import Results
from nngen.lemur.source import open_lemur

OLD, NEW = LemurVersion.V2_1_2, LemurVersion.V2_2_11


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# Choosing and scoring


def test_only_valid_trials_of_the_accuracy_asked_for(store):
    assert [t.validation_accuracy for t in select(store, campaign="one")] == [0.75, 0.5, 0.25]
    assert [t.validation_accuracy for t in select(store, campaign="one", min_accuracy=0.5)] == [0.75, 0.5]
    first = store.trials("one")[0].candidate_id
    assert [t.candidate_id for t in select(store, ids=[first[:12], first])] == [first]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "a campaign, --id ID, or both"),
        ({"campaign": "one", "ids": ["x"]}, "no candidate 'x'"),
        ({"campaign": "two"}, "no campaign 'two'"),
        ({"ids": ["nothing"]}, "no candidate 'nothing'"),
        ({"campaign": "one", "min_accuracy": 0.8}, r"no trial of at least 0.8 \(the best has 0.7500\)"),
        ({"campaign": "one", "min_accuracy": 80}, "share between 0 and 1"),
    ],
)
def test_nothing_to_export(store, asked, message):
    with pytest.raises(UsageError, match=message):
        select(store, **asked)


def test_the_accuracy_is_the_test_splits_and_revealed_once(store, exports, digits):
    size = len(digits.test_labels)
    assert [e.score.accuracy for e in exports] == [300 / size, 200 / size, 100 / size]
    assert [t.test_accuracy for t in store.trials("one")[:3]] == [300 / size, 200 / size, 100 / size]
    again = gather(store, select(store, campaign="one"), lambda *_: digits)
    assert [e.score for e in again] == [e.score for e in exports]


def test_recorded_hyperparameters_are_those_the_model_supports(exports):
    score = exports[0].score
    assert score.prm == {"batch": 64, "epoch": 2, "lr": 0.001, "momentum": 0.9, "transform": "norm_32"}
    assert (score.epoch, score.duration_ns) == (2, 3_500_000_000)
    assert score.train_stat["train_loss"] == 1.0
    assert score.train_stat["cpu_count"] == 2
    assert score.train_stat["test_loss"] is None


def test_other_data_is_noticed_before_anything_is_revealed(store, digits):
    with pytest.raises(DataError, match="fingerprint differs"):
        gather(store, select(store, campaign="one"), lambda *_: replace(digits, fingerprint="other"))
    assert {t.test_accuracy for t in store.trials("one")} == {None}


def test_a_trial_without_predictions(store, digits, monkeypatch):
    monkeypatch.setattr(type(store), "predictions", lambda *_: b"")
    with pytest.raises(ArchiveError, match="no test predictions"):
        gather(store, select(store, campaign="one"), lambda *_: digits)


def test_an_underscore_in_a_name_is_refused(store, digits):
    with pytest.raises(UsageError, match="data set 'my_digits' has an underscore"):
        gather(store, select(store, campaign="one"), lambda *_: digits, dataset_name="my_digits")
    assert {t.test_accuracy for t in store.trials("one")} == {None}


def test_trials_are_chosen_by_campaign_id_and_data_set_together(store, digits):
    first, second, _ = store.trials("one")[:3]
    assert [t.id for t in select(store, campaign="one", ids=[first.candidate_id])] == [first.id]
    assert len(select(store, ids=[first.candidate_id, second.candidate_id], dataset="digits")) == 2
    with pytest.raises(UsageError, match="nothing was trained on mnist: its trials are on digits"):
        select(store, campaign="one", dataset="mnist")


def test_one_name_is_refused_for_several_data_sets(store, digits):
    """Another data set's accuracy must not be exported under the name of the user's photographs."""
    trial = select(store, campaign="one")[0]
    photos, faces, known = (
        replace(trial, id=trial.id + 10 * turn, spec=replace(trial.spec, dataset=name))
        for turn, name in enumerate(("folder:photos", "folder:faces", "cifar-10"), start=1)
    )
    for trials in ((trial, photos), (photos, faces), (photos, faces, known)):
        with pytest.raises(UsageError, match="would name 2 data sets alike") as failure:
            gather(store, trials, lambda *_: digits, dataset_name="mine")
        assert "folder:photos): choose one with --dataset" in str(failure.value)
    with pytest.raises(UsageError, match="LEMUR has a name for cifar-10"):
        gather(store, [known], lambda *_: digits, dataset_name="mine")
    assert {t.test_accuracy for t in store.trials("one")} == {None}
    mixed = gather(store, [trial, replace(known, id=trial.id)], lambda *_: digits, dataset_name="mine")
    assert [export.results.dataset for export in mixed] == ["mine", "cifar-10"]


def test_weights_of_each_data_set_come_from_its_own_best_trial(exports, tmp_path):
    first, second = exports[0], replace(exports[0], results=exports[0].results._replace(dataset="mine"))
    better = replace(second, trial=replace(second.trial, id=99, validation_accuracy=0.9))
    assert with_weights([first, second, better]) == (better, first)
    made = [
        TrainedFiles(
            export=one, weights=one.results.dataset.encode(), onnx=None, reason="", difference=None, kept=False,
            same=True, test_accuracy=0.5,
        )
        for one in (better, first)
    ]  # fmt: skip
    export_to_folder(tmp_path / "out", [first, better], OLD, made)
    for one in (first, better):
        folder = tmp_path / "out" / "weights" / one.candidate.id / one.results.dataset
        assert (folder / "model.safetensors").read_bytes() == one.results.dataset.encode()
        config = json.loads((folder / "config.json").read_text())
        assert config["trial"]["validation_accuracy"] == one.trial.validation_accuracy
        assert config["class_names"] == list("0123456789")
    card = (tmp_path / f"out/cards/{first.candidate.id}.md").read_text()
    assert all(f"`weights/{first.candidate.id}/{name}`" in card for name in ("digits", "mine"))


# Into a folder


def test_a_new_folder_holds_exactly_this(tmp_path, exports):
    written = export_to_folder(tmp_path / "out", exports, OLD)
    assert [line.new for line in written] == [True, True, True]
    names = [e.candidate.id for e in exports]
    stem = "ab/nn/stat/train/img-classification_digits_acc_"
    assert set(contents(tmp_path / "out")) == {
        *(f"ab/nn/nn/{name}.py" for name in names),
        *(f"{stem}{name}/2.json" for name in names),
        *(f"cards/{name}.md" for name in names),
    }
    assert not (tmp_path / "out/.nngen-export").exists()


def test_our_own_reader_finds_it_again(tree, exports):
    export_to_folder(tree, exports, OLD)
    lemur = open_lemur(tree)
    for export in exports:
        assert lemur.source(export.candidate.id) == export.candidate.source
        (record,) = lemur.records(export.candidate.id, "digits")
        assert (record.epoch, record.accuracy) == (2, export.score.accuracy)
        assert record.duration_s == 3.5
        assert record.hyperparameters == {k: v for k, v in export.score.prm.items() if k != "epoch"}


def test_a_file_of_2_1_2_letter_by_letter(tmp_path, exports):
    (written, *_) = export_to_folder(tmp_path / "out", exports[:1], OLD)
    text = (tmp_path / "out" / written.place).read_text()
    (trial,) = json.loads(text)
    assert text == json.dumps([trial], indent=4)
    assert list(trial) == ["accuracy", "batch", "duration", "epoch", "lr", "momentum", "transform", "uid"]
    assert trial["uid"] == uid(trial)


def test_2_2_11_gets_its_figures(tmp_path, exports):
    (written, *_) = export_to_folder(tmp_path / "out", exports[:1], NEW)
    (trial,) = json.loads((tmp_path / "out" / written.place).read_text())
    assert trial["metric_acc"] == trial["accuracy"] == trial["train_stat"]["best_accuracy"]
    assert trial["train_stat"]["cpu_type"] == "a processor"
    assert trial["model"] == exports[0].candidate.id


def test_twice_changes_no_byte(tree, exports):
    export_to_folder(tree, exports, OLD)
    before = contents(tree)
    again = export_to_folder(tree, exports, OLD)
    assert not any(line.new for line in again)
    assert contents(tree) == before


def test_merging_is_lemurs(tmp_path, renamed):
    first, better = renamed
    export_to_folder(tmp_path / "out", [first], OLD)
    (written,) = export_to_folder(tmp_path / "out", [better], OLD)
    trials = json.loads((tmp_path / "out" / written.place).read_text())
    assert [trial["accuracy"] for trial in trials] == [0.99, first.score.accuracy]


def test_a_transform_the_target_lacks_is_written(tree, exports):
    (tree / "ab/nn/transform/norm_32.py").unlink()
    (written, *_) = export_to_folder(tree, exports, OLD)
    name = written.export.transform.name
    assert (tree / f"ab/nn/transform/{name}.py").read_text() == written.export.stand_in.source
    (trial,) = json.loads((tree / written.place).read_text())
    assert (trial["transform"], trial["uid"]) == (name, uid(trial))


def test_a_folder_with_our_transforms_alone_lacks_none_of_lemurs(tmp_path, exports):
    mixed = [exports[0], exports[1].standing_in()]
    export_to_folder(tmp_path / "out", mixed, OLD)
    before = contents(tmp_path / "out")
    assert not any(line.new for line in export_to_folder(tmp_path / "out", mixed, OLD))
    assert contents(tmp_path / "out") == before


def test_another_program_under_the_name_is_kept(tree, exports):
    path = tree / f"ab/nn/nn/{exports[1].candidate.id}.py"
    path.write_text(exports[1].candidate.source + "\n\n")
    before = contents(tree)
    with pytest.raises(ExportError, match="differs in white space only"):
        export_to_folder(tree, exports, OLD)
    assert contents(tree) == before


@pytest.mark.parametrize("broken", ["{", '{"a": 1}', "[1]", "[{}]"])
def test_broken_results_are_kept(tree, exports, broken):
    folder = tree / "ab/nn/stat/train" / "_".join(exports[0].results)
    folder.mkdir()
    (folder / "2.json").write_text(broken)
    before = contents(tree)
    with pytest.raises(ExportError, match="does not hold LEMUR's results"):
        export_to_folder(tree, exports, OLD)
    assert contents(tree) == before


def test_a_target_that_cannot_be_written(tmp_path, exports):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot export to"):
        export_to_folder(tmp_path / "file/under", exports, OLD)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_target_that_may_not_be_written(tree, exports):
    before = contents(tree)
    tree.chmod(0o555)
    try:
        with pytest.raises(ExportError, match="Permission denied"):
            export_to_folder(tree, exports, OLD)
    finally:
        tree.chmod(0o755)
    assert contents(tree) == before


@pytest.mark.parametrize("there", ["[" * 100_000, '[{"accuracy": NaN, "uid": "a"}]', '[{"accuracy": [1]}]'])
def test_results_that_nobody_can_read_are_left_alone(tree, exports, there):
    results = "_".join(exports[0].results)
    path = tree / "ab/nn/stat/train" / results / f"{exports[0].score.epoch}.json"
    path.parent.mkdir(parents=True)
    path.write_text(there)
    before = contents(tree)
    with pytest.raises(ExportError, match="does not hold LEMUR's results"):
        export_to_folder(tree, exports, OLD)
    assert contents(tree) == before


def test_one_export_at_a_time(tmp_path, exports):
    with staging(tmp_path / "out"), pytest.raises(ExportError, match="another export is writing"):
        export_to_folder(tmp_path / "out", exports, OLD)


def test_the_card_tells_what_it_is_worth(tmp_path, exports):
    export_to_folder(tmp_path / "out", exports[:1], OLD)
    text = (tmp_path / f"out/cards/{exports[0].candidate.id}.md").read_text()
    assert "LEMUR's families A, B, C, D8" in text
    assert "| digits | 1x32x32 | 2 | 0 | 0.7500 (0." in text
    assert re.search(rf"\| {exports[0].score.accuracy:.4f} \(0\.\d{{4}} to 0\.\d{{4}}\) \| 3\.5 \|", text)
    assert "has no loader for digits" in text
    assert "weights are not part" in text


def test_the_card_of_a_suspect_trial_says_so(exports):
    assert "suspect" not in card(exports[:1]).lower()
    odd = replace(exports[0], trial=replace(exports[0].trial, suspect="50 passes\n in epoch 1"))
    assert "\n\n**Suspect** (seed 0): 50 passes in epoch 1. The accuracy is not" in card([odd])


def test_packages_are_those_that_the_source_imports():
    text = "import os, torch\nfrom torchvision.models import vgg\ndef f():\n  from PIL import Image\n  import sklearn"
    assert requirements(text) == ("torch", "safetensors", "numpy", "pillow", "scikit-learn", "torchvision")


# Killed at any instant

KILLED = """
import os, signal, sys
from pathlib import Path
from nngen.export import journal as room

root, instant = Path(sys.argv[1]), int(sys.argv[2])
calls = 0

def counted(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls > instant:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

room._write = counted(room._write)
os.replace, os.unlink, os.fsync = counted(os.replace), counted(os.unlink), counted(os.fsync)
with room.staging(root) as target:
    for number in range(4):
        target.put(f"ab/file-{number}", b"new")
print("done")
"""


@pytest.mark.long
def test_killed_at_any_instant_it_is_all_or_nothing(tmp_path):
    seen, instant = set(), 0
    while True:
        root = tmp_path / str(instant)
        (root / "ab").mkdir(parents=True)
        (root / "ab/file-0").write_bytes(b"old")
        call = [sys.executable, "-c", KILLED, str(root), str(instant)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        found = {name: text for name, text in contents(root).items() if name.startswith("ab/")}
        assert set(found.values()) <= {b"old", b"new"}
        decided = (root / ".nngen-export/journal.json").exists()
        untouched = found == {"ab/file-0": b"old"}
        with staging(root):
            pass
        after = contents(root)
        whole = {f"ab/file-{number}": b"new" for number in range(4)}
        assert after == (found if not decided else whole)
        assert untouched or after == whole
        seen.add((decided, untouched))
        instant += 1
    # The kills were before the journal was written, after it, and while files were moved into place.
    assert {(False, True), (True, True), (True, False)} <= seen


# Targets that somebody else has prepared


def plant(root: Path, moves: object, content: bytes = b"EVIL") -> None:
    """Put a journal with one staged file into a target."""
    work = root / ".nngen-export"
    work.mkdir(parents=True)
    (work / "000000.part").write_bytes(content)
    (work / "journal.json").write_text(moves if isinstance(moves, str) else json.dumps(moves))


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"000000.part": "../elsewhere/victim.txt"}, "names a file outside of"),
        ({"000000.part": "ab/../../elsewhere/victim.txt"}, "names a file outside of"),
        ({"000000.part": "/tmp/victim.txt"}, "names a file outside of"),
        ({"000000.part": ".nngen-export/x"}, "names a file outside of"),
        ({"000000.part": ""}, "names a file outside of"),
        ({"../../elsewhere/secret": "ab/secret"}, "names a file outside of"),
        ({"000000.part": "link/victim.txt"}, "is a link, and links are not followed"),
        ({"000000.part": 3}, "was not written by nngen"),
        (["000000.part"], "was not written by nngen"),
        ("[" * 100_000, "was not written by nngen"),
        ("{", "was not written by nngen"),
    ],
)
def test_a_journal_that_came_with_the_target_writes_nothing_outside(tmp_path, exports, moves, message):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("hidden")
    root = tmp_path / "out"
    plant(root, moves)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match=message):
        export_to_folder(root, exports, OLD)
    assert contents(tmp_path) == before


def test_a_staged_link_is_not_moved_into_the_target(tmp_path, exports):
    root = tmp_path / "out"
    plant(root, {"000000.part": "ab/file"})
    (root / ".nngen-export" / "000000.part").unlink()
    (root / ".nngen-export" / "000000.part").symlink_to("/etc/passwd")
    with pytest.raises(ExportError, match="is not a regular file"):
        export_to_folder(root, exports, OLD)
    assert not (root / "ab").exists()


@pytest.mark.parametrize("place", ["ab", "ab/nn", "ab/nn/nn", "cards", ".nngen-export"])
def test_links_out_of_the_target_are_refused_and_nothing_is_written(tmp_path, exports, place):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="is a link, and links are not followed here"):
        export_to_folder(tmp_path / "out", exports, OLD)
    assert contents(tmp_path) == before


def test_a_link_or_a_fifo_in_place_of_a_file_is_refused(tmp_path, exports):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name, make in {"link": lambda path: path.symlink_to(victim), "fifo": os.mkfifo}.items():
        path = tmp_path / name / "ab/nn/nn" / f"{exports[0].candidate.id}.py"
        path.parent.mkdir(parents=True)
        make(path)
        with pytest.raises(ExportError, match=r"is a link|not a regular file"):
            export_to_folder(tmp_path / name, exports, OLD)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("beside", [".lock", "-journal", "-wal", "-shm"])
def test_links_beside_a_database_are_refused(database, exports, tmp_path, beside):
    database.with_name(database.name + beside).symlink_to(tmp_path / "victim")
    with pytest.raises(ExportError, match="is a link"):
        export_to_database(database, exports, OLD)
    assert not (tmp_path / "victim").exists()


@pytest.mark.long
def test_a_trigger_without_an_end_is_stopped_and_nothing_is_changed(database, exports, monkeypatch):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    db = sqlite3.connect(database)
    db.execute(f"CREATE TRIGGER forever BEFORE INSERT ON stat BEGIN SELECT ({endless}); END")
    db.close()
    monkeypatch.setattr("nngen.export.database._WORK_S", 0.5)
    before = rows(database, "SELECT count(*) FROM nn")
    with pytest.raises(ExportError, match="interrupted; nothing was changed"):
        export_to_database(database, exports, OLD, wait_s=0.1)
    assert rows(database, "SELECT count(*) FROM nn") == before


# Into a database


def rows(path: Path, sql: str) -> list[tuple]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_our_reader_finds_it_in_the_database(database, exports):
    assert [line.new for line in export_to_database(database, exports, OLD)] == [True] * 3
    lemur = open_lemur(database)
    for export in exports:
        assert lemur.source(export.candidate.id) == export.candidate.source
        (record,) = lemur.records(export.candidate.id, "digits")
        assert (record.epoch, record.accuracy, record.duration_s) == (2, export.score.accuracy, 3.5)
        assert record.hyperparameters == {k: v for k, v in export.score.prm.items() if k != "epoch"}


def test_twice_adds_no_row(database, exports):
    export_to_database(database, exports, OLD)
    tables = ("nn", "stat", "prm", "transform")
    before = {table: rows(database, f"SELECT * FROM {table}") for table in tables}
    assert [line.new for line in export_to_database(database, exports, OLD)] == [False] * 3
    assert {table: rows(database, f"SELECT * FROM {table}") for table in tables} == before


def test_a_transform_the_database_lacks_is_added(database, exports):
    db = sqlite3.connect(database)
    db.execute("DELETE FROM transform WHERE name = 'norm_32'")
    db.commit()
    db.close()
    (written,) = export_to_database(database, exports[:1], OLD)
    name = written.export.transform.name
    assert rows(database, f"SELECT code FROM transform WHERE name = '{name}'") == [(written.export.stand_in.source,)]
    assert rows(database, "SELECT transform FROM stat WHERE dataset = 'digits'") == [(name,)]


def test_a_database_of_another_version(database, exports):
    with pytest.raises(ExportError, match=r"is a database of nn-dataset 2.1.2, not 2.2.11: use --lemur 2.1.2"):
        export_to_database(database, exports, NEW)
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE train_stat (stat_id TEXT PRIMARY KEY, train_loss REAL, cpu_type TEXT)")
    db.commit()
    db.close()
    with pytest.raises(ExportError, match=r"not 2.1.2: use --lemur 2.2.11"):
        export_to_database(database, exports, OLD)
    export_to_database(database, exports, NEW)
    assert rows(database, "SELECT train_loss, cpu_type FROM train_stat") == [(1.0, "a processor")] * 3


def test_no_database_at_all(tmp_path, exports):
    with pytest.raises(ExportError, match="let LEMUR build it"):
        export_to_database(tmp_path / "ab.nn.db", exports, OLD)
    (tmp_path / "other.db").write_text("text")
    with pytest.raises(ExportError, match="not a database"):
        export_to_database(tmp_path / "other.db", exports, OLD)


def test_a_conflict_leaves_the_database_as_it_was(database, exports):
    db = sqlite3.connect(database)
    db.execute("INSERT INTO nn VALUES (?, ?, ?)", (exports[2].candidate.id, source(99), "x"))
    db.commit()
    db.close()
    before = rows(database, "SELECT * FROM nn")
    with pytest.raises(ExportError, match="a different source under the name"):
        export_to_database(database, exports, OLD)
    assert rows(database, "SELECT * FROM nn") == before
    assert rows(database, "SELECT count(*) FROM stat WHERE dataset = 'digits'") == [(0,)]


def test_a_locked_database(database, exports):
    db = sqlite3.connect(database)
    db.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(ExportError, match="locked"):
            export_to_database(database, exports, OLD, wait_s=0.2)
    finally:
        db.close()


# The command


def test_the_command(store, tmp_path, capsys):
    from nngen.cli.export import export
    from nngen.cli.options import ArchiveOptions

    export(
        "one", min_accuracy=0.5, out=tmp_path / "out", output=ArchiveOptions(archive=tmp_path / "nngen.db", json=True)
    )
    first = json.loads(capsys.readouterr().out)
    assert [row["new"] for row in first] == [True, True]
    assert first[0]["validation_accuracy"] == 0.75
    export("one", out=tmp_path / "out", output=ArchiveOptions(archive=tmp_path / "nngen.db"))
    assert "1 of 3 results are new" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"choose --lemur 2.1.2 or 2.2.11"):
        export("one", out=tmp_path / "out", lemur="3", output=ArchiveOptions(archive=tmp_path / "nngen.db"))
    with pytest.raises(ArchiveError, match="no archive"):
        export("one", out=tmp_path / "out", output=ArchiveOptions(archive=tmp_path / "none.db"))


def test_names_stay_what_they_are(exports):
    assert exports[0].results == Results("img-classification", "digits", "acc", exports[0].candidate.id)
