"""Foreign wheels, databases and checkouts: what is damaged or endless ends in one line, or is left out by name."""

from __future__ import annotations

import json
import os
import sqlite3
import struct
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fake_lemur import source
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

from nngen.errors import LemurError, NngenError
from nngen.families.catalogue import load_families
from nngen.lemur.reader import Lemur
from nngen.lemur.source import open_lemur

STAT = "ab/nn/stat/train/img-classification_cifar-10_acc_"
GOOD = json.dumps([{"accuracy": 0.5, "duration": 10**9, "lr": 0.1, "uid": "0"}])
DEEP = "[" * 100_000 + "]" * 100_000
SCHEMA = """
    CREATE TABLE nn (name TEXT, code TEXT);
    CREATE TABLE prm (uid TEXT, name TEXT, value OBJECT);
    CREATE TABLE stat (accuracy REAL, epoch, duration, task, dataset, nn, transform, metric, prm);
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one whole family, ``Good``."""
    folder = tmp_path / "checkout"
    (folder / "ab/nn/nn").mkdir(parents=True)
    (folder / "ab/nn/nn/Good.py").write_text(source(8))
    (folder / f"{STAT}Good").mkdir(parents=True)
    (folder / f"{STAT}Good/1.json").write_text(GOOD)
    return folder


def add(root: Path, *, code: bytes = source(8).encode(), result: bytes = GOOD.encode(), epoch: str = "1") -> Path:
    """Add the family ``Bad`` with one result; return the result's file."""
    (root / "ab/nn/nn/Bad.py").write_bytes(code)
    file = root / f"{STAT}Bad" / f"{epoch}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(result)
    return file


def read_all(lemur: Lemur) -> None:
    for model in lemur.models():
        lemur.source(model)
        lemur.records(model)
        lemur.datasets(model)
    list(lemur.read_results())
    load_families(lemur)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (DEEP.encode(), "is broken"),
        (b"[" + b"9" * 5000 + b"]", "is broken"),
        (b'[{"accuracy": "\xe4"}]', "is broken"),
        (b"{}", "does not hold a list of trials"),
        (b"[3]", "does not hold a list of trials"),
        (b" " * (5 * 2**20), "is longer than 4 MiB"),
    ],
    ids=["deep", "digits", "latin-1", "object", "number", "long"],
)
def test_a_damaged_result_of_a_checkout_is_named_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture, content: bytes, reason: str
) -> None:
    add(root, result=content)
    families = load_families(open_lemur(root))
    assert list(families) == ["Bad", "Good"]
    assert families["Bad"].best is None
    (line,) = (record.message for record in caplog.records)
    assert "1.json" in line
    assert reason in line
    assert len(line) < 500


def test_a_damaged_source_of_a_checkout_is_named_and_left_out(
    root: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    add(root, code="# Größe\n".encode("latin-1"))
    assert list(load_families(open_lemur(root))) == ["Good"]
    assert "Bad.py is not text" in caplog.text
    (root / "ab/nn/nn/Bad.py").write_bytes(b"#" * (5 * 2**20))
    assert list(load_families(open_lemur(root))) == ["Good"]
    assert "Bad.py is longer than 4 MiB" in caplog.text


def test_links_and_fifos_of_a_checkout_are_left_out(
    root: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("password")
    add(root).unlink()
    os.mkfifo(root / f"{STAT}Bad/1.json")
    (root / "ab/nn/nn/Bad.py").unlink()
    (root / "ab/nn/nn/Bad.py").symlink_to(secret)
    (root / f"{STAT}Linked").symlink_to(root / f"{STAT}Good")
    lemur = open_lemur(root)
    assert list(load_families(lemur)) == ["Good"]
    assert "Bad.py is a link, and links are not followed" in caplog.text
    assert "not a regular file" in caplog.text
    assert lemur.datasets("Linked") == ()
    with pytest.raises(LemurError, match="is a link"):
        lemur.source("Bad")


def test_a_checkout_whose_folders_are_links_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "ab").rename(tmp_path / "elsewhere")
    (root / "ab").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LemurError, match=r"not a checkout of nn-dataset: .*ab is a link"):
        open_lemur(root)


