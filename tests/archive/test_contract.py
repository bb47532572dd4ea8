"""The archive's contract, for a file and in memory."""

import pytest

from nngen.archive import Archive
from nngen.testing.archive_contract import ArchiveContract


class TestContract(ArchiveContract):
    @pytest.fixture(params=["file", "memory"])
    def archive(self, request, tmp_path):
        made = Archive.open(tmp_path / "a.db") if request.param == "file" else Archive.in_memory()
        with made as archive:
            yield archive


@pytest.mark.parametrize(
    ("read", "index"),
    [
        (lambda archive: archive.trials(candidate_id="cand-x"), "trials_by_candidate"),
        (lambda archive: archive.trials("one", candidate_id="cand-x"), "trials_by_candidate"),
        (lambda archive: archive.events("one", kinds=("budget.", "campaign.")), "events_by_kind"),
        (lambda archive: archive.events("one"), "events_by_campaign"),
        (lambda archive: archive.trials("one"), "trials_by_campaign"),
    ],
)
def test_a_narrow_query_uses_its_own_index(read, index, monkeypatch):
    with Archive.in_memory() as archive:
        asked, chunks = [], archive._chunks
        monkeypatch.setattr(archive, "_chunks", lambda sql, values: asked.append((sql, values)) or chunks(sql, values))
        read(archive)
        plans = [[row[3] for row in archive._db.execute(f"EXPLAIN QUERY PLAN {sql}", values)] for sql, values in asked]
    assert plans
    assert all(any(index in step for step in steps) for steps in plans)
    assert not any("SCAN" in step for steps in plans for step in steps)


@pytest.mark.parametrize(
    ("asked", "sorts"),
    [
        ({}, False),
        ({"campaign": "one"}, False),
        ({"campaign": "one", "after": 5}, False),
        ({"kinds": ("budget.",)}, False),
        ({"campaign": "one", "kinds": ("budget.",)}, True),
    ],
)
def test_only_the_few_events_of_one_kind_are_sorted(asked, sorts, monkeypatch):
    """All others are read in the order in which they are stored."""
    with Archive.in_memory() as archive:
        queries, chunks = [], archive._chunks
        monkeypatch.setattr(
            archive, "_chunks", lambda sql, values: queries.append((sql, values)) or chunks(sql, values)
        )
        archive.events(**asked)
        [(sql, values)] = queries
        steps = [row[3] for row in archive._db.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    assert any("USE TEMP B-TREE FOR ORDER BY" in step for step in steps) is sorts
