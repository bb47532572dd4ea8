"""Trials on the local engine: reproducible, with complete curves, and labels outside of the worker."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nngen.checks.rules.sample_nets import mixture_source, net_source
from nngen.datasets.loading import store_dataset
from nngen.datasets.source import Raw
from nngen.datasets.splits import subset
from nngen.errors import DataError, NngenError, UsageError
from nngen.isolation import Isolation, JobRunner
from nngen.training import CheckJob, LocalEngine, accuracy
from nngen.types import Outcome, Shape

ALLOWED = """
PATH LD_LIBRARY_PATH CUDA_VISIBLE_DEVICES CUDA_HOME LANG LC_CTYPE OMP_NUM_THREADS GOMP_SPINCOUNT OPENBLAS_NUM_THREADS
MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_
PYTHONHASHSEED PYTHONDONTWRITEBYTECODE CUBLAS_WORKSPACE_CONFIG PYTORCH_NVML_BASED_CUDA_CHECK HOME TMPDIR TORCH_HOME
XDG_CACHE_HOME TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR
"""

HISTORY = "self.history = [{'usage': [0.5, 0.5], 'entropy': 0.69, 'more': object()}]"

INSPECTOR = '''
import gc, os
import numpy as np
import torch

def inspect(sizes):
    """Raise if anything in this process looks like labels of validation and test."""
    for thing in gc.get_objects():
        if isinstance(thing, (torch.Tensor, np.ndarray)) and len(thing.shape) == 1 and len(thing) in sizes:
            raise ValueError(f"found {type(thing)} {thing.shape}")
        if isinstance(thing, (list, tuple, bytes)) and len(thing) in sizes and type(thing[0]) is int:
            raise ValueError(f"found {type(thing)}")
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    names = [os.readlink(link) for link in links if os.path.lexists(link)]
    with open("/proc/self/maps") as maps:
        names += maps.read().split()
    seen = sorted({os.path.basename(name) for name in names if name.endswith(".npy")})
    if seen != ["test-images.npy", "train-images.npy", "validation-images.npy"]:
        raise ValueError(f"mapped {seen}")
    secrets = [name for name in os.environ if name not in ALLOWED]
    if secrets or os.listdir(".") != ["candidate.py"]:
        raise ValueError(f"environment {secrets}, folder {os.listdir('.')}")

ALLOWED = {ALLOWED}
'''


def test_a_net_learns_digits_and_is_scored_outside_the_worker(engine, digits, job):
    points = []
    trial = engine.train(job(net_source(), epochs=3), points.append)
    assert trial.verdict.valid
    assert trial.validation_accuracy > 0.85
    assert [point.epoch for point in trial.curve] == [1, 2, 3]
    assert points == list(trial.curve)
    assert trial.validation_accuracy == accuracy(trial.validation_predictions, digits.validation_labels)
    assert accuracy(trial.test_predictions, digits.test_labels) > 0.85
    assert trial.parameters == 650
    assert 100 < trial.peak_mib < 2000
    assert 0 < sum(point.seconds for point in trial.curve) < trial.seconds
    assert trial.data_fingerprint == digits.fingerprint
    assert {"python", "torch", "torchvision", "platform", "cpu", "device", "threads", "nngen"} <= set(trial.environment)


def test_passes_are_counted_where_batches_are_handed_out(engine, digits, job):
    honest = engine.train(job(net_source(), epochs=2))
    assert [point.samples for point in honest.curve] == [len(digits.train_images)] * 2
    assert honest.suspect == ""
    loop = "for inputs, labels in train_data:"
    fifty = "for inputs, labels in (batch for _ in range(50) for batch in train_data):"
    many = engine.train(job(net_source().replace(loop, fifty)))
    assert many.verdict.valid
    assert [point.samples for point in many.curve] == [50 * len(digits.train_images)]
    assert many.suspect == "50 passes in epoch 1"


def test_a_part_of_the_train_split_is_trained_on_and_is_the_same_in_every_trial(engine, digits, job):
    chosen = subset(digits.train_labels, 120)
    seen = float(digits.train_images[chosen].mean()) / 255
    # The mean of what a net sees, before normalisation, is that of the chosen images.
    mean = f"float(torch.cat([x for x, _ in train_data]).mean()) * {digits.std[0]} + {digits.mean[0]}"
    loop = "for inputs, labels in train_data:"
    source = net_source().replace(loop, f"assert abs({mean} - {seen}) < 1e-5\n        {loop}")
    for seed in (0, 1):
        trial = engine.train(job(source, train_size=120, seed=seed))
        assert trial.verdict.valid, trial.verdict.message
    part = engine.train(job(net_source(), train_size=120, epochs=2))
    assert [point.samples for point in part.curve] == [120, 120]
    assert part.suspect == ""
    assert part.validation_accuracy < engine.train(job(net_source(), epochs=2)).validation_accuracy
    twice = net_source().replace("in train_data:", "in (b for _ in range(2) for b in train_data):")
    assert engine.train(job(twice, train_size=120)).suspect == "2 passes in epoch 1"
    with pytest.raises(UsageError, match="digits has 1,151 training images"):
        engine.train(job(net_source(), train_size=5000))


@dataclass(frozen=True)
class LeftHalves:
    """Random images of 8 px whose right half is black."""

    name, default_shape = "left halves", Shape(1, 8, 8)

    def key(self) -> str:
        return "left halves"

    def decode(self) -> Raw:
        images = np.random.default_rng(0).integers(1, 256, (200, 1, 8, 8), dtype=np.uint8)
        images[..., 4:] = 0
        return Raw(classes=10, images=images, labels=np.arange(200) % 10)


def test_images_are_augmented_in_the_worker_as_the_trial_says(engine, job, tmp_path):
    data = store_dataset(LeftHalves(), tmp_path / "left")
    # The candidate itself looks at its batches: the right half has one value, unless the image was mirrored.
    loop = "for inputs, labels in train_data:"
    source = net_source().replace(loop, f"{loop}\n            assert inputs[..., 4:].unique().numel() == 1, 'mirrored'")
    for augment, learns in (("none", True), ("flip", False)):
        trial = engine.train(job(source, dataset=data, augment=augment))
        assert trial.verdict.valid is learns, trial.verdict.message
        assert learns or "mirrored" in trial.verdict.message


def test_logits_are_kept_where_they_are_asked_for(engine, digits, job):
    plain, kept = (engine.train(replace(job(net_source(), epochs=2), logits=asked)) for asked in (False, True))
    assert plain.validation_logits == b""
    logits = np.frombuffer(kept.validation_logits, "<f2").reshape(len(digits.validation_labels), 10)
    assert logits.argmax(1).astype("<u2").tobytes() == kept.validation_predictions == plain.validation_predictions
    large = "return self.head(x) * 1e9"
    kept = engine.train(replace(job(net_source(forward=large)), logits=True))
    assert kept.verdict.valid, kept.verdict.message
    assert np.isfinite(np.frombuffer(kept.validation_logits, "<f2")).all()


def test_one_seed_gives_one_result_to_the_last_bit(engine, candidate, job):
    source = candidate(net_source(forward="return self.head(nn.functional.dropout(x, 0.2, self.training))"))
    first, again, other = (engine.train(job(source, seed=seed)) for seed in (3, 3, 4))
    assert first.validation_predictions == again.validation_predictions
    assert first.test_predictions == again.test_predictions
    assert first.validation_predictions != other.validation_predictions


def test_trials_side_by_side_do_not_touch_each_other(engine, candidate, job):
    source = candidate(net_source())
    alone = [engine.train(job(source, seed=seed)).test_predictions for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda seed: engine.train(job(source, seed=seed)).test_predictions, range(3)))
    assert together == alone


def test_labels_of_validation_and_test_never_reach_the_worker(engine, digits, monkeypatch, job):
    monkeypatch.setenv("NNGEN_SECRET", "x")
    sizes = {len(digits.validation_labels), len(digits.test_labels)}
    assert len(digits.train_labels) not in sizes
    look = net_source(loss=f"inspect({sizes})") + INSPECTOR.replace("{ALLOWED}", repr(ALLOWED.split()))
    trial = engine.train(job(look))
    assert trial.verdict.valid, trial.verdict.message


def test_the_inspector_finds_labels_where_there_are_some(engine, digits, job):
    look = net_source(loss=f"inspect({{{len(digits.train_labels)}}})") + INSPECTOR.replace("{ALLOWED}", "[]")
    trial = engine.train(job(look))
    assert trial.verdict.outcome is Outcome.CRASHED
    assert "found" in trial.verdict.message


def test_the_curve_has_the_mixtures_own_diagnostics(engine, job):
    trial = engine.train(job(mixture_source(init=HISTORY)))
    assert trial.curve[0].usage == (0.5, 0.5)
    assert trial.curve[0].entropy == 0.69


def test_prm_holds_lemurs_names_and_the_callers(engine, candidate, job):
    wanted = "{'batch': 32, 'dropout': 0.2, 'epoch': 2, 'lr': 0.05, 'momentum': 0.9, 'pretrained': 0, "
    wanted += "'transform': 'norm_8', 'width': 3}"
    source = candidate(net_source(init=f"assert dict(sorted(prm.items())) == {wanted}, prm"))
    trial = engine.train(job(source, epochs=2, batch=32, hyperparameters={"width": 3}))
    assert trial.verdict.valid, trial.verdict.message


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_converted_to_the_shape_of_the_spec(channels, engine, candidate, job):
    source = candidate(net_source(forward=f"assert x.shape[1:] == ({channels}, 12, 16); return self.head(x)"))
    assert engine.train(job(source, shape=Shape(channels, 12, 16))).verdict.valid


def test_training_that_diverges_is_non_finite(engine, job):
    trial = engine.train(job(net_source(loss="loss = loss * 1e30"), lr=1e30))
    assert trial.verdict.outcome is Outcome.NON_FINITE
    assert trial.curve == ()


def test_a_batch_that_does_not_fit_is_halved_until_it_does(engine, job):
    grows = "big = torch.ones(len(inputs), 2**20, 2); loss = loss + 0 * big.sum()"
    points = []
    trial = engine.train(job(net_source(loss=grows), memory_mib=640), points.append)
    assert trial.verdict.valid, trial.verdict.message
    tried = trial.batches_tried
    assert list(tried) == [64 // 2**n for n in range(len(tried))]
    assert len(tried) > 1
    assert trial.batch == trial.prm["batch"] == tried[-1]
    assert trial.spec.batch == 64
    assert trial.validation_accuracy == points[-1].validation_accuracy


def test_a_training_that_fits_at_no_batch_names_the_batches_tried(engine, job):
    fails = "raise MemoryError"
    trial = engine.train(job(net_source(loss=fails), batch=9))
    assert trial.verdict.outcome is Outcome.MEMORY
    assert "(batches of 9, 4, 2 were tried)" in trial.verdict.message
    assert trial.spec.batch == 9


def test_a_lack_of_memory_that_was_not_seen_buys_two_retries(engine, job):
    trial = engine.train(job(net_source(loss="raise MemoryError"), batch=64))
    assert trial.verdict.outcome is Outcome.MEMORY
    assert trial.batches_tried == (64, 32, 16)


def test_an_out_of_memory_error_of_cuda_halves_the_batch(engine, job):
    fails = "if len(inputs) > 32: raise torch.OutOfMemoryError('CUDA out of memory')"
    trial = engine.train(job(net_source(loss=fails)))
    assert trial.verdict.valid
    assert trial.batch == 32


def test_a_net_too_large_at_any_batch_is_tried_once(engine, job):
    trial = engine.train(job(net_source(init="raise MemoryError")))
    assert trial.verdict.outcome is Outcome.MEMORY
    assert trial.batches_tried == ()


def test_halving_stays_within_the_time_limit(engine, job):
    slow = "import time; time.sleep(2); raise MemoryError"
    trial = engine.train(job(net_source(loss=slow), time_limit_s=2.5))
    assert trial.verdict.outcome is Outcome.MEMORY
    assert trial.seconds < 5.5


AMBIENT = (
    "assert ({cuda}, {cuda}, {cuda}) == (torch.is_autocast_enabled(inputs.device.type),"
    " inputs.is_contiguous(memory_format=torch.channels_last) and not inputs.is_contiguous(),"
    " torch.backends.cuda.matmul.allow_tf32), 'ambient'"
)


def test_a_worker_has_a_limit_of_cpu_time(engine, job):
    source = net_source(init="import resource; assert 0 < resource.getrlimit(resource.RLIMIT_CPU)[1] < 10**6, 'none'")
    trial = engine.train(job(source))
    assert trial.verdict.valid, trial.verdict.message


def test_a_cpu_has_float32_and_plain_layout(engine, job):
    trial = engine.train(job(net_source(loss=AMBIENT.format(cuda=False)), shape=Shape(3, 8, 8)))
    assert trial.verdict.valid, trial.verdict.message


@pytest.mark.gpu
def test_a_card_has_bfloat16_channels_last_and_tf32(engine, candidate, job):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    source = candidate(net_source(loss=AMBIENT.format(cuda=True)))
    trial = engine.train(job(source, device="cuda", shape=Shape(3, 8, 8)))
    assert trial.verdict.valid, trial.verdict.message
    assert trial.validation_accuracy > 0.5


@pytest.mark.slow
def test_compiled_nets_learn_as_others_do(job):
    with LocalEngine(compiled=True) as engine:
        trial = engine.train(job(net_source(), time_limit_s=240.0))
    assert trial.verdict.valid, trial.verdict.message
    assert trial.environment["compiled"] == "yes"
    assert trial.validation_accuracy > 0.5


def test_energy_is_stored_where_the_device_counts_it(engine, monkeypatch, job):
    monkeypatch.setattr(
        "nngen.training.local_engine.energy_meter", lambda *_: nullcontext(SimpleNamespace(joules=12.5))
    )
    assert engine.train(job(net_source())).energy_j == 12.5
    monkeypatch.undo()
    assert engine.train(job(net_source())).energy_j is None


@pytest.mark.parametrize(("begins", "seen"), [(0, 1), (60, 100)])
def test_a_loss_that_is_not_finite_ends_the_trial_in_the_middle_of_an_epoch(begins, seen, engine, job):
    spoils = f"self.n = getattr(self, 'n', -1) + 1; loss = loss * (float('nan') if self.n >= {begins} else 1)"
    trial = engine.train(job(net_source(loss=spoils), batch=8))
    assert trial.verdict.outcome is Outcome.NON_FINITE
    assert f"after step {seen} of an epoch" in trial.verdict.message


def test_a_later_epoch_that_fails_keeps_the_curve_before_it(engine, job):
    fails = "self.n = getattr(self, 'n', 0) + 1; assert self.n <= 18, 'enough'"
    trial = engine.train(job(net_source(loss=fails), epochs=3))
    assert trial.verdict.outcome is Outcome.CRASHED
    assert "line 23: AssertionError: enough" in trial.verdict.message
    assert len(trial.curve) == 1
    assert trial.validation_accuracy is None


@pytest.mark.parametrize(
    ("source", "outcome"), [("x = (", "syntax"), ("import nothing_here", "import"), ("", "contract")]
)
def test_training_a_file_that_is_not_a_candidate(source, outcome, engine, job):
    assert engine.train(job(source)).verdict.outcome.value == outcome


def test_an_exception_of_the_callback_ends_the_trial(engine, left_over, job):
    def interrupt(point):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.train(job(net_source(), epochs=1000), interrupt)
    deadline = time.monotonic() + 20
    while left_over() != ([], []) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left_over() == ([], [])


DRIVER = """
import sys, tempfile
from nngen.datasets import load_dataset
from nngen.isolation import Isolation
from nngen.training import LocalEngine, TrainJob
from nngen.types import Candidate, Shape, TrialSpec
tempfile.tempdir = sys.argv[2]
with LocalEngine() as engine:
    spec = TrialSpec(dataset="digits", shape=Shape(1, 8, 8), epochs=10**6)
    source = Candidate(id="x", source=sys.argv[1], canonical="")
    job = TrainJob(candidate=source, spec=spec, dataset=load_dataset("digits"), isolation=Isolation.PROCESS)
    engine.train(job, lambda point: print(point.epoch, flush=True))
"""


@pytest.mark.long
def test_nothing_outlives_a_killed_engine(tmp_path, mark, marked):
    source = net_source(init="import os; os.fork() == 0 and (os.setsid(), any(iter(int, 1)))")
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:{mark}"}
    command = [sys.executable, "-c", DRIVER, source, str(tmp_path)]
    before = set(marked())
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as driver:
        driver.stdout.readline()
        assert len(set(marked()) - before) >= 5  # engine, server, supervisor, worker, its child
        driver.kill()
    deadline = time.monotonic() + 20
    while set(marked()) - before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert set(marked()) <= before
    assert not list(tmp_path.glob("nngen-scratch-*/*"))


@pytest.mark.long
def test_leaving_the_engine_leaves_nothing(left_over):
    with LocalEngine() as own:
        own.warm_up()
        server = own._runner._server.process
        assert server.poll() is None
    assert server.poll() is not None


def test_shapes_that_cannot_be_reached_are_refused_before_any_work(engine, digits, job):
    colour = replace(digits, train_images=np.zeros((1151, 3, 8, 8), np.uint8))
    with pytest.raises(DataError, match="use --shape 3x8x8"):
        engine.train(job(net_source(), dataset=colour))
    with pytest.raises(NngenError, match="must be a whole number from"):
        engine.train(job(net_source(), epochs=0))


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(NngenError, match="No module named 'no_torch_here'"):
        JobRunner(("no_torch_here",)).versions()


@pytest.mark.slow
def test_overhead_of_a_trial_is_small(engine, job):
    """At most one second on a busy machine; ``eval/overhead.py`` measures it."""
    trials = [engine.train(job(net_source())) for _ in range(5)]
    assert min(trial.seconds - trial.curve[0].seconds for trial in trials) < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "side"), [("ShuffleNet", 32), ("DenseNet", 32), ("MoE-hetero4-Alex-Dense-Air-Bag", 64)]
)
def test_lemurs_own_files_pass_the_check(model, side, lemur, engine, candidate):
    assert engine.check(
        CheckJob(candidate=candidate(lemur.source(model)), shape=Shape(3, side, side), isolation=Isolation.PROCESS)
    ).valid
