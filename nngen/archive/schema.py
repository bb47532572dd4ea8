"""Tables of the archive, as migrations. A published migration is never edited; a change is a new migration.

Triggers guard the facts in the database itself: they refuse every change to a source, a finished trial, a revealed
test accuracy or an event, whichever program writes.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from nngen.seeds import derive

__all__ = ["APPLICATION_ID", "LEDGER", "MIGRATIONS", "applied", "migrate"]

APPLICATION_ID = 0x6E6E676E
"""``nngn`` in the file's header: tells an archive from any other SQLite database."""

LEDGER = "_sqlite_migrations"
"""Table of the migrations that a file has been through, in the layout of sqlite-utils, which wrote the first ones."""

_LEDGER = f"""
CREATE TABLE IF NOT EXISTS {LEDGER} (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT);
CREATE UNIQUE INDEX IF NOT EXISTS idx_{LEDGER}_migration_set_name ON {LEDGER}(migration_set, name);
"""

_TABLES = """
CREATE TABLE families (
    fingerprint TEXT PRIMARY KEY,      -- SHA-256 of the source
    name        TEXT NOT NULL,
    source      TEXT NOT NULL,
    best        TEXT                   -- JSON: LEMUR's best record with it
) STRICT;

CREATE TABLE plans (
    id   TEXT PRIMARY KEY,             -- SHA-256 of the JSON
    plan TEXT NOT NULL
) STRICT;

CREATE TABLE candidates (
    id         TEXT PRIMARY KEY,       -- MoE4-<md5>, as LEMUR computes it
    canonical  TEXT NOT NULL,          -- SHA-256 of the parsed tree
    source     TEXT NOT NULL,
    plan_id    TEXT REFERENCES plans(id),
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE candidate_experts (
    candidate_id TEXT NOT NULL REFERENCES candidates(id),
    place        INTEGER NOT NULL,
    family       TEXT NOT NULL,
    fingerprint  TEXT REFERENCES families(fingerprint),
    PRIMARY KEY (candidate_id, place)
) STRICT;
CREATE INDEX candidate_experts_by_family ON candidate_experts(family);

CREATE TABLE verdicts (
    id           INTEGER PRIMARY KEY,
    candidate_id TEXT NOT NULL REFERENCES candidates(id),
    shape        TEXT NOT NULL,
    classes      INTEGER NOT NULL,
    outcome      TEXT NOT NULL,
    rule         TEXT NOT NULL,
    message      TEXT NOT NULL,
    line         INTEGER,
    created_at   TEXT NOT NULL
) STRICT;
CREATE INDEX verdicts_by_candidate ON verdicts(candidate_id);

CREATE TABLE campaigns (
    name       TEXT PRIMARY KEY,
    spec       TEXT NOT NULL,          -- JSON: every argument
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE trials (
    id                  INTEGER PRIMARY KEY,
    campaign            TEXT NOT NULL REFERENCES campaigns(name),
    position            INTEGER NOT NULL,          -- place in the sampler's order
    rung                INTEGER NOT NULL,
    replicate           INTEGER NOT NULL,
    plan_id             TEXT NOT NULL REFERENCES plans(id),
    state               TEXT NOT NULL CHECK (state IN ('ready', 'running', 'done')),
    candidate_id        TEXT REFERENCES candidates(id),
    spec                TEXT,                      -- JSON: how it was trained
    outcome             TEXT,
    rule                TEXT,
    message             TEXT,
    line                INTEGER,
    validation_accuracy REAL,
    parameters          INTEGER,
    seconds             REAL,
    peak_mib            REAL,
    environment         TEXT,                      -- JSON: versions, hardware, data fingerprint
    data_fingerprint    TEXT,
    copied_from         INTEGER REFERENCES trials(id),
    started_at          TEXT,
    finished_at         TEXT,
    UNIQUE (campaign, position, rung, replicate),
    CHECK (state != 'done' OR outcome IS NOT NULL)
) STRICT;
CREATE INDEX trials_by_candidate ON trials(candidate_id);

CREATE TABLE curves (
    trial_id            INTEGER NOT NULL REFERENCES trials(id),
    epoch               INTEGER NOT NULL,
    validation_accuracy REAL NOT NULL,
    train_accuracy      REAL,
    train_loss          REAL,
    seconds             REAL NOT NULL,
    usage               TEXT NOT NULL,             -- JSON: mean gate weight per expert
    entropy             REAL,
    PRIMARY KEY (trial_id, epoch)
) STRICT;

CREATE TABLE predictions (
    trial_id INTEGER NOT NULL REFERENCES trials(id),
    split    TEXT NOT NULL CHECK (split IN ('validation', 'test')),
    classes  BLOB NOT NULL,                        -- little-endian uint16, one per image
    PRIMARY KEY (trial_id, split)
) STRICT;

CREATE TABLE reveals (
    trial_id      INTEGER PRIMARY KEY REFERENCES trials(id),
    test_accuracy REAL NOT NULL,
    revealed_at   TEXT NOT NULL
) STRICT;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       TEXT NOT NULL,
    campaign TEXT,
    trial_id INTEGER,
    kind     TEXT NOT NULL,
    detail   TEXT NOT NULL                         -- JSON
) STRICT;
CREATE INDEX events_by_campaign ON events(campaign);
"""

