"""``nngen doctor`` and ``nngen archive``: the state of the machine and of an archive, and what mends each problem."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
from cyclopts import App

from nngen import __version__
from nngen.archive import check_creatable, default_path
from nngen.archive.check import check as check_archive
from nngen.archive.check import salvage as salvage_archive
from nngen.cli.options import ArchiveOptions, Flag
from nngen.cli.output import OutputOptions, note, print_json, print_table, suggest
from nngen.datasets.registry import DATASETS, on_disk
from nngen.datasets.source import Request
from nngen.errors import ArchiveError, LemurError, NngenError, UsageError
from nngen.files import cache_dir
from nngen.isolation import Isolation, Job, JobRunner, Limits
from nngen.lemur.source import open_lemur
from nngen.text import listed, one_line

archive = App(name="archive", help="Check an archive; save what can be read of a damaged one.")

_SHOWN_PROBLEMS = 20
_MIN_DISK_GB, _MIN_MEMORY_GB = 2.0, 4.0
_TRAINED = ("ShuffleNet", "MobileNetV3", "SqueezeNet-1", "ICNet")
_EXTRAS = {"llm": "transformers", "ray": "ray", "export": "onnx", "tpe": "optuna", "dashboard": "starlette"}
"""Extras with the package that shows that each is installed."""

_APPARMOR = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that nngen uses."""

    name: str  # the thing
    # ``ok``; ``optional`` where it is missing and some commands need it; ``problem`` where nngen needs it
    state: Literal["ok", "optional", "problem"] = "ok"
    found: str  # description of what is there, or what is wrong
    remedy: str = ""  # command or step that mends it; empty where nothing is to do


def doctor(*, train: Flag = False, output: OutputOptions = OutputOptions()) -> None:
    """Examine this machine: Python, torch, graphics cards, sandbox, LEMUR, data sets, Ray, disk, memory.

    Each problem is listed with the command that mends it. The output names no user and no folder outside of the
    current one, so that it can be pasted into a report of a fault. Exit code 1 where something that nngen needs is
    missing.

    Args:
        train: Also train one small mixture on each device, and compare the accuracies.

    Examples:
        nngen doctor
        nngen doctor --train --json
    """
    findings = [_guarded(examine) for examine in _EXAMINED]
    bad = [finding for finding in findings if finding.state == "problem"]
    trained = list(_trainings()) if train and not bad else []
    if output.json:
        print_json({"ok": not bad, "findings": [asdict(one) for one in findings], "trainings": trained})
    else:
        print_table([asdict(finding) for finding in findings])
        if trained:
            print_table(trained)
    if bad:
        untrained = "; nothing was trained" if train else ""
        raise NngenError(
            f"nngen cannot work here before this is mended: {listed([one.name for one in bad])}{untrained}"
        )
    suggest("campaign", "run", "first", "--size", 4, "--dataset", "digits")


def _guarded(examine: Callable[[], Finding]) -> Finding:
    """Turn the error of an examination into a finding."""
    try:
        return examine()
    except (NngenError, OSError) as error:
        return Finding(
            name=examine.__name__.strip("_").replace("_", " "), state="problem", found=_pasteable(str(error))
        )


def _pasteable(text: str) -> str:
    """Return a text as one line without the names of the user's folders."""
    return one_line(text.replace(str(Path.cwd()), ".").replace(str(Path.home()), "~"), 300)


def _python() -> Finding:
    return Finding(name="python", found=f"{platform.python_version()}, nngen {__version__}, {platform.platform()}")


def _torch() -> Finding:
    remedy = f"{Path(sys.executable).name} -m pip uninstall -y torch torchvision, then install both anew"
    try:
        import torch
        import torchvision.ops  # its operators are built for one version of torch
    except (ImportError, OSError, RuntimeError) as error:
        found = _pasteable(f"torch and torchvision cannot be loaded together: {error}")
        return Finding(name="torch", state="problem", found=found, remedy=remedy)
    return Finding(name="torch", found=f"{torch.__version__}, torchvision {torchvision.__version__}")


