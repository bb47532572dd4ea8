"""Probe of families: measurements of real families, and faults of misbehaving ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nngen.errors import NngenError, UsageError
from nngen.families import probe
from nngen.families.probe import profiles
from nngen.families.profile import Profile, check_shape
from nngen.types import Family, Interface, Shape

SHAPE = Shape(3, 32, 32)

NET = """
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
        {forward}
    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"])
    def learn(self, train_data):
        for images, labels in train_data:
            nn.functional.cross_entropy(self(images), labels).backward()
            self.optimizer.step()
"""


FORWARD = "return self.layer(x.mean((2, 3)))"
PLAIN_NET = NET.format(init="pass", forward=FORWARD)


def family(name: str, *, init: str = "pass", forward: str = FORWARD, source: str = "") -> Family:
    source = source or NET.format(init=init, forward=forward)
    return Family(name=name, source=source, fingerprint=hashlib.sha256(source.encode()).hexdigest(), best=None)


def test_the_interfaces_of_the_awkward_families(cache: Path, families: dict[str, Family]) -> None:
    known = {
        "BayesianNet-3": Interface(low=32, high=35, channels_last=False),
        "ComplexNet": Interface(low=16, complex=True, channels_last=False),
        "DenseNet": Interface(low=29),
        "SqueezeNet-2": Interface(low=17),
        "InceptionV3-1": Interface(low=75),
        "MaxVit": Interface(low=1, square=True),
    }
    measured = profiles([families[name] for name in known], SHAPE)
    assert {name: profile.interface for name, profile in measured.items()} == known
    assert all(profile.usable for profile in measured.values())
    native = {name for name, profile in measured.items() if profile.native(SHAPE)}
    assert native == {"BayesianNet-3", "DenseNet", "SqueezeNet-2", "MaxVit"}
    assert str(measured["InceptionV3-1"].adapter(SHAPE)) == "resize 75x75"
    assert measured["ComplexNet"].why(SHAPE) == "takes complex images of 16 px and more"
    # Counted independently, on torchvision's SqueezeNet 1.1 with ten classes.
    from torchvision.models import squeezenet1_1

    count = sum(parameter.numel() for parameter in squeezenet1_1(num_classes=10).parameters())
    assert measured["SqueezeNet-2"].parameters == {"3x32x32": count}


def test_gray_and_oblong_images(cache: Path, families: dict[str, Family]) -> None:
    shape = Shape(1, 28, 40)
    measured = profiles([families[name] for name in ("BayesianNet-3", "ICNet", "MaxVit")], shape)
    assert {name: str(profile.adapter(shape)) for name, profile in measured.items()} == {
        "BayesianNet-3": "resize 32x35",
        "ICNet": "none",
        "MaxVit": "resize 40x40",
    }


def test_stored_measurements_are_not_repeated(
    cache: Path, families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[int, int]] = []
    first = profiles([families["ICNet"]], SHAPE, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(0, 1), (1, 1)]
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert profiles([families["ICNet"]], SHAPE) == first
    with pytest.raises((OSError, NngenError)):
        profiles([families["ICNet"]], Shape(3, 48, 48))


def test_a_broken_note_is_measured_again(cache: Path) -> None:
    first = profiles([family("Plain")], SHAPE)
    for note in (cache / "probes").iterdir():
        note.write_text('{"low": ')
    assert profiles([family("Plain")], SHAPE) == first


def test_looking_up_loads_no_torch(cache: Path, wheel: Path, families: dict[str, Family]) -> None:
    code = """
import sys, time
from pathlib import Path
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.types import Shape
families = load_families(open_lemur(Path(sys.argv[1])))
print(profiles([families["ICNet"]], Shape(3, 32, 32))["ICNet"].usable, "torch" in sys.modules)
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(wheel)], capture_output=True, text=True, check=True)
        assert done.stdout == "True False\n"


