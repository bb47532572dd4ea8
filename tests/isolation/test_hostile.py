"""Hostile candidates: a verdict in time, and no process or folder left."""

from __future__ import annotations

import ast
import importlib
import shutil
import time
from dataclasses import replace

import pytest
from containment import Targets, contain
from corpus import ATTACKS, NET, PLACES

from nngen.checks.rules.sample_nets import net_source
from nngen.errors import UsageError
from nngen.isolation import Isolation, protocol
from nngen.training import CheckJob, scoring
from nngen.types import Outcome, Shape, Trial, Verdict

WALL_S = 3.0
SLACK_S = 5.0

LATER = "if not self.training and not torch.is_grad_enabled(): {}\n        return self.head(x)"
"""Behaves while it trains, and misbehaves when it predicts."""

FORK = "import os; os.fork() == 0 and (os.setsid(), any(iter(int, 1)))"
ORPHAN = "import os; os.fork() == 0 and (os.setsid(), os.fork() == 0 and any(iter(int, 1)), os._exit(0))"
SEGFAULT = "import ctypes; ctypes.string_at(0)"

HOSTILE: dict[str, tuple[str, Outcome, str]] = {
    "loops in learn": (net_source(loss="any(iter(int, 1))"), Outcome.TIMEOUT, "3 s"),
    "loops in init": (net_source(init="any(iter(int, 1))"), Outcome.TIMEOUT, "3 s"),
    "loops on import": ("while True: pass\n", Outcome.TIMEOUT, "3 s"),
    "ignores signals": (
        net_source(init="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); any(iter(int, 1))"),
        Outcome.TIMEOUT,
        "3 s",
    ),
    "asks for 100 GiB": (net_source(init="self.big = torch.ones(25 * 2**30)"), Outcome.MEMORY, "line 11: RuntimeError"),
    "grows for ever": (
        net_source(init="big = []; [big.append(torch.ones(2**26)) for _ in iter(int, 1)]"),
        Outcome.MEMORY,
        "limit",
    ),
    "children grow": (
        net_source(
            init="import os; big = b'x' * 2**28; [os.fork() == 0 and bytearray(big) and 0 for _ in range(3)]; "
            "big = bytearray(big); any(iter(int, 1))"
        ),
        Outcome.MEMORY,
        "limit",
    ),
    "leaves with 0": (net_source(init="import os; os._exit(0)"), Outcome.CRASHED, "exit code 0"),
    "leaves with 7": (net_source(loss="import os; os._exit(7)"), Outcome.CRASHED, "exit code 7"),
    "sys.exit": (net_source(init="import sys; sys.exit(3)"), Outcome.CRASHED, "line 11: sys.exit(3) was called"),
    "interrupts": (net_source(init="raise KeyboardInterrupt"), Outcome.CRASHED, "KeyboardInterrupt"),
    "segfault": (net_source(loss=SEGFAULT), Outcome.CRASHED, "line 23: the worker was killed by signal SIGSEGV"),
    "kills itself": (net_source(init="import os; os.kill(os.getpid(), 9)"), Outcome.CRASHED, "SIGKILL"),
    "kills its supervisor": (
        net_source(init="import os; os.kill(os.getppid(), 9); any(iter(int, 1))"),
        Outcome.CRASHED,
        "supervisor",
    ),
    "stops its supervisor": (
        net_source(init="import os; os.kill(os.getppid(), 19); any(iter(int, 1))"),
        Outcome.TIMEOUT,
        "3 s",
    ),
    "floods stdout": (net_source(init="[print('x' * 10**6) for _ in iter(int, 1)]"), Outcome.TIMEOUT, "3 s"),
    "fills the disk": (net_source(init="open('big', 'wb').write(b'x' * 2**27)"), Outcome.CRASHED, "File too large"),
    "wrong shape when it predicts": (
        net_source(forward=LATER.format("return self.head(x)[:, :3]")),
        Outcome.SHAPE,
        "(256, 3)",
    ),
    "NaN when it predicts": (
        net_source(forward=LATER.format("return self.head(x) * float('nan')")),
        Outcome.NON_FINITE,
        "not finite",
    ),
    "no tensor when it predicts": (net_source(forward=LATER.format("return 'ten'")), Outcome.SHAPE, "str"),
    "writes nonsense to every pipe": (
        net_source(
            init="import os; [os.write(n, b'x' * 64) for n in range(3, 40) if os.path.exists(f'/proc/self/fd/{n}')"
            " and os.readlink(f'/proc/self/fd/{n}').startswith('pipe')]"
        ),
        Outcome.CRASHED,
        "unknown kind",
    ),
    "calls itself valid": (
        net_source(
            init="import os, json; b = json.dumps(dict(event='verdict', outcome='valid', rule='', message='',"
            " line=None)).encode(); h = bytes([1, 0, 0, 0]) + len(b).to_bytes(4, 'little');"
            " [os.write(n, h + b) for n in range(3, 40) if os.path.exists(f'/proc/self/fd/{n}')"
            " and os.readlink(f'/proc/self/fd/{n}').startswith('pipe')]"
        ),
        Outcome.CRASHED,
        "calls itself valid",
    ),
    "colours its message": (
        net_source(init=r"raise ValueError('\x1b[31mred\x1b[0m\r\n\x07two')"),
        Outcome.CRASHED,
        "ValueError: red two",
    ),
    "an exception that raises": (
        net_source(init="raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})()"),
        Outcome.CRASHED,
        "line 11: E,",
    ),
}


