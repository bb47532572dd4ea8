"""An archive that is removed, moved or replaced while it is written: noticed at the next write, saved beside it."""

import shutil

import pytest

from nngen.archive import Archive
from nngen.errors import ArchiveError
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_record


def remove(path):
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def move(path):
    path.rename(path.with_name("elsewhere.db"))


def replace(path):
    shutil.copy(path, path.with_name("copy.db"))
    path.with_name("copy.db").rename(path)


class Saboteur(FakeEngine):
    """Changes the archive's place during the third training."""

    def train(self, job, on_epoch=None):
        result = super().train(job, on_epoch)
        if len(self.trained) == 3:
            self.act()
        return result


@pytest.mark.parametrize("act", [remove, move, replace])
def test_a_driver_notices_and_saves_the_results(tmp_path, act):
    path = tmp_path / "a.db"
    engine = Saboteur()
    engine.act = lambda: act(path)
    with Archive.open(path) as archive:
        with pytest.raises(
            ArchiveError, match=r"a\.db was removed or replaced.*what was stored is in .*a\.db\.rescued"
        ) as caught:
            fake_campaign(archive, size=6, engine=engine).run()
        assert "\n" not in str(caught.value)
        with pytest.raises(ArchiveError, match="was removed or replaced"):
            archive.log("later")
    with Archive.open(tmp_path / "a.db.rescued") as rescued:
        # Results that were on their way when the loss was noticed are stored too, or trained again.
        stored = sum(trial.trained for trial in rescued.trials("one"))
        assert 2 <= stored < 6
        again = FakeEngine()
        assert fake_campaign(rescued, size=6, engine=again).run().over
        assert len(again.trained) == 6 - stored


def test_nothing_is_overwritten_by_a_rescue(tmp_path):
    (tmp_path / "a.db.rescued").write_text("mine")
    with Archive.open(tmp_path / "a.db") as archive:
        remove(tmp_path / "a.db")
        (tmp_path / "a.db.rescued").write_text("mine")
        with pytest.raises(ArchiveError, match=r"a\.db\.rescued-2: move it"):
            archive.add_campaign(fake_record("one"), [])
    assert (tmp_path / "a.db.rescued").read_text() == "mine"
    with Archive.open(tmp_path / "a.db.rescued-2") as rescued:
        assert [campaign.name for campaign in rescued.campaigns()] == ["one"]


def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "folder"
    folder.mkdir()
    with Archive.open(folder / "a.db") as archive:
        shutil.rmtree(folder)
        with pytest.raises(ArchiveError, match=f"what was stored is in {tmp_path}/a.db.rescued"):
            archive.log("x")
