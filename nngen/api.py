"""Functions for notebooks and scripts: load families, assemble, check and train in one call each.

Each opens what it needs: LEMUR, a local engine, a data set. A loop over many candidates passes one engine, whose
worker processes then start once. Names are importable from ``nngen`` itself; ``docs/python.md`` shows each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nngen.archive import Archive, default_path
from nngen.assembly.assemble import Assembler
from nngen.assembly.plan_validation import check_plan
from nngen.assembly.provenance import source_level
from nngen.campaign.runner import Campaign
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.datasets import Dataset, load_dataset
from nngen.datasets.registry import dataset_name
from nngen.errors import FamilyError, UsageError
from nngen.export.kept_weights import find_weights
from nngen.families.catalogue import choose
from nngen.families.catalogue import load_families as load_from
from nngen.families.probe import usable_families
from nngen.isolation import Isolation
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.training import CheckJob, Engine, LocalEngine, TrainJob, pick_device
from nngen.training.candidate_files import read_candidate
from nngen.types import Candidate, EpochResult, Family, Hyperparameters, Shape, Trial, TrialSpec, Verdict

if TYPE_CHECKING:
    from nngen.training.state.trained_model import TrainedModel  # loads torch

__all__ = ["assemble", "check", "load", "load_families", "prepare_campaign", "train"]

_SHAPE = Shape(3, 32, 32)


def load_families(families_from: Sequence[str] = ()) -> dict[str, Family]:
    """Load all base families by name: LEMUR's, and those of folders or entry points.

    Args:
        families_from: Folders of files in LEMUR's contract, or Python entry points.

    Raises:
        LemurError: If LEMUR cannot be read; ``nngen lemur fetch`` fetches it.
        FamilyError: If a family from elsewhere cannot be read.
    """
    return load_from(open_lemur(), families_from)


def assemble(
    plan: Plan | Sequence[str],
    *,
    shape: Shape = _SHAPE,
    families: Mapping[str, Family] | None = None,
    isolation: str = "auto",
) -> Candidate:
    """Assemble a mixture into one self-contained PyTorch file.

    Args:
        plan: A plan, or the names of four families for a plan with the default gate, losses and recipe.
        shape: Images that the families must be usable for; the file itself takes images of any size.
        families: Families by name; LEMUR's by default.
        isolation: Level at which families are measured: ``auto`` (the sandbox for all but LEMUR's own), ``sandbox``,
            ``process`` or ``none``.

    Returns:
        The candidate; ``candidate.source`` is the file.

    Raises:
        PlanError: If the plan is not valid.
        FamilyError: If a family is unknown, or cannot be used at the shape.
    """
    plan = plan if isinstance(plan, Plan) else Plan(experts=tuple(plan))
    check_plan(plan)
    known = load_families() if families is None else families
    chosen = choose(known, dict.fromkeys(plan.experts))
    pool, refused = usable_families(chosen, shape, wanted=isolation)
    if refused:
        name, reason = next(iter(refused.items()))
        raise FamilyError(f"{name} cannot be used at {shape}: {reason}")
    return Assembler().assemble(plan, [pool[name] for name in plan.experts])


def check(
    candidate: Candidate | Path,
    *,
    shape: Shape = _SHAPE,
    classes: int = 10,
    hyperparameters: Hyperparameters | None = None,
    device: str = "auto",
    isolation: str = "auto",
    engine: Engine | None = None,
) -> Verdict:
    """Check that a candidate works: contract, import, shapes, one step, and a gradient in every expert.

    Args:
        candidate: A candidate, or the path of its file.
        shape: Shape of the images.
        classes: Number of classes.
        hyperparameters: Values of ``prm`` for files that name more than ``lr``, ``momentum`` and ``dropout``.
        device: ``auto``, ``cpu`` or ``cuda``.
        isolation: ``auto``, ``sandbox``, ``process`` or ``none``; see ``nngen check --help``.
        engine: Engine to use; a local one is opened by default.

    Raises:
        UsageError: If a sandbox is required and bubblewrap is missing.
        CheckFailed: If the file cannot be read as Python source.
    """
    candidate = candidate if isinstance(candidate, Candidate) else read_candidate(candidate)
    job = CheckJob(
        candidate=candidate,
        shape=shape,
        classes=classes,
        hyperparameters=hyperparameters or {},
        device=pick_device(device),
        isolation=source_level(candidate.source, isolation).level,
    )
    with nullcontext(engine) if engine is not None else LocalEngine() as ready:
        return ready.check(job)


def train(
    candidate: Candidate | Path,
    *,
    dataset: Dataset | str = "digits",
    shape: Shape | None = None,
    train_size: int | None = None,
    epochs: int = 1,
    seed: int = 0,
    batch: int = 64,
    lr: float = 1e-3,
    momentum: float = 0.9,
    augment: str = "none",
    class_weights: str = "none",
    hyperparameters: Hyperparameters | None = None,
    device: str = "auto",
    threads: int | None = None,
    time_limit_s: float = 3600.0,
    memory_mib: int = 12_288,
    isolation: str = "auto",
    engine: Engine | None = None,
    on_epoch: Callable[[EpochResult], None] | None = None,
) -> Trial:
    """Train a candidate in an isolated worker and score it outside, on the validation split.

    Args:
        candidate: A candidate, or the path of its file.
        dataset: A data set, or its name (``digits``, ``fashion-mnist``, ``folder:PATH``, ...).
        shape: Shape that images are brought to; the data set's own by default.
        train_size: Images of the train split to train on, each class with its share; all by default.
        epochs: Passes over the train split.
        seed: Seed of everything random in the worker.
        batch: Images per step.
        lr: Learning rate, passed to the file in ``prm``.
        momentum: Momentum, passed to the file in ``prm``.
        augment: Random changes of training images: ``none``, ``flip``, ``crop-flip`` or ``trivial``.
        class_weights: Weights of the classes in training: ``none``, ``balanced``, or by class as ``cat=2,dog=0.5``.
        hyperparameters: Further values of ``prm``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: CPU threads of the worker; all cores by default.
        time_limit_s: Time limit in seconds.
        memory_mib: Limit on resident memory in MiB.
        isolation: ``auto``, ``sandbox``, ``process`` or ``none``; see ``nngen train --help``.
        engine: Engine to use; a local one is opened by default.
        on_epoch: Called after each epoch.

    Returns:
        The trial; its verdict tells whether it trained, and why not.

    Raises:
        UsageError: If a sandbox is required and bubblewrap is missing.
        DataError: If the data set is missing, or cannot be brought to the shape.
        CheckFailed: If the file cannot be read as Python source.
    """
    candidate = candidate if isinstance(candidate, Candidate) else read_candidate(candidate)
    data = load_dataset(dataset, shape=shape) if isinstance(dataset, str) else dataset
    spec = TrialSpec(
        dataset=dataset_name(dataset) if isinstance(dataset, str) else dataset.name,
        shape=shape or data.default_shape,
        train_size=train_size,
        epochs=epochs,
        seed=seed,
        batch=batch,
        lr=lr,
        momentum=momentum,
        augment=augment,
        class_weights=class_weights,
        hyperparameters=hyperparameters or {},
        device=pick_device(device),
        threads=threads or os.cpu_count() or 1,
        time_limit_s=time_limit_s,
        memory_mib=memory_mib,
    )
    isolated = source_level(candidate.source, isolation).level
    job = TrainJob(candidate=candidate, spec=spec, dataset=data, isolation=isolated)
    with nullcontext(engine) if engine is not None else LocalEngine() as ready:
        return ready.train(job, on_epoch)


def load(
    name: str, *, archive: str | os.PathLike[str] | None = None, trust: bool = False, device: str = "cpu"
) -> TrainedModel:
    """Load a network with the weights that a campaign kept, those of the best trial, into this process.

    The code of the candidate runs here, without a sandbox; ``nngen predict`` runs it in one.

    Args:
        name: Id of the candidate, or the start of one; or the name of a campaign, for its best candidate.
        archive: Path of the archive; by default ``NNGEN_ARCHIVE``, else ``./nngen.db``.
        trust: Whether to run a file that nngen did not assemble from families of the pinned LEMUR wheel.
        device: Device to load it onto.

    Returns:
        A module in eval mode, with the preparation of its images and the names of its classes.

    Raises:
        UsageError: If the candidate is unknown, kept no weights, or its file is not trusted.
        DataError: If the weights are damaged, or of another file.
    """
    from nngen.training.state.trained_model import TrainedModel  # loads torch

    with Archive.open(archive or default_path(), readonly=True) as store:
        found, _, kept = find_weights(store, name)
    choice = source_level(found.source)
    if choice.level is Isolation.SANDBOX and not trust:
        raise UsageError(
            f"{found.id}: {choice.reason}: its code would run in this process, so say trust=True, or use nngen predict,"
            " which runs it in a sandbox"
        )
    return TrainedModel(found.source, kept, device)


def prepare_campaign(
    spec: CampaignSpec,
    archive: Archive,
    engine: Engine,
    *,
    families_from: Sequence[str] = (),
    data_root: Path | None = None,
    isolation: str = "auto",
) -> Campaign:
    """Prepare a campaign: load its data set and measure its families. ``.run()`` begins or resumes it.

    Args:
        spec: Specification of the campaign.
        archive: Archive that stores it.
        engine: Engine that checks and trains.
        families_from: Folders or entry points with further families.
        data_root: Folder of torchvision's files.
        isolation: Level at which families are measured and candidates run; see ``nngen campaign run --help``.

    Raises:
        FamilyError: If a family is unknown, or fewer than four can be used at the shape.
        DataError: If the data set is missing or broken.
        LemurError: If LEMUR cannot be read.
    """
    spec = replace(spec, dataset=dataset_name(spec.dataset))
    dataset = load_dataset(spec.dataset, data_root=data_root, shape=spec.shape)
    inputs = prepare_inputs(
        dataset,
        spec.shape,
        spec.families,
        lemur=open_lemur(),
        families_from=families_from,
        hyperparameters=spec.hyperparameters,
        wanted=isolation,
    )
    return Campaign(spec=spec, archive=archive, inputs=inputs, engine=engine, isolation=isolation)
