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
