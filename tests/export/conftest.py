"""Fixtures of the export room: the fake LEMUR as a tree and as a database."""

from pathlib import Path

import pytest
from fake_lemur import make_database, make_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "lemur")


@pytest.fixture
def database(tree: Path) -> Path:
    return make_database(tree)
