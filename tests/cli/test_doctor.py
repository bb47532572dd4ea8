"""``nngen doctor``: each thing that may be missing, with the command that mends it."""

import json

import pytest

from nngen.cli import doctor


@pytest.fixture
def examined(nngen):
    """Run the command and return its findings by name."""

    def run(code=0):
        result = nngen("doctor", "--json")
        assert result.code == code, result.err
        return {finding["name"]: finding for finding in json.loads(result.out)["findings"]}

    return run


@pytest.mark.usefixtures("wheel")
def test_a_machine_that_has_everything(examined, nngen):
    found = examined()
    assert not [one for one in found.values() if one["state"] == "problem"]
    assert found["lemur"]["found"].endswith("models")
    assert "digits" in found["data sets"]["found"]
    table = nngen("doctor")
    assert all(name in table.out for name in found)


def test_lemur_is_missing(examined, monkeypatch, tmp_path):
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path))
    monkeypatch.delenv("NNGEN_LEMUR", raising=False)
    found = examined(code=1)["lemur"]
    assert (found["state"], found["remedy"]) == ("problem", "nngen lemur fetch")
    assert str(tmp_path) not in json.dumps(found)


def test_bubblewrap_is_missing_or_refused(examined, monkeypatch, tmp_path):
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(program) if name == "bwrap" else None)
    found = doctor._sandbox()
    assert found.state == "optional"
    assert "apparmor_restrict_unprivileged_userns=0" in found.remedy
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert doctor._sandbox().remedy == "sudo apt-get install bubblewrap"


def test_torch_and_torchvision_that_do_not_fit(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchvision.ops", None)
    found = doctor._torch()
    assert found.state == "problem"
    assert "pip uninstall -y torch torchvision" in found.remedy


@pytest.mark.parametrize(("cuda", "reason"), [(None, "built for the CPU"), ("13.0", "driver does not fit")])
def test_a_card_that_torch_cannot_use(cuda, reason, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr("nngen.training.environment.has_card", lambda: True)
    found = doctor._graphics_cards()
    assert reason in found.found
    assert found.remedy


def test_a_cache_that_cannot_be_written_and_a_full_disk(monkeypatch, tmp_path):
    monkeypatch.setenv("NNGEN_CACHE", "/proc/none")
    assert doctor._write_access().remedy == "set NNGEN_CACHE to a folder of yours"
    assert doctor._disk().state == "problem"
    monkeypatch.setenv("NNGEN_CACHE", str(tmp_path))
    monkeypatch.setenv("NNGEN_ARCHIVE", str(tmp_path / "none" / "nngen.db"))
    assert doctor._write_access().remedy.endswith("name a file in NNGEN_ARCHIVE")


def test_an_examination_that_fails_is_a_finding(monkeypatch, nngen):
    def broken():
        raise OSError("out of order")

    monkeypatch.setattr(doctor, "_EXAMINED", (broken,))
    result = nngen("doctor")
    assert result.code == 1
    assert "out of order" in result.out
    assert "Traceback" not in result.err


@pytest.mark.slow
@pytest.mark.usefixtures("wheel")
def test_a_training_on_each_device(nngen):
    result = nngen("doctor", "--train", "--json")
    assert result.code == 0, result.err
    row, *others = json.loads(result.out)["trainings"]
    assert not others
    assert (row["device"], row["verdict"]) == ("cpu", "valid")
    assert row["accuracy"] > 0.05
    assert row["images_per_s"] > 1
    assert 100 < row["predicted_mib"] < 10_000
