"""Campaigns on a Ray cluster of two nodes on this machine, one of which is killed without loss of results.

The nodes and the driver have separate caches, as separate machines would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import psutil
import pytest
from PIL import Image

from nngen.archive import Archive
from nngen.checks.rules.sample_nets import net_source
from nngen.errors import EngineLostError, NngenError, UsageError
from nngen.isolation import Isolation
from nngen.training import CheckJob
from nngen.types import Outcome, Shape

ray = pytest.importorskip("ray", reason="ray is not installed: pip install '.[ray]'")

from nngen.training.ray import Node, RayEngine, Request, connect  # noqa: E402 - needs ray
from nngen.training.ray.actor_pool import ActorPool  # noqa: E402
from nngen.training.ray.cluster import difference  # noqa: E402
from nngen.training.ray.dataset_transfer import pack  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

LIGHT = "ICNet,MNASNet,MobileNetV3,ShuffleNet,SqueezeNet-1,SqueezeNet-2"
ARGUMENTS = ("--families", LIGHT, "--size", "8", "--shape", "1x32x32", "--seed", "3", "--threads", "1")
ARGUMENTS += ("--batch", "64", "--memory-mib", "7000")
# Each node has room for one actor of the shared engine and for one of a test's own engine.
LARGE, SMALL = Request(cpus=1, memory_mib=9000), Request(cpus=1, memory_mib=7000)
STORE = 100 * 2**20

MARK = f"/nngen-ray-test-{os.getpid()}"

PEEK = """
import os
found = {name for _, _, names in os.walk({cache!r}) for name in names if "labels" in name}
shared = [place for place in ("/tmp/ray", *os.listdir("/dev/shm")) if os.path.exists(place)]
raise RuntimeError(f"saw {sorted(found)} {[name for name in os.environ if name.startswith('RAY')]} {shared}")
"""


DRIVER = """
import sys
from nngen.datasets import load_dataset
from nngen.isolation import Isolation
from nngen.training import TrainJob
from nngen.training.ray import RayEngine, Request, connect
from nngen.types import Candidate, Shape, TrialSpec
with connect(sys.argv[1]) as cluster, RayEngine(cluster, Request(cpus=1, memory_mib=2000)) as engine:
    spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=10**6)
    source = Candidate(id="x", source=sys.argv[2], canonical="")
    job = TrainJob(candidate=source, spec=spec, dataset=load_dataset("digits"), isolation=Isolation.PROCESS)
    engine.train(job, lambda point: print(point.epoch, flush=True))
"""


class Machines:
    """Cluster of two nodes with their environments."""

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args=self._node("head") | {"include_dashboard": False})
        self.address = self.cluster.address
        self.second = None

    def add(self):
        self.second = self.cluster.add_node(**self._node("second"))

    def lose(self):
        """Kill the second node and all its processes."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def noticed(self):
        """Wait until Ray lists only the first node."""
        give_up = time.monotonic() + 120
        while sum(node["Alive"] for node in ray.nodes()) > 1:
            assert time.monotonic() < give_up
            time.sleep(0.2)

    def _node(self, name):
        # Processes started by an actor keep only PATH of its environment.
        settings = {"NNGEN_CACHE": str(self.folder / name), "PATH": f"{os.environ['PATH']}:{MARK}-{name}"}
        return {"num_cpus": 2, "memory": 16 * 2**30, "object_store_memory": STORE, "env_vars": settings}

    def transferred(self, dataset):
        """Return the files of a data set by node, each with its inode."""
        key = pack(dataset, lambda _: None).key
        return {
            name: {path.name: path.stat().st_ino for path in (self.folder / name).glob(f"transfers/{key}/*.npy")}
            for name in ("head", "second")
        }


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = Machines(tmp_path_factory.mktemp("nodes"))
        machines.add()
        try:
            yield machines
        finally:
            ray.shutdown()
            machines.cluster.shutdown()
    assert _ended(_marked()) == []


@pytest.fixture(scope="module")
def cluster(machines):
    with connect(machines.address) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def far(cluster):
    with RayEngine(cluster, LARGE) as engine:
        assert engine.slots == 2
        yield engine


def test_the_number_of_trials_that_fit_on_a_node():
    node = Node(id="", host="a", cpus=8, gpus=2, memory_mib=10_000)
    assert node.room(Request(cpus=2, memory_mib=1000)) == 4
    assert node.room(Request(cpus=2, memory_mib=4000)) == 2
    assert node.room(Request(cpus=1, gpus=0.5, memory_mib=100)) == 4
    assert node.room(Request(cpus=1, gpus=0.4, memory_mib=100)) == 4
    assert node.room(Request(cpus=1, gpus=2, memory_mib=100)) == 1
    assert node.room(Request(cpus=9, memory_mib=100)) == 0
    with pytest.raises(UsageError, match=r"not 1\.5"):
        Request(cpus=1, gpus=1.5, memory_mib=100)