_EXTERNAL_TABLES = """
CREATE TABLE foreign_models (
    id         INTEGER PRIMARY KEY,
    origin     TEXT NOT NULL,          -- where it came from: the wheel's, the checkout's or the database's name
    name       TEXT NOT NULL,
    kind       TEXT NOT NULL,          -- base, hetero, mixture or generated
    nn_id      TEXT NOT NULL,          -- LEMUR's id: MD5 of the source without white space
    canonical  TEXT,                   -- SHA-256 of the parsed tree; NULL where it does not parse
    source     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (name, nn_id, origin)
) STRICT;
CREATE INDEX foreign_models_by_nn_id ON foreign_models(nn_id);

CREATE TABLE foreign_series (
    id       INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES foreign_models(id),
    task     TEXT NOT NULL,
    dataset  TEXT NOT NULL,
    metric   TEXT NOT NULL,
    UNIQUE (model_id, task, dataset, metric)
) STRICT;

CREATE TABLE foreign_settings (
    id              INTEGER PRIMARY KEY,
    uid             TEXT NOT NULL,     -- LEMUR's id of the hyperparameters
    hyperparameters TEXT NOT NULL,     -- JSON: lr, batch, transform, ...
    UNIQUE (uid, hyperparameters)
) STRICT;

CREATE TABLE foreign_trials (
    series_id  INTEGER NOT NULL REFERENCES foreign_series(id),
    epoch      INTEGER NOT NULL,
    setting_id INTEGER NOT NULL REFERENCES foreign_settings(id),
    accuracy   REAL NOT NULL,          -- on LEMUR's test split
    duration_s REAL NOT NULL,
    PRIMARY KEY (series_id, epoch, setting_id, accuracy, duration_s)
) STRICT, WITHOUT ROWID;
"""

# Loop, cycle and role place a campaign in a closed loop. ``given_isolation`` marks a trial whose candidate was given
# ready-made, whatever it says; its id then stands in ``candidate_id`` from the beginning, and ``given_seed`` replaces
# the derived seed.
_ADDED_COLUMNS = """
ALTER TABLE campaigns ADD COLUMN loop TEXT;
ALTER TABLE campaigns ADD COLUMN cycle INTEGER;
ALTER TABLE campaigns ADD COLUMN role TEXT CHECK (role IN ('cycle', 'judge'));
ALTER TABLE candidates ADD COLUMN template_version INTEGER;
ALTER TABLE trials ADD COLUMN given_isolation TEXT;
ALTER TABLE trials ADD COLUMN given_seed INTEGER;
"""

_SUSPICION_COLUMNS = """
ALTER TABLE trials ADD COLUMN suspect TEXT NOT NULL DEFAULT '';
ALTER TABLE curves ADD COLUMN samples INTEGER;
"""

_LOGITS_TABLE = """
CREATE TABLE logits (
    trial_id INTEGER PRIMARY KEY REFERENCES trials(id),
    logits   BLOB NOT NULL                         -- of the validation images: (N, classes), little-endian float16
) STRICT;

CREATE TABLE labels (
    data_fingerprint TEXT PRIMARY KEY,
    validation       BLOB NOT NULL                 -- class of each validation image, little-endian uint16
) STRICT;
"""