def test_values_that_lemur_never_writes_are_no_results(root: Path) -> None:
    trials = [
        *({"accuracy": value} for value in (1e999, -1, 2.0, True, None, "0.9", [1], 10**400)),
        {"accuracy": 0.25, "duration": "long", "lr": 10**400, "name\n": 1, "text": "x" * 2000, "odd": "\ud800", "b": 3},
    ]
    add(root, result=json.dumps(trials).encode())
    (record,) = open_lemur(root).records("Bad")
    assert (record.accuracy, record.duration_s, dict(record.hyperparameters)) == (0.25, 0.0, {"b": 3})


@pytest.mark.parametrize("epoch", ["²", "٣", "007", "9" * 200, "-1", "1.0"])
def test_files_that_are_not_epochs_are_not_read(root: Path, epoch: str) -> None:
    add(root, epoch=epoch)
    assert open_lemur(root).records("Bad") == ()


@pytest.mark.parametrize("name", ["a b", "x\n\x1b[31my", "-rf", ".hidden", "ä", "n" * 210])
def test_names_that_are_not_lemurs_are_not_models(root: Path, name: str) -> None:
    (root / "ab/nn/nn" / f"{name}.py").write_text("x = 1\n")
    assert open_lemur(root).models() == ("Good",)


def write_wheel(path: Path, members: dict[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"ab/nn/nn/Good.py": source(8), f"{STAT}Good/1.json": GOOD, **members}.items():
            archive.writestr(name, content)
    return path


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def _encrypted(path: Path) -> Path:
    """Set the flag of encryption of every member, in its own head and in the directory."""
    write_wheel(path, {})
    patched(path, b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x01\x00")
    return patched(path, b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


def _unknown_method(path: Path) -> Path:
    write_wheel(path, {})
    patched(path, b"PK\x03\x04\x14\x00\x00\x00\x08", b"PK\x03\x04\x14\x00\x00\x00\x63")
    return patched(path, b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x08", b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x63")


def _endless(path: Path) -> Path:
    """Let the directory state sizes of gigabytes in total."""
    write_wheel(path, {f"ab/nn/nn/M{number}.py": b"" for number in range(4)})
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", content, at + 24, 2**29)
        at = content.find(b"PK\x01\x02", at + 1)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: write_wheel(path, {f"{STAT}Good/2.json": DEEP}), "2.json is broken"),
        (lambda path: write_wheel(path, {f"{STAT}Good/2.json": b" " * 2**26}), "2.json unpacks to more than 4 MiB"),
        (lambda path: write_wheel(path, {"ab/nn/nn/Good2.py": "ä".encode("latin-1")}), "Good2.py is not text"),
        (_encrypted, "is broken"),
        (_unknown_method, "is broken|is not a whole wheel"),
        (_endless, "unpacks to more than 1 GiB"),
    ],
    ids=["deep", "bomb", "latin-1", "encrypted", "method", "endless"],
)
def test_a_foreign_wheel_is_refused_in_one_line(
    cache: Path, tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    with pytest.raises(LemurError, match=reason) as refused:
        read_all(open_lemur(make(tmp_path / "foreign.whl")))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def write_database(path: Path, script: str = SCHEMA) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
    return path


ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 'A' UNION ALL SELECT x FROM r) SELECT x AS name, x AS code FROM r"


def test_a_table_without_an_end_is_refused(tmp_path: Path) -> None:
    view = SCHEMA.replace("CREATE TABLE nn (name TEXT, code TEXT)", f"CREATE VIEW nn AS {ENDLESS}")
    with pytest.raises(LemurError, match="nn is not a plain table"):
        open_lemur(write_database(tmp_path / "view.db", view))
    virtual = SCHEMA.replace("CREATE TABLE nn (name TEXT, code TEXT)", "CREATE VIRTUAL TABLE nn USING fts5(name, code)")
    with pytest.raises(LemurError, match="nn is not a plain table"):
        open_lemur(write_database(tmp_path / "virtual.db", virtual))


