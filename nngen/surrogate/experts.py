"""Outputs of families trained alone, and accuracies of their mixtures, read from the archive.

The trials are those of ``nngen experts train`` or of ``nngen campaign run --baselines``; both keep the logits of the
validation images.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from statistics import fmean
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from nngen.archive.records import CampaignRecord, StoredTrial
from nngen.archive.store import Archive
from nngen.assembly.provenance import source_level
from nngen.errors import UsageError
from nngen.files import cache_dir, load_json, store_json
from nngen.isolation import Job, JobRunner, Limits
from nngen.plan import Plan
from nngen.space.pool import EXPERTS
from nngen.text import counted, one_line
from nngen.types import Fidelity

Floats: TypeAlias = npt.NDArray[np.float64]
Halves: TypeAlias = npt.NDArray[np.float16]
Ints: TypeAlias = npt.NDArray[np.int64]

JointAccuracies: TypeAlias = Mapping[tuple[int, ...], Sequence[float]]
"""Accuracies of mixtures that were trained jointly, one for each seed, by the places of their families."""

UNTRAINED: Mapping[str, str] = {
    "swap": "distinct patterns of activations over noise, before training (mean over the experts)",
    "synflow": "logarithm of the synaptic flow, before training (mean over the experts)",
    "gradient_norm": "norm of the gradient on noise, before training (mean over the experts)",
}
"""Scores of networks that are not trained, by name; ``with_untrained`` measures them."""

_PLAIN = Plan(experts=())
_LIMITS = Limits(time_limit_s=120.0, memory_mib=12_288)
_WORKER = "nngen.surrogate.untrained"
_PRELOAD = ("torch", "torchvision", "numpy", _WORKER)
_LATER = 5
"""Epoch that the first one is compared with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Experts:
    """Families of a pool, each trained alone with one fidelity, with their outputs on the validation images."""

    campaign: str  # campaign that trained them
    fidelity: Fidelity  # fidelity of their trials, with the batch that was asked for
    families: tuple[str, ...]  # names, sorted; ``E`` of them
    logits: Halves  # logits, ``(S, E, N, C)``: of as many seeds as every family has, ``N`` images and ``C`` classes
    labels: Ints  # class of each image, ``(N,)``
    features: Floats | None  # pooled features of each image, ``(N, F)``; None where the archive has none
    accuracies: Floats  # mean validation accuracy over the seeds, ``(E,)``
    parameters: Floats  # number of parameters, ``(E,)``; nan where it is not known
    speed: Floats  # accuracy after epoch 1 as a share of that after epoch 5, or after the last, ``(E,)``
    missing: Mapping[str, str]  # families of the pool without outputs, with the reason
    candidates: tuple[str, ...] = ()  # id of each family's candidate
    # scores of the families before training, each ``(E,)``, by name; empty where they were not measured
    untrained: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.logits.shape[-1])


def expert_campaign(archive: Archive, name: str | None = None) -> CampaignRecord:
    """Return a campaign of families alone: the one of that name, or the last one that was begun.

    Raises:
        UsageError: If there is none, or the campaign holds mixtures.
    """
    if name is not None:
        record = archive.campaign(name)
        if record.spec.alone:
            return record
        raise UsageError(
            f"campaign {name} holds mixtures, not families alone: nngen campaign run {name} --baselines trains them"
        )
    found = [record for record in archive.campaigns() if record.spec.alone]
    if not found:
        raise UsageError("the archive holds no families trained alone: nngen experts train trains them")
    return found[-1]


def load_experts(archive: Archive, campaign: str | None = None, epochs: int | None = None) -> Experts:
    """Read the outputs of a campaign of families alone, by default the last one, after the epochs of one of its rungs.

    Raises:
        UsageError: If no campaign fits, or fewer than four families have outputs; the message has the reasons.
    """
    record = expert_campaign(archive, campaign)
    levels = record.spec.fidelities
    if epochs is not None and epochs not in levels:
        known = ", ".join(map(str, levels))
        raise UsageError(f"campaign {record.name} trained its families for {known} epochs, not for {epochs}")
    rung = len(levels) - 1 if epochs is None else levels.index(epochs)
    labels = np.frombuffer(archive.validation_labels(record.data_fingerprint), "<u2").astype(np.int64)
    trials: dict[str, list[StoredTrial]] = defaultdict(list)
    for trial in archive.trials(record.name):
        if trial.rung == rung:
            trials[trial.experts[0]].append(trial)
    kept, outputs, missing = {}, {}, {}
    for family in sorted(record.pool):
        found = [_outputs(archive, trial, len(labels), record.classes) for trial in trials[family]]
        good = [(trial, one) for trial, one in zip(trials[family], found, strict=True) if not isinstance(one, str)]
        if good:
            kept[family], outputs[family] = [trial for trial, _ in good], [one for _, one in good]
        else:
            missing[family] = next((one for one in found if isinstance(one, str)), "it was not begun")
    if len(kept) < EXPERTS:
        reasons = "; ".join(f"{family}: {reason}" for family, reason in missing.items())
        raise UsageError(
            f"{len(kept)} families of campaign {record.name} have outputs after {counted(levels[rung], 'epoch')}, and"
            f" a mixture takes {EXPERTS} ({reasons or 'the pool has no more'}):"
            f" nngen experts train {record.name} goes on with it"
        )
    seeds = min(map(len, kept.values()))
    features = archive.image_features(record.data_fingerprint)
    return Experts(
        campaign=record.name,
        fidelity=record.spec.trial(seed=0, rung=rung).fidelity(record.data_fingerprint),
        families=tuple(kept),
        logits=np.stack([np.stack([outputs[family][seed] for family in kept]) for seed in range(seeds)]),
        labels=labels,
        features=np.frombuffer(features, "<f2").reshape(len(labels), -1).astype(np.float64) if features else None,
        accuracies=np.array([fmean(trial.validation_accuracy or 0.0 for trial in own) for own in kept.values()]),
        parameters=np.array([own[0].parameters or np.nan for own in kept.values()], dtype=np.float64),
        speed=np.array([fmean(map(_speed, own)) for own in kept.values()]),
        missing=missing,
        candidates=tuple(own[0].candidate_id or "" for own in kept.values()),
    )


