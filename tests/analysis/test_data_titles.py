"""Titles of data sets in listings."""

import json

from nngen.analysis.formatting import data_titles
from nngen.testing.fakes import fake_campaign, fake_dataset, fake_inputs


def test_versions_of_one_name_are_told_apart():
    found = data_titles([("digits", "a" * 64), ("folder:x", "b" * 64), ("folder:x", "c" * 64), ("old", "")])
    assert found["digits", "a" * 64] == "digits"
    assert found["folder:x", "b" * 64] == "folder:x (bbbbbbbb)"
    assert found["folder:x", "c" * 64] == "folder:x (cccccccc)"
    assert found["old", ""] == "old"


def test_campaigns_on_two_versions_are_listed_apart(nngen, tmp_path):
    from dataclasses import replace

    from nngen.archive import Archive

    with Archive.open(tmp_path / "a.db") as archive:
        for name, fingerprint in (("one", "1" * 64), ("two", "2" * 64)):
            dataset = replace(fake_dataset(), fingerprint=fingerprint)
            fake_campaign(archive, name=name, dataset="folder:x", inputs=fake_inputs(dataset=dataset)).run()
        candidate = archive.trials("one")[0].candidate_id
    rows = json.loads(nngen("campaign", "ls", "--json", "--archive", tmp_path / "a.db").out)
    assert [row["dataset"] for row in rows] == ["folder:x (11111111)", "folder:x (22222222)"]
    shown = nngen("show", candidate, "--archive", tmp_path / "a.db").out
    assert "11111111" in shown and "22222222" in shown