def test_differences_are_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("nngen.training.ray.cluster.__version__", "7.0")
    monkeypatch.setattr("platform.python_version", lambda: "3.11.7")
    assert difference("a", "7.0", "3.11.2") is None
    assert difference("a", None, "3.11.2") == "node a has no nngen: install nngen 7.0 with its extra ray there"
    assert "nngen 6.9, the driver 7.0" in difference("a", "6.9", "3.11.2")
    assert "Python 3.12.1, the driver 3.11.7" in difference("a", "7.0", "3.12.1")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1"),
        ("nowhere", "write auto or HOST:PORT"),
        ("ray://127.0.0.1:10001", "--address auto"),
    ],
)
def test_an_address_without_a_cluster(address, words, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UsageError, match=words):
        connect(address)


@pytest.mark.usefixtures("wheel")
def test_a_campaign_that_loses_a_node_equals_the_local_one(nngen, machines, cluster, digits, tmp_path):
    arguments = (*ARGUMENTS, "--dataset", f"folder:{_few(digits, tmp_path / 'few')}")
    local = nngen("campaign", "run", "one", *arguments, "--archive", tmp_path / "local.db")
    assert local.code == 0, local.err
    path = tmp_path / "ray.db"
    killer = threading.Thread(target=_lose_in_the_middle, args=(machines, path))
    killer.start()
    on_ray = ("--engine", "ray", "--address", machines.address, "--workers", "2")
    there = nngen("campaign", "run", "one", *arguments, "--archive", path, "--json", *on_ray)
    killer.join()
    assert there.code == 0, there.err
    assert json.loads(there.out)["done"] == 8
    assert machines.second is None
    machines.noticed()
    machines.add()
    assert _essence(path) == _essence(tmp_path / "local.db")
    with Archive.open(path, readonly=True) as archive:
        kinds = [event.kind for event in archive.events("one")]
        trials = archive.trials("one")
    assert "trial.requeued" in kinds
    assert "campaign.finished" in kinds
    assert {trial.environment["engine"] for trial in trials} == {"ray"}


def test_results_are_those_of_the_local_engine(far, engine, candidate, spec, job):
    source = candidate(net_source(forward="return self.head(nn.functional.dropout(x, 0.2, self.training))"))
    specs = [spec(seed=seed, epochs=2, memory_mib=2000) for seed in range(4)]
    points = []
    with ThreadPoolExecutor(2) as pool:
        there = list(pool.map(lambda one: far.train(job(source, spec=one), points.append), specs))
    here = [engine.train(job(source, spec=one)) for one in specs]
    for one, other in zip(there, here, strict=True):
        assert one.verdict.valid
        assert one.validation_accuracy == other.validation_accuracy
        assert one.validation_predictions == other.validation_predictions
        assert one.test_predictions == other.test_predictions
        assert _timeless(one.curve) == _timeless(other.curve)
        assert one.environment["engine"] == "ray"
        assert one.prm == other.prm
        assert set(one.curve) <= set(points)
    assert len(points) == 8
    assert len([process for process in _marked() if process.cmdline()[0].startswith("ray::TrialActor")]) == far.slots


def test_a_data_set_is_placed_once_per_node_without_labels_of_validation_and_test(machines, far, spec, job):
    one = job(net_source(), spec=spec(memory_mib=2000))
    give_up = time.monotonic() + 120
    # The first actor that has started may take all trials while the other one still loads torch.
    while not all(machines.transferred(one.dataset).values()):
        assert time.monotonic() < give_up
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(far.train, [one] * 4))
    before = machines.transferred(one.dataset)
    wanted = {"train-images.npy", "train-labels.npy", "validation-images.npy", "test-images.npy"}
    assert {name: set(files) for name, files in before.items()} == {"head": wanted, "second": wanted}
    with RayEngine(connect(), SMALL) as another:
        another.train(one)
    assert machines.transferred(one.dataset) == before


@pytest.mark.parametrize("isolation", [Isolation.PROCESS, Isolation.SANDBOX])
def test_no_label_and_nothing_of_rays_is_within_reach(isolation, machines, far, candidate, job):
    far.train(job(net_source(), memory_mib=2000))
    look = candidate(PEEK.replace("{cache!r}", repr(str(machines.folder))) + net_source())
    trial = far.train(job(look, memory_mib=2000, isolation=isolation))
    assert trial.verdict.outcome is not Outcome.VALID
    seen = trial.verdict.message[trial.verdict.message.index("saw") :]
    # A process can read the machine's files, which do not include the labels of validation and test.
    wanted = "saw [] [] []" if isolation is Isolation.SANDBOX else "saw ['train-labels.npy'] []"
    assert seen.startswith(wanted)


def test_verdicts_and_refusals_come_back(far, candidate, job):
    checked = CheckJob(
        candidate=candidate(net_source()), shape=Shape(1, 8, 8), memory_mib=2000, isolation=Isolation.PROCESS
    )
    assert far.check(checked).valid
    assert far.check(replace(checked, candidate=candidate("x = ("))).outcome is Outcome.SYNTAX
    slow = far.train(job(net_source(loss="while True: pass"), time_limit_s=1.0))
    assert (slow.verdict.outcome, slow.validation_accuracy, slow.curve) == (Outcome.TIMEOUT, None, ())
    with pytest.raises(UsageError, match=r"node .*: --epochs must be"):
        far.train(job(net_source(), epochs=0))


def test_a_callback_that_raises_ends_the_trial_and_its_actor(far, job):
    def interrupt(point):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        far.train(job(net_source(), epochs=10**6), interrupt)
    assert far.train(job(net_source())).verdict.valid


def test_closing_ends_what_runs(cluster, machines, job):
    before = _servers()
    engine = RayEngine(cluster, SMALL)
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(engine.train, job(net_source(), epochs=10**6), lambda _: began.set())
        assert began.wait(60)
        working = _servers() - before
        assert len(working) >= 3
        engine.close()
        with pytest.raises(EngineLostError):
            work.result(timeout=10)
    assert _ended(working) == []


def test_nothing_outlives_a_killed_driver(machines):
    command = [sys.executable, "-c", DRIVER, machines.address, net_source()]
    before = _servers()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as driver:
        assert driver.stdout.readline() == b"1\n"
        working = _servers() - before
        assert len(working) >= 3
        driver.kill()
    assert _ended(working) == []


def test_an_actor_that_is_killed_is_replaced(far, job):
    began = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(far.train, job(net_source(), epochs=10**6), lambda _: began.set())
        assert began.wait(60)
        for process in _marked():
            if process.cmdline()[0].startswith("ray::TrialActor"):
                process.kill()
        with pytest.raises(EngineLostError, match="or its actor went away"):
            work.result(timeout=30)
    assert far.train(job(net_source())).verdict.valid


def test_trials_that_fit_nowhere_and_nodes_that_differ_are_refused(cluster, monkeypatch):
    with pytest.raises(UsageError, match=r"has room for a trial with 3 CPUs, 100 MiB: .* \(2 CPUs, 16,384 MiB\)"):
        RayEngine(cluster, Request(cpus=3, memory_mib=100))
    with pytest.raises(UsageError, match="has room"):
        RayEngine(cluster, Request(cpus=1, memory_mib=100_000))
    with pytest.raises(UsageError, match="1 GPU"):
        RayEngine(cluster, Request(cpus=1, gpus=1, memory_mib=100))
    assert cluster.machine() == {"device": "cpu", "threads": 2}
    monkeypatch.setattr("nngen.training.ray.cluster.__version__", "7.0")
    with pytest.raises(NngenError, match=r"has nngen .*, the driver 7\.0"):
        RayEngine(cluster, SMALL)


def test_a_node_that_is_lost_while_it_is_asked_counts_no_longer(cluster, monkeypatch):
    gone = Node(id="0" * 56, host="gone", cpus=2, gpus=0, memory_mib=16384)
    there = cluster.nodes()
    monkeypatch.setattr(cluster, "nodes", lambda: (gone, *there))
    cluster.require(SMALL)
    monkeypatch.setattr(cluster, "nodes", lambda: (gone,))
    with pytest.raises(NngenError, match="lost gone just now"):
        cluster.require(SMALL)


def test_waiting_for_room_ends(cluster, machines):
    pool = ActorPool(Request(cpus=50, memory_mib=100), lambda: 1, patience_s=0.5)
    try:
        with pytest.raises(NngenError, match="had room for a trial with 50 CPUs, 100 MiB"):
            pool.take()
    finally:
        pool.close()


def _timeless(curve):
    return [replace(point, seconds=0.0) for point in curve]


def _few(digits, folder):
    """Write 200 of the digits as images; accuracies do not matter here."""
    for number, (image, label) in enumerate(zip(digits.train_images[:200], digits.train_labels[:200], strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(path)
    return folder


def _lose_in_the_middle(machines, path):
    """Wait until one trial is done and the second node is busy, then kill that node."""
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up:
        time.sleep(0.05)
        with suppress(NngenError), Archive.open(path, readonly=True) as archive:
            states = [trial.state.value for trial in archive.trials("one")]
            # Server, supervisor and worker: a check or a training is running there.
            if "done" in states and len(_servers("second")) >= 3:
                machines.lose()
                return


def _essence(path):
    with Archive.open(path, readonly=True) as archive:
        return [
            (t.experts, t.candidate_id, t.spec, t.validation_accuracy, t.test_accuracy, t.parameters)
            for t in archive.trials("one")
        ]


def _marked(node=""):
    """Return the living processes of a node, or of all nodes."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if f"{MARK}-{node}" in process.environ().get("PATH", "") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _servers(node=""):
    """Return the fork servers that actors have started, and the processes forked from them."""
    found = set()
    for process in _marked(node):
        with suppress(psutil.Error):
            if "nngen.isolation.fork_server" in " ".join(process.cmdline()):
                found.add(process)
    return found


def _ended(processes):
    """Wait ten seconds for processes to end; return the living ones with their parents, for messages."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return [(str(process), [str(parent) for parent in _parents(process)]) for process in alive]


def _parents(process):
    with suppress(psutil.Error):
        return process.parents()
    return []