def test_rows_that_lemur_did_not_write_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_database(tmp_path / "foreign.db")
    good = (0.5, 1, 10**9, "img-classification", "cifar-10", "Good", "norm_32", "acc", "0")
    odd = [
        (0.5, "one", *good[2:]),
        (0.5, None, *good[2:]),
        (0.5, 2**62, *good[2:]),
        (0.5, 1, 10**9, "img-classification", "cifar-10", b"\xff", "norm_32", "acc", "0"),
        ("high", 2, *good[2:]),
        (0.5, 3, "long", *good[3:]),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in ("Good", None, b"\xff", "x\n"):
            connection.execute("INSERT INTO nn VALUES (?, ?)", (name, source(8)))
        connection.executemany("INSERT INTO stat VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [good, *odd])
        connection.executemany("INSERT INTO prm VALUES ('0', ?, ?)", [("lr", 0.1), (None, b"\xff"), ("n", "x" * 5000)])
    lemur = open_lemur(path)
    assert lemur.models() == ("Good",)
    assert [(record.epoch, record.accuracy) for record in lemur.records("Good")] == [(1, 0.5), (3, 0.5)]
    assert "results that LEMUR did not write are left out, 3: " in caplog.text
    read_all(lemur)


@pytest.mark.parametrize(("code", "reason"), [("CAST(x'e4' AS TEXT)", "is not text"), ("zeroblob(8000000)", "too big")])
def test_a_source_of_a_database_is_text_of_a_bounded_size(tmp_path: Path, code: str, reason: str) -> None:
    path = write_database(tmp_path / "foreign.db", SCHEMA + f"INSERT INTO nn VALUES ('Good', {code});")
    with pytest.raises(LemurError, match=reason):
        open_lemur(path).source("Good")


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "x" * 300, "nul\0"])
def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(LemurError, match="cannot be read"):
        open_lemur(Path(path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TRIALS = st.lists(
    st.dictionaries(st.sampled_from(["accuracy", "duration", "lr", "uid", "epoch", "ä"]), JSON, max_size=6), max_size=3
)
CONTENT = (
    st.binary(max_size=60)
    | TRIALS.map(lambda value: json.dumps(value).encode())
    | JSON.map(lambda value: json.dumps(value).encode())
)
FUZZ = fuzz(60)


@pytest.mark.long
@FUZZ
@given(name=st.text(max_size=8), epoch=st.text(max_size=4), code=CONTENT, result=CONTENT, cut=st.integers(0, 2000))
def test_no_reader_raises_anything_but_its_own_errors(
    cache: Path, name: str, epoch: str, code: bytes, result: bytes, cut: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "ab/nn/nn").mkdir(parents=True)
        (root / f"{STAT}Any").mkdir(parents=True)
        with suppress(OSError, ValueError):  # not a name of a file
            (root / f"ab/nn/nn/{name}.py").write_bytes(code)
            (root / f"{STAT}Any/{epoch}.json").write_bytes(result)
        (root / "ab/nn/nn/Any.py").write_bytes(code)
        (root / f"{STAT}Any/1.json").write_bytes(result)
        wheel = root / "fuzzed.whl"
        with suppress(UnicodeEncodeError), zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("ab/nn/nn/Any.py", code)
            archive.writestr(f"{STAT}Any/1.json", result)
            archive.writestr(f"ab/nn/nn/{name}.py", code)
        content = bytearray(wheel.read_bytes())
        content[cut % len(content)] ^= 0xFF
        wheel.write_bytes(content)
        database = write_database(root / "fuzzed.db")
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("INSERT INTO nn VALUES ('Any', ?)", (code,))
            row = (0.5, epoch, result, "img-classification", "cifar-10", "Any", code, "acc", "0")
            with suppress(UnicodeEncodeError):
                connection.execute("INSERT INTO stat VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
                connection.execute("INSERT INTO prm VALUES ('0', ?, ?)", (name, result))
        damaged = bytearray(database.read_bytes())
        damaged[cut % len(damaged)] ^= 0xFF
        (root / "damaged.db").write_bytes(damaged)
        for path in (root, wheel, database, root / "damaged.db"):
            with suppress(NngenError):
                read_all(open_lemur(path))