MISFITS = {
    family("Flat", forward="return x.mean((1, 2, 3))"): "forward returned (2,) in eval mode on a batch of 2",
    family("Words", forward="return 'cat'"): "forward returned str in eval mode",
    family("Frozen", init="self.layer.requires_grad_(False)"): "does not require grad",
    family("Dead", forward="return self.layer(x.mean((2, 3))) * 0"): "no parameter received a gradient",
    family("NaN", forward="return self.layer(x.mean((2, 3))) / 0 * 0"): "logits are not finite",
    family("Picky", init="raise ValueError('no such stem')"): "line 10: ValueError: no such stem",
    family("Missing", init="import no_such_package"): "line 10: imports no_such_package: a mixture may only need",
    family("Bare", source="from torch import nn\nclass Net(nn.Module): pass"): "supported_hyperparameters() is missing",
    family("Evaluates", init="self.more = eval('nn.Linear(1, 1)')"): "line 10: eval() looks names up",
    family("Listed", forward="return [self.layer(x.mean((2, 3)))]"): "forward returned list in eval mode",
    family("Named", forward="return {'out': self.layer(x.mean((2, 3)))}"): "forward returned dict in eval mode",
    family(
        "Nameless", source=PLAIN_NET.replace("{'lr', 'momentum'}", "3")
    ): "supported_hyperparameters() does not return names",
    family("Pickles", init="import pickle; pickle.dumps(1)"): "import pickle is not allowed in a candidate",
    family("Opens", init="open('weights.bin')"): "open(...) is not allowed in a candidate",
    family("Patches", init="nn.functional.relu = nn.functional.gelu"): "it changes torch.nn.functional.relu for all",
    family("Adds", init="torch.Tensor.half_of = lambda self: self / 2"): "it changes torch.Tensor.half_of for all",
    family("Reseeds", forward="torch.manual_seed(0); " + FORWARD): "it seeds the generators in its forward pass",
    family(
        "Reads", init="import inspect; self.more = nn.Linear(1, len(inspect.getsource(Net)))"
    ): "another network inside a function: its parameters differ (more.weight and more.bias)",
    family("Quits", forward="import os; os._exit(7)"): "left with exit code 7",
    family("Leaves", init="raise SystemExit(3)"): "sys.exit(3) was called, while Net was built",
    family(
        "Greedy", init="self.x = torch.ones(2**33, device='cpu')"
    ): "needs more than 6,144 MiB at 3x32x32: choose a smaller shape",
    family("Torn", source="class Net("): "line 1: not Python: '(' was never closed",
    family("Newer", source="type Number = int\nclass Net: pass"): "line 1: not Python",
    family("Netless", source="x = 1"): "supported_hyperparameters() is missing",
    family("Early", source=PLAIN_NET + "raise RuntimeError('not today')"): "not today",
    family("Unseeded", init="import random; self.layer.bias.data += random.SystemRandom().random()"): (
        "it draws numbers that no seed sets: alone, too, its parameters differ (layer.bias) from run to run"
    ),
    family("Trains", source=PLAIN_NET + "    def train(self, loader, epochs): pass\n"): (
        "missing 1 required positional argument: 'epochs', while its mode was set to evaluation"
    ),
}
"""Families that cannot be used, and what is said of each."""

PLAIN = (
    family("Plain"),
    family("Loud", init="print('hello'); import sys; print('there', file=sys.stderr)"),
    family("Looks", init="assert not torch.cuda.is_available()"),
    family("Single", init="assert in_shape[0] == 1", forward="assert len(x) == 2; return self.layer(x.mean((2, 3)))"),
    family("Pair", forward="return self.layer(x.mean((2, 3))), None"),
    family("Alias", source=PLAIN_NET.replace("class Net", "class Model") + "\nNet = Model"),
    family("Lazy", init="self.layer = nn.LazyLinear(10)"),
    family("Seeds", init="torch.manual_seed(1)"),
    family("Sets", init="torch.backends.cudnn.benchmark = True"),
    family(
        "Calls",
        source=NET.format(init="self.rate = prm['dropout']", forward=FORWARD).replace(
            "{'lr', 'momentum'}", "{*'lr momentum dropout'.split()}"
        ),
    ),
    family(
        "Grouped",
        init="""
        try:
            raise ExceptionGroup('several', [ValueError(1)])
        except* ValueError:
            pass""",
    ),
    family("Once", source="WIDTHS = iter([10])\n" + NET.format(init="assert next(WIDTHS) == 10", forward=FORWARD)),
    family("Switches", source=PLAIN_NET + "    def train(self, mode=True): super().train(mode)\n"),
    family("Moves", source=PLAIN_NET + "    def to(self, device): super().to(device)\n"),
    family("Renames", source=PLAIN_NET.replace("def forward", "def run") + "    forward = run\n"),
    family("Asks", init="import torch.distributed as dist; assert not dist.is_initialized()"),
    family("Compiles", init="torch.compiler.disable(print)"),
    family("Writes", forward="x.sub_(0.5); " + FORWARD),
    family("Rectifies", forward="x.relu_(); " + FORWARD),
    family("Hides", forward="x.data.clamp_(0.2, 0.3); " + FORWARD),
)
"""Families that can: they print, look for a GPU, count or change the images, return auxiliary outputs."""