_REPLAYS_TABLE = """
CREATE TABLE replays (
    id               INTEGER PRIMARY KEY,
    model            TEXT NOT NULL,                -- LEMUR's name of the model
    nn_id            TEXT NOT NULL,                -- LEMUR's id of the source that was trained
    dataset          TEXT NOT NULL,
    epoch            INTEGER NOT NULL,             -- of the record, and of the training
    hyperparameters  TEXT NOT NULL,                -- JSON: those of the record
    recorded         REAL NOT NULL CHECK (recorded BETWEEN 0 AND 1),
    spec             TEXT NOT NULL,                -- JSON: how it was trained here
    data_fingerprint TEXT NOT NULL,
    outcome          TEXT NOT NULL,
    message          TEXT NOT NULL,
    accuracy         REAL CHECK (accuracy BETWEEN 0 AND 1),  -- on the official test split; NULL where training failed
    parameters       INTEGER,
    seconds          REAL NOT NULL,
    created_at       TEXT NOT NULL
) STRICT;
CREATE INDEX replays_by_dataset ON replays(dataset, epoch);
"""

_FEATURES_TABLE = """
CREATE TABLE image_features (
    data_fingerprint TEXT PRIMARY KEY,
    validation       BLOB NOT NULL                 -- pooled features of the validation images: (N, F), float16
) STRICT;
"""

_CLASS_NAMES_TABLE = """
CREATE TABLE class_names (
    data_fingerprint TEXT PRIMARY KEY,
    names            TEXT NOT NULL                 -- JSON: names of the classes in the order of their numbers
) STRICT;
"""

# A finished trial can thus not be updated at all: no transition leads out of ``done``.
_TRANSITIONS_TRIGGER = (
    "CREATE TRIGGER trials_states BEFORE UPDATE ON trials WHEN NOT ("
    "(OLD.state = 'ready' AND NEW.state = 'running')"
    " OR (OLD.state = 'running' AND NEW.state IN ('ready', 'done'))) "
    "BEGIN SELECT RAISE(ABORT, 'a trial goes from ready to running to done'); END"
)


def m0001_first_form(db: sqlite3.Connection) -> None:
    _create(db, _TABLES)
    _guard(db, _TABLES, but=("campaigns", "trials"))
    # Trials change state, so only their removal is refused here; the next trigger guards their states.
    db.execute(
        "CREATE TRIGGER trials_no_delete BEFORE DELETE ON trials "
        "BEGIN SELECT RAISE(ABORT, 'the archive keeps its trials'); END"
    )
    db.execute(_TRANSITIONS_TRIGGER)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def m0002_foreign(db: sqlite3.Connection) -> None:
    _create(db, _EXTERNAL_TABLES)
    _guard(db, _EXTERNAL_TABLES)


def m0003_loops_and_given_candidates(db: sqlite3.Connection) -> None:
    _create(db, _ADDED_COLUMNS)
    specs = {name: json.loads(text) for name, text in db.execute("SELECT name, spec FROM campaigns").fetchall()}
    loops = _loops_by_name({name: str(spec.get("sampler", "")) for name, spec in specs.items()})
    for name, (loop, cycle, role) in loops.items():
        db.execute("UPDATE campaigns SET loop = ?, cycle = ?, role = ? WHERE name = ?", [loop, cycle, role, name])
    # Open trials get their candidate without a change of state, which the trigger would refuse.
    db.execute("DROP TRIGGER trials_states")
    for name, spec in specs.items():
        judged = loops.get(name, ("", 0, ""))[2] == "judge"
        for position, candidate_id in enumerate(spec.get("candidates") or ()):
            # Older archives found the candidate of a proposal by its position. Their sources no longer equal what
            # their plans assemble to, so they run in the sandbox.
            db.execute(
                "UPDATE trials SET candidate_id = ?, given_isolation = 'sandbox', given_seed = ? "
                "WHERE campaign = ? AND position = ? AND state != 'done'",
                [candidate_id, derive(spec["seed"], "judge", position) if judged else None, name, position],
            )
    db.execute(_TRANSITIONS_TRIGGER)


def m0004_suspicion(db: sqlite3.Connection) -> None:
    _create(db, _SUSPICION_COLUMNS)