def _graphics_cards() -> Finding:
    import torch

    from nngen.training.environment import has_card

    name = "graphics cards"
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        shown = listed([f"{card.name} ({card.total_memory / 2**30:.0f} GiB)" for card in cards])
        return Finding(name=name, found=f"{shown}, CUDA {torch.version.cuda}")
    if not has_card():
        return Finding(name=name, found="none: training runs on the CPU")
    reason = "this torch is built for the CPU" if torch.version.cuda is None else "the driver does not fit torch's CUDA"
    remedy = "update the driver of the card, or install the build of torch that fits it: https://pytorch.org"
    return Finding(name=name, state="optional", found=f"a card is there, but {reason}", remedy=remedy)


def _sandbox() -> Finding:
    if shutil.which("bwrap") is None:
        needed = "bubblewrap is missing: only what nngen assembles from LEMUR's families can run"
        return Finding(name="sandbox", state="optional", found=needed, remedy="sudo apt-get install bubblewrap")
    # Any function does: the worker has started, and that is what is asked.
    job = Job(
        entry_point="builtins:print",
        arguments={},
        limits=Limits(time_limit_s=60.0, memory_mib=1024),
        isolation=Isolation.SANDBOX,
    )
    try:
        with JobRunner(preload=()) as runner:
            _, result = runner.collect(job)
        if result.completed:
            return Finding(name="sandbox", found="bubblewrap starts a worker")
        found = result.describe()
    except NngenError as error:
        found = str(error)
    remedy = f"allow user namespaces (Ubuntu 24.04: {_APPARMOR})"
    return Finding(name="sandbox", state="optional", found=_pasteable(found), remedy=remedy)


def _lemur() -> Finding:
    try:
        models = open_lemur().models()
        return Finding(name="lemur", found=f"{len(models):,} models")
    except LemurError as error:
        return Finding(name="lemur", state="problem", found=_pasteable(str(error)), remedy="nngen lemur fetch")


def _data_sets() -> Finding:
    root = cache_dir() / "torchvision"
    names = [name for name in DATASETS if ":" not in name]
    there = [name for name in names if on_disk(DATASETS[name].source(Request(name=name, root=root)))]
    missing = [name for name in names if name not in there]
    remedy = f"{listed(missing)} will be downloaded when used, or read from nngen train --data-root" if missing else ""
    return Finding(name="data sets", found=f"on disk: {listed(there)}", remedy=remedy)


def _extras() -> Finding:
    found, missing = [], []
    for extra, package in _EXTRAS.items():
        try:
            found.append(f"{extra} ({package} {version(package)})")
        except PackageNotFoundError:
            missing.append(extra)
    remedy = f"pip install '.[{','.join(missing)}]' for the commands that need them" if missing else ""
    state: Literal["ok", "optional"] = "optional" if missing else "ok"
    return Finding(name="extras", state=state, found=listed(found) or "none", remedy=remedy)


def _disk() -> Finding:
    free = {
        "here": shutil.disk_usage(Path.cwd()).free / 1e9,
        "cache": shutil.disk_usage(_existing(cache_dir())).free / 1e9,
    }
    shown = ", ".join(f"{size:,.0f} GB free ({place})" for place, size in free.items())
    if min(free.values()) < _MIN_DISK_GB:
        return Finding(
            name="disk", state="problem", found=shown, remedy="free space, or set NNGEN_CACHE to another disk"
        )
    return Finding(name="disk", found=shown)


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    shown = f"{memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GiB free, {os.cpu_count()} cores"
    if memory.available / 2**30 < _MIN_MEMORY_GB:
        return Finding(
            name="memory", state="optional", found=shown, remedy="large mixtures will not fit: use smaller ones"
        )
    return Finding(name="memory", found=shown)


