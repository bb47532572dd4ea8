"""Tables, indices and triggers of a new archive, and the closed loops of the first ones."""

import json
import sqlite3

import pytest

from nngen.archive.connection import connect, open_database
from nngen.archive.schema import APPLICATION_ID, LEDGER, MIGRATIONS, _loops_by_name, applied, migrate
from nngen.seeds import derive

APPEND_ONLY = [
    *("candidate_experts", "candidates", "class_names", "curves", "events", "families", "foreign_models"),
    *("foreign_series", "foreign_settings", "foreign_trials", "image_features", "labels", "logits", "plans"),
    *("predictions", "replays", "reveals", "verdicts"),
]
INDICES = [
    *("candidate_experts_by_family", "candidates_by_template", "events_by_campaign", "events_by_kind"),
    *("foreign_models_by_nn_id", "replays_by_dataset", "trials_by_campaign", "trials_by_candidate"),
    "verdicts_by_candidate",
]
STEPS = [
    *("m0001_first_form", "m0002_foreign", "m0003_loops_and_given_candidates", "m0004_suspicion"),
    *("m0005_accuracies_and_kinds", "m0006_indices", "m0007_logits", "m0008_replays", "m0009_image_features"),
    "m0010_class_names",
]


@pytest.fixture
def db(tmp_path):
    db = open_database(tmp_path / "a.db", create=True, readonly=False)
    yield db
    db.close()


def names(db, kind):
    sql = "SELECT name FROM sqlite_master WHERE type = ? AND sql IS NOT NULL ORDER BY name"
    return [name for (name,) in db.execute(sql, [kind])]


def test_a_new_archive_has_every_table_index_and_trigger(db):
    tables = [name for name in names(db, "table") if not name.startswith("sqlite_")]
    assert tables == sorted([LEDGER, "campaigns", "trials", *APPEND_ONLY])
    assert names(db, "index") == sorted([f"idx_{LEDGER}_migration_set_name", *INDICES])
    ranges = [f"{table}_range_{verb}" for table in ("trials", "curves", "reveals") for verb in ("insert", "update")]
    guards = [f"{table}_no_{verb}" for table in APPEND_ONLY for verb in ("update", "delete")]
    assert names(db, "trigger") == sorted(["trials_no_delete", "trials_states", *ranges, *guards])
    assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID == int.from_bytes(b"nngn", "big")


def test_migrations_are_noted_in_their_order_and_applied_once(db):
    rows = db.execute(f"SELECT migration_set, name FROM {LEDGER} ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [("nngen.archive", name) for name in MIGRATIONS]
    assert list(MIGRATIONS)[: len(STEPS)] == STEPS  # a new one comes after those that are published
    assert applied(db) == set(MIGRATIONS)
    migrate(db)
    assert db.execute(f"SELECT count(*) FROM {LEDGER}").fetchone()[0] == len(MIGRATIONS)
    empty = connect(":memory:")
    assert applied(empty) == set()
    empty.close()


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_a_row_stays_as_it_is(table, db):
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("PRAGMA ignore_check_constraints = ON")
    columns = list(db.execute(f"PRAGMA table_info({table})"))
    values = {"TEXT": "x", "INTEGER": 1, "REAL": 0.5, "BLOB": b"x"}
    db.execute(
        f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", [values[row["type"]] for row in columns]
    )
    for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET {columns[-1]['name']} = {columns[-1]['name']}"):
        with pytest.raises(sqlite3.IntegrityError, match=f"the archive keeps its {table} as they are"):
            db.execute(sql)


def test_loops_of_older_archives_begin_with_a_random_rewriter():
    samplers = {
        "a-0": "rewriter random",
        "a-1": "rewriter llm",
        "a-12": "balanced",
        "a-judge-1": "judge",
        "a-judge-2": "rewriter random",
        "b-0": "rewriter llm",
        "b-1": "rewriter llm",
        "c-d-0": "rewriter random",
        "c-d-3": "rewriter random",
        "e": "rewriter random",
        "f-1": "judge",
    }
    assert _loops_by_name(samplers) == {
        "a-0": ("a", 0, "cycle"),
        "a-1": ("a", 1, "cycle"),
        "a-judge-1": ("a", 1, "judge"),
        "c-d-0": ("c-d", 0, "cycle"),
        "c-d-3": ("c-d", 3, "cycle"),
    }


SOURCE = "INSERT INTO candidates (id, canonical, source, created_at) VALUES (?, ?, 'x', 'now')"
TRIAL = (
    "INSERT INTO trials (campaign, position, rung, replicate, plan_id, state, outcome, candidate_id) "
    "VALUES (?, ?, 0, 0, 'p', ?, iif(?3 = 'done', 'valid', NULL), ?)"
)
GIVEN = ["c0", "c1", "c2"]
OLD_CAMPAIGNS = {
    "l-0": {"sampler": "rewriter random", "seed": 3, "candidates": GIVEN},
    "l-judge-0": {"sampler": "judge", "seed": 4, "candidates": GIVEN},
    "empty": {"sampler": "stratified", "seed": 5, "candidates": None},
    "bare": {"seed": 6},
}


def test_open_trials_of_older_archives_get_their_candidate_and_seed():
    db = connect(":memory:")
    for step in STEPS[:2]:
        MIGRATIONS[step](db)
    db.execute("INSERT INTO plans VALUES ('p', '{}')")
    db.executemany(SOURCE, [(name, name) for name in GIVEN])
    for name, spec in OLD_CAMPAIGNS.items():
        db.execute("INSERT INTO campaigns VALUES (?, ?, 'now')", [name, json.dumps(spec)])
        rows = [(name, 0, "done", "c0"), (name, 1, "running", None), (name, 2, "ready", None)]
        db.executemany(TRIAL, rows)
    MIGRATIONS[STEPS[2]](db)
    rows = [tuple(row) for row in db.execute("SELECT name, loop, cycle, role FROM campaigns ORDER BY rowid")]
    assert rows == [
        ("l-0", "l", 0, "cycle"),
        ("l-judge-0", "l", 0, "judge"),
        ("empty", None, None, None),
        ("bare", None, None, None),
    ]
    columns = "position, state, candidate_id, given_isolation, given_seed"
    found = {
        name: [tuple(row) for row in db.execute(f"SELECT {columns} FROM trials WHERE campaign = ? ORDER BY id", [name])]
        for name in OLD_CAMPAIGNS
    }
    done = (0, "done", "c0", None, None)
    assert found == {
        "l-0": [done, (1, "running", "c1", "sandbox", None), (2, "ready", "c2", "sandbox", None)],
        "l-judge-0": [
            done,
            (1, "running", "c1", "sandbox", derive(4, "judge", 1)),
            (2, "ready", "c2", "sandbox", derive(4, "judge", 2)),
        ],
        "empty": [done, (1, "running", None, None, None), (2, "ready", None, None, None)],
        "bare": [done, (1, "running", None, None, None), (2, "ready", None, None, None)],
    }
    with pytest.raises(sqlite3.IntegrityError, match="a trial goes from ready to running to done"):
        db.execute("UPDATE trials SET given_seed = 1 WHERE id = 3")
    db.close()


def test_columns_of_a_new_archive_have_their_defaults(db):
    """What a migration adds to a table that has rows must have a value for them."""
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute(TRIAL, ["one", 0, "ready", None])
    db.execute("INSERT INTO curves (trial_id, epoch, validation_accuracy, seconds, usage) VALUES (1, 1, 0.5, 1, '')")
    row = db.execute("SELECT suspect, given_isolation, given_seed FROM trials").fetchone()
    assert tuple(row) == ("", None, None)
    assert db.execute("SELECT samples FROM curves").fetchone()[0] is None


@pytest.mark.parametrize(
    ("table", "column", "sql"),
    [
        ("trials", "validation_accuracy", None),
        (
            "curves",
            "validation_accuracy",
            "INSERT INTO curves (trial_id, epoch, validation_accuracy, seconds, usage) VALUES (1, 1, ?, 1, '')",
        ),
        ("reveals", "test_accuracy", "INSERT INTO reveals VALUES (1, ?, 'now')"),
    ],
)
def test_an_accuracy_is_a_share_in_every_table(table, column, sql, db):
    db.execute("PRAGMA foreign_keys = OFF")
    if sql is None:
        sql = (
            "INSERT INTO trials (campaign, position, rung, replicate, plan_id, state, validation_accuracy) "
            "VALUES ('one', 0, 0, 0, 'p', 'ready', ?)"
        )
    for wrong in (-0.001, 1.001, 1e300):
        with pytest.raises(sqlite3.IntegrityError, match="an accuracy is between 0 and 1"):
            db.execute(sql, [wrong])
    for right in (0, 1):
        db.execute("SAVEPOINT s")
        db.execute(sql, [right])
        assert db.execute(f"SELECT {column} FROM {table}").fetchone()[0] == right
        db.execute("ROLLBACK TO s")