def m0005_accuracies_and_kinds(db: sqlite3.Connection) -> None:
    # A table's CHECK cannot be added later, a trigger can. It sees new rows only, so that older archives still open.
    for table, column in (
        ("trials", "validation_accuracy"),
        ("curves", "validation_accuracy"),
        ("reveals", "test_accuracy"),
    ):
        for verb in ("INSERT", "UPDATE"):
            db.execute(
                f"CREATE TRIGGER {table}_range_{verb.lower()} BEFORE {verb} ON {table} "
                f"WHEN NEW.{column} NOT BETWEEN 0 AND 1 "
                f"BEGIN SELECT RAISE(ABORT, 'an accuracy is between 0 and 1'); END"
            )
    # The few events of a kind are read among hundreds of thousands.
    db.execute("CREATE INDEX events_by_kind ON events(campaign, kind)")


def m0006_indices(db: sqlite3.Connection) -> None:
    # In the order of their numbers, in which trials are read; the unique index has another order.
    db.execute("CREATE INDEX trials_by_campaign ON trials(campaign)")
    # A column behind the sources is read without them.
    db.execute("CREATE INDEX candidates_by_template ON candidates(id, plan_id, template_version)")


def m0007_logits(db: sqlite3.Connection) -> None:
    _create(db, _LOGITS_TABLE)
    _guard(db, _LOGITS_TABLE)


def m0008_replays(db: sqlite3.Connection) -> None:
    _create(db, _REPLAYS_TABLE)
    _guard(db, _REPLAYS_TABLE)


def m0009_image_features(db: sqlite3.Connection) -> None:
    _create(db, _FEATURES_TABLE)
    _guard(db, _FEATURES_TABLE)


def m0010_class_names(db: sqlite3.Connection) -> None:
    _create(db, _CLASS_NAMES_TABLE)
    _guard(db, _CLASS_NAMES_TABLE)


_STEPS = (
    m0001_first_form,
    m0002_foreign,
    m0003_loops_and_given_candidates,
    m0004_suspicion,
    m0005_accuracies_and_kinds,
    m0006_indices,
    m0007_logits,
    m0008_replays,
    m0009_image_features,
    m0010_class_names,
)
MIGRATIONS = {step.__name__: step for step in _STEPS}
"""All migrations by name, in order."""


def applied(db: sqlite3.Connection) -> set[str]:
    """Return the names of the migrations that a file has been through; a newer nngen may have added more."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [LEDGER]).fetchone():
        return set()
    return {name for (name,) in db.execute(f"SELECT name FROM {LEDGER} WHERE migration_set = 'nngen.archive'")}  # noqa: S608


def migrate(db: sqlite3.Connection) -> None:
    """Apply the migrations that a file has not been through; the caller holds the transaction."""
    _create(db, _LEDGER)
    for name in [name for name in MIGRATIONS if name not in applied(db)]:
        MIGRATIONS[name](db)
        row = ("nngen.archive", name, str(datetime.now(UTC)))
        db.execute(f"INSERT INTO {LEDGER} (migration_set, name, applied_at) VALUES (?, ?, ?)", row)  # noqa: S608


def _loops_by_name(samplers: Mapping[str, str]) -> dict[str, tuple[str, int, str]]:
    """Find the closed loops of older archives, which named their campaigns LOOP-0, LOOP-1 and LOOP-judge-0.

    A loop begins with proposals of the rewriter ``random``; other campaigns that end in a number are not cycles.

    Returns:
        Loop, cycle and role of each campaign that belongs to one.
    """
    found = {}
    for name, sampler in samplers.items():
        match = re.fullmatch(r"(?P<loop>.+?)-(?P<judge>judge-)?(?P<cycle>\d+)", name)
        if match is None or samplers.get(f"{match['loop']}-0") != "rewriter random":
            continue
        if sampler == "judge" if match["judge"] else sampler.startswith("rewriter "):
            found[name] = (match["loop"], int(match["cycle"]), "judge" if match["judge"] else "cycle")
    return found


def _create(db: sqlite3.Connection, statements: str) -> None:
    # Not executescript, which would commit the transaction that the migration runs in.
    for statement in statements.strip().split(";\n"):
        if statement.strip():
            db.execute(statement)


def _guard(db: sqlite3.Connection, statements: str, but: Collection[str] = ()) -> None:
    """Make the tables that statements create append-only: rows are added, never changed, never removed."""
    for table in re.findall(r"CREATE TABLE (\w+)", statements):
        for verb in ("UPDATE", "DELETE") if table not in but else ():
            db.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'the archive keeps its {table} as they are'); END"
            )
