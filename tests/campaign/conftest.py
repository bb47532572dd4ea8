"""Fixtures of campaign tests."""

import pytest

from nngen.archive import Archive


@pytest.fixture
def archive(tmp_path):
    with Archive.open(tmp_path / "a.db") as archive:
        yield archive