def joint_accuracies(archive: Archive, experts: Experts, plan: Plan = _PLAIN) -> JointAccuracies:
    """Read the accuracies of mixtures of the experts that were trained jointly with the same fidelity.

    Only mixtures with the gate, losses and recipe of ``plan`` count, by default those under which the experts were
    trained; suspect trials do not.
    """
    place = {family: number for number, family in enumerate(experts.families)}
    found: dict[tuple[int, ...], dict[int, float]] = defaultdict(dict)
    for record in archive.campaigns():
        if record.spec.alone or record.data_fingerprint != experts.fidelity.data:
            continue
        for trial in archive.trials(record.name, curves=False):
            members = tuple(sorted(place[name] for name in trial.experts if name in place))
            if len(set(members)) != EXPERTS or trial.plan != replace(plan, experts=trial.experts) or trial.spec is None:
                continue
            alike = trial.spec.fidelity(trial.data_fingerprint) == experts.fidelity
            if alike and not trial.suspect and trial.validation_accuracy is not None:
                found[members][trial.seed] = trial.validation_accuracy
    return {members: list(seeds.values()) for members, seeds in sorted(found.items())}


def with_untrained(
    archive: Archive, experts: Experts, *, progress: Callable[[int, int], None] | None = None
) -> Experts:
    """Return experts with the scores of their families before training; each is measured once on a machine."""
    shape, rows = experts.fidelity.shape, []
    arguments = {
        "shape": str(shape),
        "classes": experts.classes,
        "hyperparameters": dict(experts.fidelity.hyperparameters),
    }
    with closing(JobRunner(_PRELOAD)) as runner:
        for number, candidate_id in enumerate(experts.candidates):
            if progress is not None:
                progress(number, len(experts.candidates))
            source = archive.candidate(candidate_id).source
            key = hashlib.sha256(repr((version("torch"), source, arguments)).encode()).hexdigest()[:40]
            file = cache_dir() / "untrained" / f"{key}.json"
            found = load_json(file)
            if not isinstance(found, dict):
                level = source_level(source).level
                job = Job(
                    entry_point=f"{_WORKER}:measure",
                    arguments=arguments,
                    limits=_LIMITS,
                    isolation=level,
                    source=source,
                )
                messages, _ = runner.collect(job)
                found = messages[0] if messages else {}
                if messages:
                    store_json(file, found)
            rows.append([_number(found.get(name)) for name in UNTRAINED])
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(UNTRAINED))
    return replace(experts, untrained=dict(zip(UNTRAINED, values.T, strict=True)))


def _outputs(archive: Archive, trial: StoredTrial, images: int, classes: int) -> Halves | str:
    """Return the logits of a trial, ``(N, C)``, or the reason why it has none that can be used."""
    if trial.verdict is not None and not trial.verdict.valid:
        return f"{trial.verdict.outcome.value}: {one_line(trial.verdict.message, 120)}"
    if not trial.trained:
        return "it is not trained yet"
    if trial.suspect:
        return f"its accuracy is suspect: {one_line(trial.suspect, 120)}"
    raw = archive.logits(trial.id)
    values = np.frombuffer(raw, "<f2")
    if not images or len(values) != images * classes:
        return f"it has {len(values):,} logits in place of {images:,} images with {classes} classes"
    if not np.isfinite(values).all():
        return "its logits are not finite"
    return values.reshape(images, classes)


def _speed(trial: StoredTrial) -> float:
    """Return the accuracy after the first epoch as a share of that after a later one; 1 without a later one."""
    if not trial.curve:
        return 1.0
    later = trial.curve[min(_LATER, len(trial.curve)) - 1].validation_accuracy
    return trial.curve[0].validation_accuracy / later if later else 1.0


def _number(value: object) -> float:
    """Return a number that a worker sent; nan for anything else."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan
