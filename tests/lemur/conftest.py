"""LEMUR as wheel, checkout and database, with a few models of the real wheel."""

from __future__ import annotations

import json
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

MODELS = ("AirNet", "ComplexNet", "SqueezeNet-2", "LSTM")

SCHEMA = """
    CREATE TABLE nn (name TEXT PRIMARY KEY, code TEXT NOT NULL, id TEXT NOT NULL);
    CREATE TABLE transform (name TEXT PRIMARY KEY, code TEXT NOT NULL, id TEXT NOT NULL);
    CREATE TABLE metric (name TEXT PRIMARY KEY, code TEXT NOT NULL, id TEXT NOT NULL);
    CREATE TABLE prm (uid TEXT NOT NULL, name TEXT NOT NULL, value OBJECT NOT NULL);
    CREATE TABLE stat (id TEXT PRIMARY KEY, accuracy REAL, epoch INTEGER, duration INTEGER,
        task, dataset, nn, transform, metric, prm);
"""
"""The tables that nn-dataset 2.1.2 makes, as far as it reads them back."""


@pytest.fixture(scope="session")
def checkout(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of nn-dataset with four of the wheel's models and all their results."""
    root = tmp_path_factory.mktemp("nn-dataset")
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            parts = member.split("/")
            source = member.startswith("ab/nn/nn/") and parts[-1].removesuffix(".py") in MODELS
            result = member.startswith("ab/nn/stat/train/") and parts[4].split("_")[3] in MODELS
            if source or result:
                archive.extract(member, root)
    return root


@pytest.fixture(scope="session")
def database(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same models in a database with the tables of nn-dataset 2.1.2."""
    file = tmp_path_factory.mktemp("db") / "ab.nn.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.executescript(SCHEMA)
        for source in (checkout / "ab/nn/nn").glob("*.py"):
            connection.execute("INSERT INTO nn VALUES (?, ?, ?)", (source.stem, source.read_text(), source.stem))
        row = 0
        for result in (checkout / "ab/nn/stat/train").glob("*/*.json"):
            task, dataset, metric, model = result.parent.name.split("_")
            for trial in json.loads(result.read_text()):
                row += 1
                uid, accuracy, duration = (trial.pop(key, None) for key in ("uid", "accuracy", "duration"))
                connection.executemany("INSERT INTO prm VALUES (?, ?, ?)", [(uid, *item) for item in trial.items()])
                stat = (row, accuracy, int(result.stem), duration, task, dataset, model)
                connection.execute(
                    "INSERT INTO stat VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*stat, trial["transform"], metric, uid)
                )
    return file
