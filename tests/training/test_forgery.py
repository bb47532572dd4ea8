"""Candidates that send frames of their own: none becomes valid, stops a campaign or buys more than two more tries."""

from __future__ import annotations

import pytest

from nngen.archive import Archive, NewTrial
from nngen.checks.rules.sample_nets import net_source
from nngen.isolation import Isolation
from nngen.plan import Plan
from nngen.testing.fakes import fake_record
from nngen.training import CheckJob
from nngen.types import Outcome, Shape

SEND = """
import json
import os
import struct


def send(kind=1, body=b"", **changes):
    fields = {"event": "verdict", "outcome": "valid", "rule": "", "message": "", "line": None, **changes}
    body = body or json.dumps(fields).encode()
    for number in range(3, 40):
        try:
            if os.readlink("/proc/self/fd/%d" % number).startswith("pipe:"):
                getattr(os, "wri" + "te")(number, struct.pack("<B3xI", kind, len(body)) + body)
        except OSError:
            pass


"""
PATCH = """
import sys

for rule in sys.modules["nngen.checks.dynamic"].dynamic_rules():
    type(rule).check = lambda self, context: None


"""
WORKS, RAISES = net_source(), net_source(forward="raise ValueError('nothing here works')")
SAYS_VALID = SEND + "send()\n"
ASKS = SEND + "send(event='imported')\n"

FORGED = {
    "valid": (SAYS_VALID + WORKS, Outcome.CRASHED, "calls itself valid"),
    "valid, and forward fails": (SAYS_VALID + RAISES, Outcome.CRASHED, "calls itself valid"),
    "asked, and the import fails": (ASKS + "raise SystemError('no')\n" + WORKS, Outcome.IMPORT, "SystemError"),
    "asked, and valid": (ASKS + "send()\n" + WORKS, Outcome.CRASHED, "calls itself valid"),
    "asked, and it works": (ASKS + WORKS, Outcome.CRASHED, "imported twice"),
    "asked, and it leaves": (ASKS + "getattr(os, '_ex' + 'it')(0)\n" + WORKS, Outcome.CRASHED, "exit code 0"),
    "an answer to no question": (
        SEND + "send(kind=5, body=bytes(3 * 32 + 4 * 3 * 10))\n" + WORKS,
        Outcome.CRASHED,
        "a question that was not asked",
    ),
    "valid without rules": (PATCH + RAISES, Outcome.CRASHED, "exit code 1"),
    "duplicate": (SEND + "send(outcome='duplicate')\n" + WORKS, Outcome.CRASHED, "not a verdict"),
    "timeout": (SEND + "send(outcome='timeout')\n" + WORKS, Outcome.CRASHED, "not a verdict"),
    "a line": (SEND + "send(outcome='shape', line=10**30)\n" + WORKS, Outcome.CRASHED, "not a line"),
    "a rule": (SEND + "send(outcome='crashed', rule='worker.killed')\n" + WORKS, Outcome.CRASHED, "not a worker's"),
    "a text": (
        SEND + "send(outcome='crashed', message='a\\ud800\\x1b[31mb\\u202ec')\n" + WORKS,
        Outcome.CRASHED,
        "a b c",
    ),
}


@pytest.mark.parametrize(("source", "outcome", "message"), FORGED.values(), ids=FORGED)
def test_a_check_does_not_believe_what_a_candidate_sends(source, outcome, message, engine, candidate):
    verdict = engine.check(CheckJob(candidate=candidate(source), shape=Shape(1, 32, 32), isolation=Isolation.PROCESS))
    assert verdict.outcome is outcome, verdict.message
    assert message in verdict.message
    assert verdict.message.isprintable()


def test_nor_does_it_in_the_sandbox(engine, candidate):
    source = candidate(FORGED["asked, and the import fails"][0])
    verdict = engine.check(CheckJob(candidate=source, shape=Shape(1, 32, 32), isolation=Isolation.SANDBOX))
    assert verdict.outcome is Outcome.IMPORT
    assert engine.check(CheckJob(candidate=candidate(WORKS), shape=Shape(1, 32, 32), isolation=Isolation.SANDBOX)).valid


@pytest.mark.parametrize("line", [10**30, 2**63, 0, -1, 1.5, True, "7"])
def test_a_line_that_no_archive_holds_ends_one_trial_alone(line, engine, job, tmp_path):
    trial = engine.train(job(SEND + net_source(loss=f"send(outcome='crashed', rule='x', line={line!r})")))
    assert trial.verdict.outcome is Outcome.CRASHED
    assert "a verdict whose line is not a line of the source" in trial.verdict.message
    assert trial.verdict.line is None
    with Archive.open(tmp_path / "a.db") as archive:
        archive.add_campaign(fake_record("one", size=1), [NewTrial(plan=Plan(experts=tuple("ABCD")))])
        (stored,) = archive.trials("one")
        archive.start_trial(stored.id)
        archive.finish_trial(stored.id, trial.verdict)


def test_a_lack_of_memory_that_nobody_saw_buys_two_more_tries(engine, job):
    trial = engine.train(job(SEND + net_source(loss="send(outcome='memory', message='big')"), batch=64))
    assert trial.verdict.outcome is Outcome.MEMORY
    assert trial.batches_tried == (64, 32, 16)
