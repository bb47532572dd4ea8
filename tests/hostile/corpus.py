"""The hostile corpus: a table of attacks, each a few statements inserted into the same small net.

An entry of ``ATTACKS`` names the place of its statements (``module``, ``init``, ``setup``, ``learn``, ``after`` its
loop, ``forward``, or ``predict``, which is ``forward`` after training) and the correct verdicts at the
levels ``process`` and ``sandbox``. A level that is not named need not contain the attack. An attack that
succeeds raises ``BREACH``; ``GIVEN_...`` is replaced when the source is written (``containment.Targets``).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import dedent, indent

from nngen.isolation import Isolation
from nngen.types import Outcome

__all__ = ["ATTACKS", "Attack"]

NET = """\
import torch
import torch.nn as nn
{module}

def supported_hyperparameters():
    return {{"lr", "momentum"}}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0]))
        self.device = device
        self.criterion = nn.CrossEntropyLoss()
{init}
    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])
{setup}
    def learn(self, train_data):
{learn}
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            loss = self.criterion(self(inputs), labels)
            loss.backward()
            self.optimizer.step()
{after}
    def forward(self, x):
{forward}
        return self.head(x)
"""
PLACES = {"module": 0, "init": 8, "setup": 8, "learn": 8, "after": 8, "forward": 8}
PREDICTING = "if not self.training and not torch.is_grad_enabled():\n"

LARGE = {
    "deep": lambda: "x = " + "-" * 10**6 + "1\n",
    "chain": lambda: "x = 1" + "+1" * 10**6 + "\n",
}
"""Sources too large to be kept; that of ``huge_source`` is a file of 1 GiB without content."""

FORGERY = """
import os
import json
import stat

def pipes():
    for number in range(3, 64):
        try:
            if stat.S_ISFIFO(os.fstat(number).st_mode):
                yield number
        except OSError:
            pass

def frame(kind, body):
    return bytes([kind, 0, 0, 0]) + len(body).to_bytes(4, "little") + body