def _write_access() -> Finding:
    place = _existing(cache_dir())
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        found = f"{_pasteable(str(place))} cannot be written: {error.strerror}"
        return Finding(name="write access", state="problem", found=found, remedy="set NNGEN_CACHE to a folder of yours")
    try:
        check_creatable(default_path())
    except ArchiveError as error:
        remedy = "work in a folder of yours, or name a file in NNGEN_ARCHIVE"
        return Finding(name="write access", state="problem", found=_pasteable(str(error)), remedy=remedy)
    return Finding(name="write access", found="the cache and the current folder")


def _existing(path: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


_EXAMINED = (_python, _torch, _graphics_cards, _sandbox, _lemur, _data_sets, _extras, _disk, _memory, _write_access)


def _trainings() -> Iterator[dict[str, Any]]:
    """Train one small mixture on each device; yield what each training shows of its device."""
    import nngen
    from nngen.families.probe import usable_families
    from nngen.training import LocalEngine, pick_device
    from nngen.training.memory_model import predictor

    data, families = nngen.load_dataset("digits"), nngen.load_families()
    candidate = nngen.assemble(_TRAINED, shape=data.default_shape)
    pool, _ = usable_families([families[name] for name in _TRAINED], data.default_shape, classes=data.classes)
    for device in dict.fromkeys(("cpu", pick_device())):
        note(f"training one epoch of digits on {device}")
        # Under the usual limit the memory of so small a training on a CPU is not predicted.
        limit = 4096 if device == "cpu" else 12_288
        with LocalEngine(predict=predictor(pool, classes=data.classes)) as engine:
            trial = nngen.train(
                candidate, dataset=data, epochs=1, device=device, lr=3e-3, memory_mib=limit, engine=engine
            )
        seconds = sum(point.seconds for point in trial.curve)
        yield {
            "device": device,
            "verdict": trial.verdict.outcome.value,
            "accuracy": trial.validation_accuracy,
            "images_per_s": round(len(data.train_labels) / seconds, 1) if seconds else None,
            "peak_mib": round(trial.peak_mib),
            "predicted_mib": trial.predicted_mib and round(trial.predicted_mib),
            "energy_j": trial.energy_j and round(trial.energy_j),
        }


@archive.command
def check(*, salvage: Flag = False, out: Path | None = None, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Read every row of an archive, and name those that cannot be read.

    The exit code is 1 where something is damaged. With --salvage, the rows that can be read are copied into a new
    archive; trials whose result is lost are stored as ready, and the same command that ran the campaign trains them
    again. The damaged file stays as it is.

    Args:
        salvage: Copy what can be read into a new archive.
        out: File of the new archive; by default the damaged one's name with .salvaged at its end.

    Examples:
        nngen archive check
        nngen archive check --archive old.db --json
        nngen archive check --salvage --out whole.db
    """
    path = output.path
    if out and not salvage:
        raise UsageError("--out names the file that --salvage writes: give both or neither")
    found = salvage_archive(path, out or path.with_name(f"{path.name}.salvaged")) if salvage else check_archive(path)
    if output.json:
        print_json(asdict(found) | {"path": str(found.path), "saved": found.saved and str(found.saved)})
    else:
        print_table([{"table": table, "rows": count} for table, count in found.rows.items()])
        for where, reason in list(found.problems.items())[:_SHOWN_PROBLEMS]:
            note(f"{where}: {reason}")
    if found.saved:
        again = f"; {found.again:,} trials are to be trained again" if found.again else ""
        note(f"saved {found.saved}: {sum(found.rows.values()):,} rows, {found.damaged:,} left out{again}")
    elif found.problems:
        raise ArchiveError(
            f"archive {path}: {found.damaged:,} rows cannot be read, {len(found.problems):,} problems: restore a copy, "
            "or run nngen archive check --salvage"
        )
