"""Families that are not of the pinned wheel: measured in the sandbox, and believed only within ranges."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil
import pytest
from living import lives

from nngen.errors import UsageError
from nngen.families import probe
from nngen.families.catalogue import make_family
from nngen.families.probe import profiles, training_costs
from nngen.isolation import ExitReason, JobResult, Limits
from nngen.types import Family, Interface, Shape

SHAPE = Shape(1, 32, 32)

NET = """
import io, json, os, struct, time
import torch
from torch import nn
def supported_hyperparameters():
    return {{'lr', 'momentum'}}
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.layer = nn.Linear(in_shape[1], out_shape[0])
{init}
    def forward(self, x):
        return self.layer(x.mean((2, 3)))
    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"])
    def learn(self, train_data):
        for images, labels in train_data:
            nn.functional.cross_entropy(self(images), labels).backward()
            self.optimizer.step()
"""

# These sources hide their calls from the static check, which refuses a family before it runs.
THIEF = """
        loot = [os.environ.get("API_KEY")]
        try:
            loot.append(io.open("{folder}/secret.txt").read())
        except OSError as error:
            loot.append(repr(error))
        try:
            io.open("{folder}/taken.txt", "a").write(repr(loot))
        except OSError:
            pass
        if loot != [None, loot[1]] or "Error" not in loot[1]:
            raise ValueError("the secret was read")
"""

HOLDER = """
        for number in range(3, 64):
            try:
                getattr(os, "write")(number, b"{")
            except OSError:
                pass
        if getattr(os, "fork")() == 0:
            getattr(os, "setsid")()
        time.sleep(100000)
"""

FORGER = """
        body = json.dumps({message}).encode()
        for number in range(3, 64):
            try:
                getattr(os, "write")(number, struct.pack("<B3xI", 1, len(body)) + body)
            except OSError:
                pass
        os._exit(0)
"""


def family(name: str, init: str) -> Family:
    return make_family(name, NET.format(init=init))


@pytest.mark.long
def test_a_foreign_family_sees_no_file_and_no_environment(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.txt").write_text("hidden")
    monkeypatch.setenv("API_KEY", "topsecret")
    thief = family("Thief", THIEF.replace("{folder}", str(tmp_path)))
    measured = profiles([thief], SHAPE)["Thief"]
    assert measured.reason == ""
    assert measured.interface is not None
    assert training_costs([(thief, measured.interface)], SHAPE).keys() == {"Thief"}
    assert not (tmp_path / "taken.txt").exists()
    # The same family reads both where the user takes the risk: the test would notice.
    shutil.rmtree(cache)
    assert "the secret was read" in profiles([thief], SHAPE, wanted="process")["Thief"].reason


@pytest.mark.long
def test_without_bubblewrap_nothing_runs_and_one_line_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = family("Plain", "        pass")
    first = profiles([plain], SHAPE)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert profiles([plain], SHAPE) == first  # measured already
    with pytest.raises(UsageError) as refused:
        profiles([plain], Shape(1, 40, 40))
    for part in ("family Plain is not from the pinned", "apt-get install bubblewrap", "--isolation process"):
        assert part in str(refused.value)


@pytest.mark.long
def test_one_byte_on_the_pipe_does_not_hold_up_the_probe(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIME_LIMIT_S", 4.0)
    before = set(psutil.Process().children(recursive=True))  # engines of other tests
    begin = time.monotonic()
    measured = profiles([family("Holder", HOLDER)], SHAPE)["Holder"]
    assert measured.reason == "took longer than 4 s at 1x32x32: choose a smaller shape"
    assert time.monotonic() - begin < 60  # the start of a sandbox included
    left = set(psutil.Process().children(recursive=True)) - before
    assert not any(map(lives, left))


GOOD = {"interface": {"low": 1}, "parameters": 20, "cost": None, "reason": "", "notes": [], "memory": False}
LONG = {
    "interface": None,
    "parameters": None,
    "cost": None,
    "reason": "\x1b[31mred\n" * 999,
    "notes": [],
    "memory": False,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"interface": {"low": -5}},
        {"interface": {"low": True}},
        {"interface": {"low": 8, "high": 4}},
        {"interface": {"low": 1, "high": 10**30}},
        {"interface": {"low": 1, "square": "yes"}},
        {"interface": {"low": 1, "own_settings": 1}},
        {"interface": {"low": 1, "hyperparameters": 3}},
        {"interface": {"low": 1, "hyperparameters": ['a": 1, "b']}},
        {"notes": 3},
        {"interface": {"low": 1, "channels_last": 1}},
        {"interface": {"high": 1}},
        {"interface": [1]},
        {"parameters": 10**30},
        {"parameters": "20"},
        {"parameters": -1},
        {"reason": 3},
        {"cost": {"weights_mib": -1.0, "image_mib": 0.0, "image_s": 0.0, "step_s": 0.0}},
        {"cost": {"weights_mib": "1", "image_mib": 0.0, "image_s": 0.0, "step_s": 0.0}},
        {"cost": {"weights_mib": 1e300, "image_mib": 0.0, "image_s": 0.0, "step_s": 0.0}},
        {"cost": {}},
    ],
    ids=str,
)
def test_a_measurement_out_of_range_is_refused(changed: dict[str, object]) -> None:
    measurement = probe.Probe(family=family("Sly", "        pass"), shape=SHAPE, classes=10, wanted="auto")
    ended = JobResult(
        reason=ExitReason.EXIT,
        limits=Limits(time_limit_s=1, memory_mib=1),
        status=0,
        seconds=1.0,
        peak_mib=1.0,
        output=b"",
    )
    assert measurement.answer([GOOD], ended).interface == Interface(low=1)
    for message in (GOOD | changed, {}):
        answer = measurement.answer([message], ended)
        assert answer.interface is None
        assert not answer.lasting
        assert answer.reason.startswith("the worker sent no measurement")
    assert "\x1b" not in measurement.answer([LONG], ended).reason
    assert len(measurement.answer([LONG], ended).reason) <= 300


@pytest.mark.long
def test_a_forged_measurement_is_a_reason_and_is_not_stored(cache: Path) -> None:
    forged = family("Forger", FORGER.replace("{message}", repr(GOOD | {"interface": {"low": -5}})))
    measured = profiles([forged], SHAPE)["Forger"]
    assert not measured.usable
    assert measured.reason.startswith("the worker sent no measurement")
    assert not (cache / "probes").exists()


@pytest.mark.long
def test_a_forged_entry_of_the_cache_is_measured_again(cache: Path) -> None:
    plain = family("Plain", "        pass")
    first = profiles([plain], SHAPE)
    for note in (cache / "probes").iterdir():
        note.write_text('{"interface": {"low": -5}, "reason": "", "parameters": 20, "low": -5}')
    assert profiles([plain], SHAPE) == first