"""


CALLS = """
keyctl 250 219, add_key 248 217, request_key 249 218, ptrace 101 117, process_vm_readv 310 270,
process_vm_writev 311 271, pidfd_getfd 438 438, kcmp 312 272, io_uring_setup 425 425, userfaultfd 323 282,
bpf 321 280, perf_event_open 298 241,
memfd_create 319 279, memfd_secret 447 447, shmget 29 194, msgget 68 186, semget 64 190, mq_open 240 180,
socket 41 198, socketpair 53 199, unshare 272 97, setns 308 268, mount 165 40, umount2 166 39, pivot_root 155 41,
chroot 161 51, vmsplice 278 75, splice 275 76, tee 276 77, epoll_create1 291 20, inotify_init1 294 26,
fanotify_init 300 262, timer_create 222 107, timerfd_create 283 85, setuid 105 146, setgid 106 144, personality 135 92,
seccomp 317 277, landlock_create_ruleset 444 444, clone3 435 435, process_madvise 440 440
"""
"""Calls that a net does not need, with their numbers on x86-64 and AArch64."""

COLUMN = 2 if platform.machine() == "aarch64" else 1
NUMBERS = f"NUMBERS = { ({call.split()[0]: int(call.split()[COLUMN]) for call in CALLS.split(',')}) }"
"""``NUMBERS`` in a source: the numbers of ``CALLS`` on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One entry of the corpus.

    Attributes:
        name: Identifier in reports and tests.
        title: Goal of the attack, as a sentence.
        right: Correct verdicts by level; a level that need not contain the attack is absent.
        says: Part of the verdict's message.
        large: Key of ``LARGE``, or ``huge``, where the source is not kept as text.
        statements: Source lines by place.
    """

    name: str
    title: str
    right: Mapping[Isolation, tuple[Outcome, ...]]
    says: str
    large: str
    statements: Mapping[str, str]

    @property
    def source(self) -> str:
        """Return the net with the attack; not for ``huge``."""
        if self.large:
            return LARGE[self.large]()
        places = {place: indent(self.statements.get(place, ""), " " * depth) for place, depth in PLACES.items()}
        return NET.format(**places)


def _attack(
    name: str,
    title: str,
    *,
    both: str = "",
    process: str = "",
    sandbox: str = "",
    says: str = "",
    large: str = "",
    **statements: str,
) -> Attack:
    levels = {Isolation.PROCESS: both or process, Isolation.SANDBOX: both or sandbox}
    lines = {place: dedent(text).strip("\n") for place, text in statements.items()}
    if "predict" in lines:
        lines["forward"] = PREDICTING + indent(lines.pop("predict"), "    ")
    assert lines.keys() <= PLACES.keys(), name
    return Attack(
        name=name,
        title=title,
        right={level: tuple(map(Outcome, words.split("|"))) for level, words in levels.items() if words},
        says=says,
        large=large,
        statements=lines,
    )


# fmt: off
ATTACKS = (
    # Ends its process.
    _attack(
        "abort", "Aborts.", both="crashed", says="SIGABRT",
        init="import os; os.abort()",
    ),
    _attack(
        "exit_0", "Leaves with exit code 0.", both="crashed", says="exit code 0",
        init="import os; os._exit(0)",
    ),
    _attack(
        "exit_7", "Leaves in the middle of learn with exit code 7.", both="crashed", says="exit code 7",
        learn="import os; os._exit(7)",
    ),
    _attack(
        "sys_exit", "Calls sys.exit.", both="crashed", says="sys.exit(0) was called",
        init="import sys; sys.exit(0)",
    ),
    _attack(
        "interrupt", "Raises KeyboardInterrupt, as Ctrl-C does.", both="crashed", says="KeyboardInterrupt",
        init="raise KeyboardInterrupt",
    ),
    _attack(
        "segfault", "Reads address 0.", both="crashed", says="SIGSEGV",
        learn="import ctypes; ctypes.string_at(0)",
    ),
    _attack(
        "kill_itself", "Kills itself.", both="crashed", says="SIGKILL",
        init="import os; os.kill(os.getpid(), 9)",
    ),
    _attack(
        "recursion", "Recurses in C until the stack ends.", both="crashed|timeout|memory",
        init="""
            import sys
            sys.setrecursionlimit(10**9)
            def deeper(thing):
                return repr([thing]) and deeper([thing])
            deeper([])
            """,
    ),
    _attack(
        "unpickle", "Unpickles an object whose loading leaves the process.", both="crashed", says="exit code 3",
        init="""
            import os
            import pickle
            class Leave:
                def __reduce__(self):
                    return os._exit, (3,)
            pickle.loads(pickle.dumps(Leave()))
            """,
    ),

    # Takes too long.
    _attack(
        "loop_import", "Loops while it is imported.", both="timeout",
        module="while True: pass",
    ),
    _attack(
        "loop_init", "Loops in __init__.", both="timeout",
        init="while True: pass",
    ),
    _attack(
        "loop_setup", "Loops in train_setup.", both="timeout",
        setup="while True: pass",
    ),
    _attack(
        "loop_learn", "Spends the limit in learn.", both="timeout",
        learn="while True: pass",
    ),
    _attack(
        "loop_predict", "Trains, and loops when it predicts.", both="timeout",
        predict="while True: pass",
    ),
    _attack(
        "sleep", "Sleeps for ever.", both="timeout",
        init="import time; time.sleep(10**6)",
    ),
    _attack(
        "stop_itself", "Stops itself, so that it is neither alive nor dead.", both="timeout",
        init="import os; os.kill(os.getpid(), 19)",
    ),
    _attack(
        "ignore_sigterm", "Ignores every signal that can be ignored.", both="timeout",
        init="""
            import signal
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            while True:
                pass
            """,
    ),
    _attack(
        "patched_clock", "Stops the clocks of its process, then takes its time.", both="timeout",
        init="""
            import time
            time.time = time.monotonic = time.perf_counter = lambda: 0.0
            while True:
                pass
            """,
    ),
    _attack(
        "stdout_flood", "Prints without end.", both="timeout",
        init="""
            while True:
                print("x" * 10**6)
            """,
    ),
    _attack(
        "stderr_flood", "Writes to the error stream's descriptor without end.", both="timeout",
        init=r"""
            import os
            while True:
                os.write(2, b"\x1b[31m" * 10**5)
            """,
    ),

    # Takes too much memory.
    _attack(
        "heap", "Takes memory without end.", both="memory",
        init="""
            taken = []
            while True:
                taken.append(bytearray(2**26))
            """,
    ),
    _attack(
        "huge_tensor", "Asks for 100 GiB at once.", both="memory",
        init="self.big = torch.ones(25 * 2**30)",
    ),
    _attack(
        "anonymous_mmap", "Maps memory and touches it.", both="memory",
        init="""
            import mmap
            taken = []
            while True:
                part = mmap.mmap(-1, 2**26, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                part.write(b"x" * 2**26)
                taken.append(part)
            """,
    ),
    _attack(
        "shared_tensor", "Moves tensors to shared memory without end.", both="crashed|memory",
        init="""
            taken = []
            while True:
                taken.append(torch.ones(2**22).share_memory_())
            """,
    ),
    _attack(
        "raise_limits", "Raises its own limits, then takes memory.", both="memory",
        init="""
            import resource
            for kind in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
                try:
                    resource.setrlimit(kind, (-1, -1))
                except (OSError, ValueError):
                    pass
            taken = []
            while True:
                taken.append(bytearray(2**26))
            """,
    ),
    _attack(
        "children_grow", "Each of eight children takes a share of the memory.", both="memory",
        init="""
            import os
            for _ in range(8):
                if os.fork() == 0:
                    taken = bytearray(b"x" * 2**28)
                    break
            while True:
                pass
            """,
    ),

    # Takes too many processes, files or other resources.
    _attack(
        "fork_bomb", "Every fork forks.", both="memory|crashed",
        init="""
            import os
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
            """,
    ),
    _attack(
        "fork_swarm", "Two thousand children that sleep; RLIMIT_NPROC does not hold root.", both="memory|crashed",
        init="""
            import os
            import time
            for _ in range(2000):
                if os.fork() == 0:
                    time.sleep(10**6)
            while True:
                pass
            """,
    ),
    _attack(
        "thread_swarm", "A hundred thousand threads.", process="memory|crashed|timeout", sandbox="crashed",
        init="""
            import threading
            event = threading.Event()
            for _ in range(100_000):
                threading.Thread(target=event.wait, daemon=True).start()
            """,
    ),
    _attack(
        "file_handles", "Opens files without closing them.", both="crashed", says="Too many open files",
        init="""
            taken = []
            while True:
                taken.append(open("/dev/null"))
            """,
    ),
    _attack(
        "big_file", "One file without end.", both="crashed", says="OSError",
        init="""
            with open("big", "wb") as file:
                while True:
                    file.write(b"x" * 2**24)
            """,
    ),
    _attack(
        "many_files", "Files of 8 MiB without end.", sandbox="crashed", says="No space left",
        init="""
            for number in range(10**6):
                with open(f"{number}", "wb") as file:
                    file.write(b"x" * 2**23)
            """,
    ),
    _attack(
        "shm_files", "Fills /dev/shm with files.", sandbox="crashed", says="No space left",
        init="""
            for number in range(10**6):
                with open(f"/dev/shm/nngen-hostile-{number}", "wb") as file:
                    file.write(b"x" * 2**23)
            """,
    ),

    # A source that is an attack by itself.
    _attack(
        "huge_source", "A source of 1 GiB.", both="syntax", says="4 MiB", large="huge",
    ),
    _attack(
        "deep_tree", "A source nested a million deep.", both="syntax|import|memory|crashed", large="deep",
    ),
    _attack(
        "long_chain", "A source of a million additions.", both="syntax|import|memory|crashed", large="chain",
    ),

    # Returns what is not a prediction.
    _attack(
        "nan", "Returns NaN when it predicts.", both="non-finite", says="not finite",
        predict='return self.head(x) * float("nan")',
    ),
    _attack(
        "no_tensor", "Returns text when it predicts.", both="shape",
        predict='return "ten"',
    ),
    _attack(
        "wrong_count", "Returns too few rows when it predicts.", both="shape",
        predict="return self.head(x)[:1]",
    ),
    _attack(
        "wrong_shape", "Returns too few classes when it predicts.", both="shape",
        predict="return self.head(x)[:, :3]",
    ),
    _attack(
        "changed_shape", "Changes its head's width after it was checked.", both="shape",
        after="self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 11))",
    ),
    _attack(
        "always_equal", "Returns an object that equals everything.", both="shape",
        module="""
            class Everything:
                def __eq__(self, other):
                    return True
                def __hash__(self):
                    return 0
                def __getattr__(self, name):
                    return self
                def __call__(self, *rest, **more):
                    return self
            """,
        predict="return Everything()",
    ),
    _attack(
        "lying_tensor", "A subclass of Tensor whose argmax lies.", both="valid|shape|crashed",
        module="""
            class Liar(torch.Tensor):
                def argmax(self, *rest, **more):
                    return torch.full((len(self),), 60_000)
            """,
        forward="""
            if not torch.is_grad_enabled():
                return self.head(x).as_subclass(Liar)
            """,
    ),
    _attack(
        "hostile_report", "Returns values from learn that are not numbers.", both="valid",
        module="""
            class Number:
                def __float__(self):
                    raise SystemExit(0)
            """,
        after='return (float("nan"), 10**400)',
    ),

    # Messages that harm whoever prints them.
    _attack(
        "ansi_message", "Its exception colours the terminal and rings its bell.",
        both="crashed", says="ValueError: red two",
        init=r'raise ValueError("\x1b[31mred\x1b[0m\r\n\x07two\x1b]0;title\x07")',
    ),
    _attack(
        "raising_str", "An exception whose text raises.", both="crashed",
        init='raise type("E", (Exception,), {"__str__": lambda self: 1 / 0})()',
    ),

    # Forges messages to the engine.
    _attack(
        "forge_nonsense", "Writes nonsense to every pipe.", both="crashed", says="unknown kind",
        module=FORGERY,
        init="""
            for number in pipes():
                os.write(number, b"x" * 64)
            """,
    ),
    _attack(
        "forge_length", "Announces a message of 4 GiB.", both="crashed", says="4294967295 bytes",
        module=FORGERY,
        init=r"""
            for number in pipes():
                os.write(number, bytes([1, 0, 0, 0]) + b"\xff" * 4)
            """,
    ),
    _attack(
        "forge_json", "Sends JSON that is nested deeper than any stack.", both="crashed", says="not JSON",
        module=FORGERY,
        init="""
            for number in pipes():
                os.write(number, frame(1, b"[" * 65_000))
            """,
    ),
    _attack(
        "forge_epochs", "Reports epochs before it has trained.", both="crashed", says="out of order",
        module=FORGERY,
        init="""
            for number in pipes():
                os.write(number, frame(2, bytes(2 * GIVEN_VALIDATION)))
            """,
    ),
    _attack(
        "forge_score", "Sends test predictions in place of validation's.", both="crashed", says="out of order",
        module=FORGERY,
        learn="""
            for number in pipes():
                os.write(number, frame(3, bytes(2 * GIVEN_TEST)))
            """,
    ),
    _attack(
        "forge_class", "Predicts a class that does not exist.", both="crashed", says="class 65535",
        module=FORGERY,
        learn=r"""
            report = frame(1, b'{"event": "epoch", "samples": 1}')
            for number in pipes():
                os.write(number, report + frame(2, b"\xff" * 2 * GIVEN_VALIDATION))
            """,
    ),
    _attack(
        "forge_verdict", "Sends a verdict that says valid.", both="crashed", says="calls itself valid",
        module=FORGERY,
        init="""
            words = dict(event="verdict", outcome="valid", rule="", message="", line=None)
            for number in pipes():
                os.write(number, frame(1, json.dumps(words).encode()))
            """,
    ),
    _attack(
        "forge_refused", "Raises the package's own exception with a verdict that says valid.",
        both="crashed", says="calls itself valid",
        init="""
            from nngen.checks.rule import CheckFailed
            from nngen.types import Outcome, Verdict
            raise CheckFailed(Verdict(outcome=Outcome.VALID))
            """,
    ),
    _attack(
        "forge_line", "Sends a verdict with a line that no database holds.", both="crashed", says="not a line of",
        module=FORGERY,
        learn="""
            words = dict(event="verdict", outcome="crashed", rule="x", message="y", line=10**30)
            for number in pipes():
                os.write(number, frame(1, json.dumps(words).encode()))
            """,
    ),
    _attack(
        "forge_duplicate", "Calls itself a duplicate.", both="crashed", says="not a verdict",
        module=FORGERY,
        learn="""
            words = dict(event="verdict", outcome="duplicate", rule="", message="", line=None)
            for number in pipes():
                os.write(number, frame(1, json.dumps(words).encode()))
            """,
    ),
    _attack(
        "forge_killed", "Claims that the machine killed it, to be tried again.", both="crashed", says="not a worker's",
        module=FORGERY,
        learn="""
            words = dict(event="verdict", outcome="crashed", rule="worker.killed", message="", line=None)
            for number in pipes():
                os.write(number, frame(1, json.dumps(words).encode()))
            """,
    ),
    _attack(
        "forge_memory", "Reports a lack of memory, to be tried with smaller batches.", both="memory",
        says="it is too big",
        module=FORGERY,
        learn="""
            words = dict(event="verdict", outcome="memory", rule="x", message="it is too big", line=None)
            for number in pipes():
                os.write(number, frame(1, json.dumps(words).encode()))
            """,
    ),
    _attack(
        "forge_samples", "Reports more samples than any machine hands out.", both="crashed", says="number of samples",
        module=FORGERY,
        learn="""
            report = frame(1, json.dumps(dict(event="epoch", samples=10**18)).encode())
            for number in pipes():
                os.write(number, report + frame(2, bytes(2 * GIVEN_VALIDATION)))
            """,
    ),
    _attack(
        "forge_stdout", "Prints the lines that a naive harness would read as its result.", both="valid",
        init="""
            print('{"accuracy": 1.0, "validation_accuracy": 1.0, "outcome": "valid"}')
            """,
    ),

    # Patches the code that scores it.
    _attack(
        "patch_channel", "Replaces the worker's own sender.", both="valid|crashed",
        init="""
            from nngen.isolation.protocol import Channel
            send = Channel.send_bytes
            Channel.send_bytes = lambda self, kind, body: send(self, kind, bytes(len(body)) if kind != 1 else body)
            """,
    ),
    _attack(
        "patch_isfinite", "Makes torch call everything finite.", both="valid|non-finite|crashed",
        after="""
            torch.isfinite = lambda x: torch.ones_like(x, dtype=torch.bool)
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.fill_(float("nan"))
            """,
    ),
    _attack(
        "patch_metric", "Makes the scorer's metric return 1.", both="valid",
        init="""
            from nngen.training import scoring
            scoring.accuracy = lambda predictions, labels: 1.0
            """,
    ),
    _attack(
        "patch_torch", "Makes every argmax of torch return 0.", both="valid|crashed",
        after="torch.Tensor.argmax = lambda self, *rest, **more: torch.zeros(len(self), dtype=torch.int64)",
    ),

    # Looks for the labels.
    _attack(
        "labels_by_gc", "Looks through every object for the labels it is scored by.", both="valid",
        learn="""
            import gc
            import numpy as np
            for thing in gc.get_objects():
                if (
                    isinstance(thing, (np.ndarray, torch.Tensor))
                    and thing.ndim == 1
                    and len(thing) in (GIVEN_VALIDATION, GIVEN_TEST)
                ):
                    raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "labels_by_frames", "Looks through its callers' variables for the labels.", both="valid",
        learn="""
            import sys
            frame = sys._getframe()
            while frame is not None:
                data = frame.f_locals.get("data")
                if isinstance(data, dict) and any("label" in name and "train" not in name for name in data):
                    raise RuntimeError("BREACH")
                frame = frame.f_back
            """,
    ),
    _attack(
        "labels_by_descriptor", "Reads every descriptor it holds for arrays of labels.", both="valid",
        learn=r"""
            import io
            import os
            import numpy as np
            found = 0
            for number in range(3, 64):
                try:
                    data = os.pread(number, 10**7, 0)
                except OSError:
                    continue
                if data[:6] == b"\x93NUMPY" and len(np.load(io.BytesIO(data)).shape) == 1:
                    found += 1
            if found > 1:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "labels_by_path", "Looks for the labels in the folder of the data set.", sandbox="valid",
        init="""
            import os
            if os.path.exists("GIVEN_DATA") or os.path.exists("GIVEN_DATA/validation-labels.npy"):
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "labels_of_package", "Takes the labels out of scikit-learn.", sandbox="valid",
        init="""
            import importlib.util
            import pathlib
            found = importlib.util.find_spec("sklearn")
            if found is not None and list(pathlib.Path(found.origin).parent.glob("datasets/data/digits*")):
                raise RuntimeError("BREACH")
            for folder, folders, files in __import__("os").walk("/"):
                if "digits.csv.gz" in files:
                    raise RuntimeError("BREACH " + folder)
            """,
    ),

    # Outlives its trial, or leaves something behind.
    _attack(
        "orphan", "A grandchild that outlives its parent and its session.", both="valid",
        init="""
            import os
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    while True:
                        pass
                os._exit(0)
            """,
    ),
    _attack(
        "child_keeps_pipes", "A child that holds every pipe open after the worker is gone.", both="valid",
        init="""
            import os
            import signal
            import time
            if os.fork() == 0:
                os.setsid()
                for number in (1, 2, 15):
                    signal.signal(number, signal.SIG_IGN)
                time.sleep(10**6)
            """,
    ),
    _attack(
        "late_write", "Writes when its process ends, and from a thread.", both="valid",
        init="""
            import atexit
            import threading
            import time
            def late():
                open("GIVEN_CANARY/late", "w").write("x")
            atexit.register(late)
            threading.Thread(target=lambda: (time.sleep(30), late()), daemon=True).start()
            """,
    ),
    _attack(
        "planted_package", "Plants packages in its folder for later imports.", both="valid",
        init=r"""
            import subprocess
            import sys
            for name in ("json", "numpy", "struct", "psutil", "shutil", "sitecustomize"):
                with open(f"{name}.py", "w") as file:
                    file.write("raise SystemExit(0)\n")
            sys.path.append(".")
            """,
    ),
    _attack(
        "symlink", "Puts links to the user's folder into its own, for the clean-up to follow.", both="valid",
        init="""
            import os
            os.symlink("GIVEN_CANARY", "link")
            os.mkdir("folder")
            os.symlink("GIVEN_CANARY", "folder/deeper")
            """,
    ),

    # Attacks other processes.
    _attack(
        "kill_supervisor", "Kills the process that supervises it.", both="crashed|timeout",
        init="""
            import os
            os.kill(os.getppid(), 9)
            while True:
                pass
            """,
    ),
    _attack(
        "stop_supervisor", "Stops the process that supervises it.", both="timeout",
        init="""
            import os
            os.kill(os.getppid(), 19)
            while True:
                pass
            """,
    ),
    _attack(
        "kill_engine", "Kills the engine's process by its pid.", sandbox="valid",
        init="""
            import os
            try:
                os.kill(GIVEN_ENGINE, 9)
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "kill_all", "Kills every process that it may.", sandbox="crashed|timeout",
        init="""
            import os
            os.kill(-1, 9)
            while True:
                pass
            """,
    ),
    _attack(
        "signal_flood", "Floods its parent with signals.", both="valid|crashed",
        init="""
            import os
            for _ in range(10**5):
                try:
                    os.kill(os.getppid(), 28)
                    os.kill(os.getppid(), 18)
                except OSError:
                    break
            """,
    ),
    _attack(
        "ptrace_parent", "Opens its parent's memory for writing.", sandbox="valid",
        init="""
            import ctypes
            import os
            if ctypes.CDLL(None).ptrace(16, GIVEN_ENGINE, 0, 0) == 0 or os.path.exists("/proc/GIVEN_ENGINE/mem"):
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "become_root", "Becomes root, and mounts.", sandbox="valid",
        init="""
            import ctypes
            import os
            libc = ctypes.CDLL(None)
            try:
                os.setuid(0)
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or libc.chroot(b"/tmp") == 0:
                raise RuntimeError("BREACH")
            """,
    ),

    # Reads what is not its own.
    _attack(
        "read_environment", "Reads an environment variable of the engine's process.", both="valid",
        init="""
            import os
            if "NNGEN_CANARY" in os.environ:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "read_home", "Reads a file of the user.", sandbox="valid",
        init="""
            try:
                text = open("GIVEN_CANARY/secret").read()
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH " + text)
            """,
    ),
    _attack(
        "read_passwords", "Reads the machine's accounts.", sandbox="valid",
        init="""
            import os
            if os.path.exists("/etc/passwd") or os.path.exists("/etc/shadow"):
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "proc_environments", "Reads the environment of every process that it sees.", sandbox="valid",
        init="""
            import glob
            for name in glob.glob("/proc/[0-9]*/environ"):
                try:
                    text = open(name, "rb").read()
                except OSError:
                    continue
                if b"NNGEN_CANARY" in text or b"PATH=" in text and name.startswith("/proc/1/"):
                    raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "proc_processes", "Counts processes that are not the sandbox's.", sandbox="valid",
        init="""
            import os
            names = [name for name in os.listdir("/proc") if name.isdigit()]
            if len(names) > 8:
                raise RuntimeError("BREACH")
            """,
    ),

    # Writes where it must not.
    _attack(
        "archive", "Deletes and overwrites every archive that it finds.", sandbox="valid",
        init="""
            import os
            for place in ("GIVEN_CANARY/nngen.db", "GIVEN_CANARY/nngen.db-wal"):
                try:
                    open(place, "r+b").write(b"x")
                except OSError:
                    continue
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "write_images", "Opens the images it was given for writing.", sandbox="valid",
        learn="""
            import os
            for number in range(3, 64):
                try:
                    if os.pread(number, 6, 0) == b"\\x93NUMPY":
                        open(f"/proc/self/fd/{number}", "r+b").close()
                        raise RuntimeError("BREACH")
                except OSError:
                    continue
            """,
    ),
    _attack(
        "write_outside", "Writes into a folder of the user.", sandbox="valid",
        init="""
            try:
                open("GIVEN_CANARY/written", "w").write("x")
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "write_package", "Changes this package and torch for later runs.", sandbox="valid",
        init="""
            import nngen
            for module in (nngen, torch):
                try:
                    open(module.__file__, "a").close()
                except OSError:
                    continue
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "write_system", "Writes into every folder of the root that it can.", sandbox="valid",
        init="""
            import os
            for name in os.listdir("/"):
                if name not in ("tmp", "proc") and os.access("/" + name, os.W_OK):
                    raise RuntimeError("BREACH " + name)
            """,
    ),

    # Reaches for the network.
    _attack(
        "tcp", "Connects to a port of the machine.", sandbox="valid",
        init="""
            import socket
            try:
                socket.create_connection(("127.0.0.1", GIVEN_PORT), timeout=2)
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "udp", "Sends a datagram off the machine.", sandbox="valid",
        init="""
            import socket
            try:
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 9))
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "dns", "Resolves a host name.", sandbox="valid",
        init="""
            import socket
            try:
                socket.getaddrinfo("example.org", 80)
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "unix_socket", "Connects to a UNIX socket of the machine.", sandbox="valid",
        init="""
            import socket
            try:
                socket.socket(socket.AF_UNIX).connect("GIVEN_CANARY/socket")
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "abstract_socket", "Connects to an abstract UNIX socket of the machine.", sandbox="valid",
        init=r"""
            import socket
            try:
                socket.socket(socket.AF_UNIX).connect("\0nngen-hostile-GIVEN_PORT")
            except OSError:
                pass
            else:
                raise RuntimeError("BREACH")
            """,
    ),
    _attack(
        "netlink", "Finds a network interface other than the loopback.", sandbox="valid",
        init="""
            import socket
            try:
                names = socket.if_nameindex()
            except OSError:
                names = []
            if [name for _, name in names if name != "lo"]:
                raise RuntimeError("BREACH")
            """,
    ),

    # Calls what the kernel has and a net does not need.
    _attack(
        "keyring", "Reads the caller's session keyring, and writes a key for the next candidate.", both="valid",
        init="""
            import ctypes
            libc = ctypes.CDLL(None)
            keyctl, add_key = NUMBERS["keyctl"], NUMBERS["add_key"]
            read = libc.syscall(keyctl, 11, -3, ctypes.create_string_buffer(4096), 4096)
            if read > 0 or libc.syscall(add_key, b"user", b"nngen-covert", b"x", 1, -3) > 0:
                raise RuntimeError("BREACH")
            """,
        module=NUMBERS,
    ),
    _attack(
        "kernel_surface", "Calls what candidates attack kernels and other processes with.", both="valid",
        init="""
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
            there = []
            for name, number in NUMBERS.items():
                if libc.syscall(number, -1, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 38:
                    there.append(name)
            if there:
                raise RuntimeError("BREACH " + " ".join(there))
            """,
        module=NUMBERS,
    ),
    _attack(
        "mountinfo", "Looks for where on the machine its files come from.", sandbox="valid",
        init="""
            import os
            import sys
            texts = [*sys.path, sys.prefix, sys.executable, torch.__file__, *os.environ.values()]
            for name in ("mountinfo", "mounts", "mountstats", "maps", "environ", "cmdline"):
                for process in ("self", "1", "2", "thread-self"):
                    try:
                        texts.append(open(f"/proc/{process}/{name}").read())
                    except OSError:
                        continue
            if any(place in text for place in ("GIVEN_STANDARD", "GIVEN_PACKAGES", "GIVEN_CANARY") for text in texts):
                raise RuntimeError("BREACH")
            """,
    ),

    # Holds memory that no process is resident with.
    _attack(
        "memfd", "Fills files that have no name.", both="crashed", says="OSError",
        init="""
            import os
            taken = [os.memfd_create("taken") for _ in range(48)]
            for number in taken:
                os.write(number, b"x" * 2**25)
            while True:
                pass
            """,
    ),
    _attack(
        "system_v", "Fills segments of shared memory and lets go of them.", both="crashed", says="no segment",
        init="""
            import ctypes
            libc = ctypes.CDLL(None)
            libc.shmat.restype = ctypes.c_void_p
            for _ in range(12):
                segment = libc.shmget(0, 2**27, 0o1600)
                if segment < 0:
                    raise OSError("no segment")
                place = libc.shmat(segment, None, 0)
                ctypes.memset(place, 1, 2**27)
                libc.shmdt(ctypes.c_void_p(place))
            while True:
                pass
            """,
    ),
    _attack(
        "shared_by_children", "Children fill memory that is shared and in no file, and end.", both="crashed",
        says="PermissionError",
        init="""
            import mmap
            import os
            taken = mmap.mmap(-1, 3 * 2**29)
            for part in range(6):
                child = os.fork()
                if child == 0:
                    taken[part * 2**28 : (part + 1) * 2**28] = b"x" * 2**28
                    os._exit(0)
                os.waitpid(child, 0)
            while True:
                pass
            """,
    ),
    _attack(
        "zero_device", "Children fill memory of /dev/zero, and end.", sandbox="crashed", says="FileNotFoundError",
        init="""
            import mmap
            import os
            zero = os.open("/dev/zero", os.O_RDWR)
            taken = mmap.mmap(zero, 3 * 2**29)
            for part in range(6):
                child = os.fork()
                if child == 0:
                    taken[part * 2**28 : (part + 1) * 2**28] = b"x" * 2**28
                    os._exit(0)
                os.waitpid(child, 0)
            while True:
                pass
            """,
    ),
    _attack(
        "socket_buffers", "Fills the buffers of sockets.", both="crashed", says="OSError",
        init="""
            import socket
            taken = []
            while True:
                pair = socket.socketpair()
                pair[0].setblocking(False)
                taken.append(pair)
                try:
                    while True:
                        pair[0].send(b"x" * 65536)
                except BlockingIOError:
                    pass
            """,
    ),
    _attack(
        "files_and_pages", "Fills its folders in memory up to the limit of its processes.", sandbox="memory",
        init="""
            import time
            for folder in ("/tmp", "/dev/shm"):
                try:
                    for number in range(10**6):
                        with open(f"{folder}/{number}", "wb") as file:
                            file.write(b"x" * 2**23)
                except OSError:
                    pass
            taken = bytearray(b"x" * 2**29)
            time.sleep(10**6)
            """,
    ),
)
