"""Pause, resume and stop commands of a running campaign."""

import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from nngen.archive import Archive, TrialState
from nngen.campaign.commands import Command, CommandListener, interrupts, send_command
from nngen.campaign.protocols import Watcher
from nngen.campaign.summary import read_status
from nngen.errors import UsageError
from nngen.testing.fakes import FakeEngine, fake_record
from nngen.testing.fakes import fake_campaign as campaign


class Gate(FakeEngine):
    """Engine whose trainings wait until the test releases them."""

    def __init__(self):
        super().__init__()
        self.inside, self.let = threading.Semaphore(0), threading.Semaphore(0)

    def train(self, *args, **kwargs):
        self.inside.release()
        assert self.let.acquire(timeout=30)
        return super().train(*args, **kwargs)


class Heard(Watcher):
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def essence(archive):
    return [replace(trial, started_at=None, finished_at=None) for trial in archive.trials("one")]


def elsewhere(path, act):
    """Run ``act`` in another thread with its own connection, as another terminal would."""
    failed = []

    def body():
        try:
            with Archive.open(path) as archive:
                act(archive)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, failed


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.long
def test_pause_resume_and_stop(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("nngen.campaign.budget._CLOCK_S", 1e9)
    engine = Gate()

    def act(other):
        engine.inside.acquire(timeout=20)
        assert send_command(other, "one", Command.PAUSE) == os.getpid()
        wait_for(lambda: read_status(other, "one").paused)
        assert read_status(other, "one").word == "paused"
        engine.let.release()
        wait_for(lambda: other.counts("one")[TrialState.DONE] == 1)
        assert not engine.inside.acquire(timeout=0.3)
        send_command(other, "one", Command.RESUME)
        assert engine.inside.acquire(timeout=20)
        assert read_status(other, "one").word == "running"
        send_command(other, "one", Command.STOP)
        time.sleep(1.2)
        engine.let.release(99)

    thread, failed = elsewhere(tmp_path / "a.db", act)
    heard = Heard()
    summary = campaign(archive, engine=engine, watcher=heard).run()
    thread.join()
    assert not failed
    assert heard.lines[-3:] == [
        "paused: running trainings are finished, none begins",
        "resumed",
        "ending: running trainings are finished, prepared ones are requeued",
    ]
    assert [event.kind for event in archive.events("one", kinds=("campaign.", "budget.", "control."))] == [
        *["campaign.created", "budget.clock", "control.pause", "budget.clock", "campaign.paused", "control.resume"],
        *["campaign.continued", "budget.clock", "control.stop", "budget.clock", "campaign.stopped"],
    ]
    assert archive.events("one")[-1].detail == {"by": "command"}
    assert (summary.done, summary.over, summary.states["running"]) == (2, False, 0)
    assert [e.kind for e in archive.events("one")][-1] == "campaign.stopped"
    assert read_status(archive, "one").word == "not being run"

    engine.let.release(99)
    campaign(archive, engine=engine).run()
    with Archive.open(tmp_path / "b.db") as calm:
        campaign(calm).run()
        assert essence(archive) == essence(calm)


def test_a_command_needs_a_live_driver(archive):
    with pytest.raises(UsageError, match="did you mean"):
        campaign(archive).run()
        send_command(archive, "onne", Command.STOP)
    with pytest.raises(UsageError, match="is not being run, so there is nothing to pause"):
        send_command(archive, "one", Command.PAUSE)


def test_another_process_is_known_by_its_lock(archive, tmp_path):
    archive.add_campaign(fake_record("one"), [])
    archive.log("campaign.paused", campaign="one")  # by a driver that was killed then
    archive.log("campaign.resumed", campaign="one")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with Archive.open(tmp_path / "a.db") as own, own.lock("one"):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert archive.driver("one") == child
    assert read_status(archive, "one").word == "running"
    os.write(done[1], b"x")
    os.waitpid(child, 0)
    assert archive.driver("one") is None


@pytest.mark.long
def test_ctrl_c_finishes_running_trainings(archive, tmp_path):
    engine, before = Gate(), signal.getsignal(signal.SIGINT)

    def act(_other):
        engine.inside.acquire(timeout=20)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.2)
        engine.let.release(99)

    thread, failed = elsewhere(tmp_path / "a.db", act)
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        campaign(archive, engine=engine, watcher=heard).run()
    thread.join()
    assert not failed
    assert heard.lines[-1] == (
        "ending: running trainings are finished, prepared ones are requeued"
        "; Ctrl-C again requeues them and ends at once"
    )
    assert archive.counts("one") == {TrialState.READY: 5, TrialState.RUNNING: 0, TrialState.DONE: 1}
    assert [e.kind for e in archive.events("one")][-1] == "campaign.interrupted"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.long
def test_a_second_ctrl_c_ends_at_once(archive, tmp_path):
    engine = Gate()

    def act(_other):
        engine.inside.acquire(timeout=20)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    thread, failed = elsewhere(tmp_path / "a.db", act)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        campaign(archive, engine=engine).run()
    assert time.monotonic() - started < 10
    thread.join()
    engine.let.release(99)
    assert not failed
    assert archive.counts("one") == {TrialState.READY: 6, TrialState.RUNNING: 0, TrialState.DONE: 0}


def test_a_listener_polls_once_a_second_and_passes_over_what_came_before_it(archive, monkeypatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr("nngen.campaign.commands.time", SimpleNamespace(monotonic=lambda: clock.now))
    for name in ("one", "another"):
        archive.add_campaign(fake_record(name), [])
    archive.log("control.stop", campaign="one")
    listener = CommandListener(archive, "one")
    assert listener.command() is Command.RESUME
    for kind in ("control.stop", "control.pause"):
        archive.log(kind, campaign="one")
    archive.log("control.stop", campaign="another")
    clock.now += 0.75
    assert listener.command() is Command.RESUME
    clock.now += 0.25
    assert listener.command() is Command.PAUSE
    archive.log("control.stop", campaign="one")
    clock.now += 0.9
    assert listener.command() is Command.PAUSE
    listener.interrupted = True
    assert listener.command() is Command.STOP
    listener.interrupted = False
    clock.now += 1.0
    assert listener.command() is Command.STOP


def test_only_the_main_thread_listens_to_ctrl_c():
    before, inside = signal.getsignal(signal.SIGINT), []
    listener = SimpleNamespace(interrupted=False)

    def body():
        with interrupts(listener):
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert inside == [before]
    with interrupts(listener):
        assert signal.getsignal(signal.SIGINT) is not before
        signal.raise_signal(signal.SIGINT)
        assert listener.interrupted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_first_look_for_commands_is_made_at_once_and_sees_the_first_event_of_an_archive(archive, monkeypatch):
    monkeypatch.setattr("nngen.campaign.commands.time", SimpleNamespace(monotonic=lambda: 1.0))
    listener = CommandListener(archive, "one")
    archive.log("control.pause", campaign="one")
    assert [event.id for event in archive.events("one")] == [1]
    assert listener.command() is Command.PAUSE