@pytest.fixture
def train(engine, left_over, job):
    """Train a source under tight limits, and check that the engine observes them."""

    def run(source: str) -> Trial:
        start = time.monotonic()
        trial = engine.train(job(source, time_limit_s=WALL_S, memory_mib=1024))
        assert time.monotonic() - start < WALL_S + SLACK_S
        assert left_over() == ([], [])
        return trial

    return run


@pytest.mark.parametrize(("source", "outcome", "message"), HOSTILE.values(), ids=HOSTILE)
def test_verdict_in_time_and_nothing_left(source, outcome, message, train):
    trial = train(source)
    assert trial.verdict.outcome is outcome
    assert message in trial.verdict.message
    assert trial.verdict.message.isprintable()
    assert trial.validation_accuracy is None
    assert trial.test_predictions == b""


@pytest.mark.parametrize("statement", [FORK, ORPHAN])
def test_children_end_with_the_trial(statement, train):
    assert train(net_source(init=statement)).verdict.valid


def test_the_engine_survives_its_server(engine, train):
    kill = "import os; s = int(open(f'/proc/{os.getppid()}/stat').read().rsplit(')', 1)[1].split()[1]); os.kill(s, 9)"
    train(net_source(init=kill))
    engine.warm_up()
    assert train(net_source()).verdict.valid


@pytest.fixture
def check(engine, candidate, left_over):
    def run(source: str) -> Verdict:
        start = time.monotonic()
        checked = CheckJob(
            candidate=candidate(source),
            shape=Shape(1, 8, 8),
            time_limit_s=WALL_S,
            memory_mib=1536,
            isolation=Isolation.PROCESS,
        )
        verdict = engine.check(checked)
        assert time.monotonic() - start < WALL_S + SLACK_S
        assert left_over() == ([], [])
        return verdict

    return run


def test_a_check_has_the_limits_of_a_training(check):
    assert check(HOSTILE["loops in init"][0]).outcome is Outcome.TIMEOUT
    assert check(HOSTILE["asks for 100 GiB"][0]).outcome is Outcome.MEMORY
    assert check(HOSTILE["leaves with 0"][0]).outcome is Outcome.CRASHED
    assert check(net_source(init=SEGFAULT)).outcome is Outcome.FORBIDDEN
    assert check(
        net_source(init=ORPHAN.replace("os.fork", "getattr(os, 'fo' + 'rk')").replace("os.setsid()", "0"))
    ).valid