INPUT = ("Writes", "Rectifies", "Hides")

SLY = family("Sly", forward="assert x.is_meta or x.shape[2] >= 20; return self.layer(x.mean((2, 3)))")
ONE_SIZE = tuple(
    family(f"Only{side}", forward=f"assert x.shape[2] == {side}; {FORWARD}") for side in (28, 224, 299, 384)
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profile]:
    """All families, measured in one run of the worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        return profiles([*MISFITS, *PLAIN, *ONE_SIZE, SLY], SHAPE, wanted="process")


@pytest.mark.parametrize("subject", MISFITS, ids=lambda subject: subject.name)
def test_families_that_do_not_work_have_a_reason(measured: dict[str, Profile], subject: Family) -> None:
    profile = measured[subject.name]
    assert not profile.usable
    assert profile.adapter(SHAPE) is None
    assert MISFITS[subject] in profile.why(SHAPE)


@pytest.mark.parametrize("subject", PLAIN, ids=lambda subject: subject.name)
def test_families_that_work_are_usable(measured: dict[str, Profile], subject: Family) -> None:
    profile = measured[subject.name]
    assert profile.reason == ""
    assert profile.native(SHAPE)
    names = ("dropout", "lr", "momentum") if subject.name == "Calls" else None
    notes = {"Seeds": ("seeds",), "Sets": ("settings",), **dict.fromkeys(INPUT, ("input",))}.get(subject.name, ())
    assert profile.interface == Interface(low=1, hyperparameters=names, own_settings=bool(notes))
    assert profile.notes == notes
    assert profile.parameters == {"3x32x32": 3 * 10 + 10}


def test_a_border_that_meta_tensors_do_not_see_is_found(measured: dict[str, Profile]) -> None:
    assert measured["Sly"].interface == Interface(low=20)


@pytest.mark.parametrize("subject", ONE_SIZE, ids=lambda subject: subject.name)
def test_families_of_one_size_get_images_of_it(measured: dict[str, Profile], subject: Family) -> None:
    side = int(subject.name.removeprefix("Only"))
    profile = measured[subject.name]
    assert profile.reason == "" and profile.interface == Interface(low=side, high=side)
    assert str(profile.adapter(SHAPE)) == f"resize {side}x{side}"


def test_one_that_hangs_stops_no_other_and_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIME_LIMIT_S", 4.0)
    hangs, plain = family("Hangs", forward="\n        while True: pass"), family("Plain")
    measured = profiles([hangs, plain], SHAPE, jobs=1, wanted="process")
    assert measured["Plain"].usable
    assert measured["Hangs"].reason == "took longer than 4 s at 3x32x32: choose a smaller shape"
    assert len(list((cache / "probes").iterdir())) == 2  # both are Plain's: its interface and its proof


def test_nothing_is_left_behind_when_it_is_broken_off(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    before = _children()

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    slow = family("Slow", forward="import time; time.sleep(60); return self.layer(x.mean((2, 3)))")
    with pytest.raises(KeyboardInterrupt):
        profiles([family("Plain"), slow], SHAPE, progress=interrupt, jobs=2, wanted="process")
    assert list((tmp_path / "tmp").iterdir()) == []
    deadline = time.monotonic() + 5
    while _children() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _children() <= before


def _children() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def test_a_worker_that_cannot_start_is_named(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NngenError, match=r"the worker process cannot start: ImportError: libcudart"):
        profiles([family("Plain")], SHAPE, wanted="process")


@pytest.mark.parametrize("text", ["3x100000x100000", "3x1025x32", "100000x32x32"])
def test_absurd_shapes_are_refused_at_once(text: str) -> None:
    with pytest.raises(UsageError, match=f"no family takes {text}"):
        check_shape(Shape.parse(text))


def test_no_jobs_are_refused(cache: Path) -> None:
    with pytest.raises(UsageError, match="give 1 or more jobs"):
        profiles([family("Plain")], SHAPE, jobs=0)


@pytest.mark.slow
def test_all_34_are_usable_at_32_pixels(families: dict[str, Family]) -> None:
    measured = profiles(families.values(), SHAPE)
    assert {name: profile.reason for name, profile in measured.items() if not profile.usable} == {}
    adapted = {name: str(profile.adapter(SHAPE)) for name, profile in measured.items() if not profile.native(SHAPE)}
    assert set(adapted) == {"AlexNet", "ComplexNet", "InceptionV3-1", "InceptionV3-2"}