@pytest.mark.parametrize("text", ["-" * 10**6 + "1", "(" * 10**6, "1" + "+1" * 10**6, "a" + ".b" * 10**6])
def test_a_deep_source_is_parsed_in_the_worker_alone(text, check):
    verdict = check("x = " + text)
    assert verdict.outcome in (Outcome.SYNTAX, Outcome.CONTRACT, Outcome.MEMORY, Outcome.CRASHED)


CORPUS = {attack.name: attack for attack in ATTACKS}
HONEST_NET = ast.dump(ast.parse(NET.format(**dict.fromkeys(PLACES, ""))))
QUICK = {
    Isolation.PROCESS: {
        *("fork_swarm", "forge_epochs", "forge_score", "forge_class", "forge_json", "forge_refused", "huge_source"),
        *("labels_by_gc", "labels_by_descriptor", "patch_metric", "always_equal", "late_write", "symlink"),
        *("keyring", "kernel_surface", "memfd", "system_v", "shared_by_children", "socket_buffers"),
    },
    Isolation.SANDBOX: {"proc_environments", "read_home", "tcp", "kernel_surface", "mountinfo", "files_and_pages"},
}
CASES = [
    pytest.param(name, level, id=f"{name}-{level}", marks=() if name in QUICK[level] else pytest.mark.corpus)
    for name, attack in CORPUS.items()
    for level in attack.right
]


@pytest.fixture(scope="module")
def targets(digits):
    with Targets(digits) as targets:
        yield targets


@pytest.mark.parametrize(("name", "level"), CASES)
def test_the_corpus_is_contained(name, level, engine, targets):
    if level is Isolation.SANDBOX and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    row = contain(CORPUS[name], level, engine, targets, SLACK_S)
    assert row.fault == "", row.verdict


def test_the_corpus_is_whole():
    assert len(CORPUS) == len(ATTACKS) == 106
    assert all(attack.right for attack in CORPUS.values())
    assert set.union(*QUICK.values()) <= set(CORPUS)
    for attack in ATTACKS:
        if not attack.large:
            assert ast.dump(ast.parse(attack.source)) != HONEST_NET, f"{attack.name} does nothing"


def test_attacks_find_the_code_that_they_patch():
    """An attack on a name that no longer exists would raise an error and count as contained."""
    used = [
        (attack.name, part)
        for attack in ATTACKS
        if not attack.large
        for part in ast.walk(ast.parse(attack.source))
        if isinstance(part, ast.ImportFrom) and part.module.startswith("nngen")
    ]
    assert len(used) >= 3
    for name, part in used:
        for alias in part.names:
            assert hasattr(importlib.import_module(part.module), alias.name), f"{name} imports {part.module}"
    assert callable(protocol.Channel.send_bytes)
    assert callable(scoring.accuracy)


def test_the_harness_notices_an_attack_that_succeeds(engine, targets):
    """Level ``process`` does not hide files."""
    attack = replace(CORPUS["read_home"], right={Isolation.PROCESS: (Outcome.VALID,)})
    assert "it got what it wanted" in contain(attack, Isolation.PROCESS, engine, targets).fault


def test_a_sandbox_that_cannot_start_runs_nothing(engine, tmp_path, monkeypatch, job):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no rights' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(UsageError, match="the sandbox cannot start, so nothing was run: bwrap: no rights"):
        engine.train(job(net_source(), isolation=Isolation.SANDBOX))


@pytest.mark.slow
def test_a_trial_is_the_same_at_every_level(engine, job):
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    trials = [engine.train(job(net_source(), isolation=level)) for level in Isolation]
    assert [trial.isolation for trial in trials] == ["process", "sandbox", "none"]
    assert len({trial.test_predictions for trial in trials}) == 1
