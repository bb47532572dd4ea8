"""``nngen surrogate gates``: a gate trained for every mixture, over experts that stay as they were trained alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from nngen.cli.options import ArchiveOptions, Count, Flag
from nngen.cli.options.dry_run import DryRun
from nngen.cli.options.engine import BudgetOptions, EngineOptions
from nngen.cli.output import note, print_json, print_table, say, suggest
from nngen.cli.progress import progress_bar
from nngen.cli.surrogate import FamiliesFrom, Seeds, begun, finish, train_mixtures
from nngen.errors import UsageError
from nngen.export.kept_weights import family_weights
from nngen.ranges import Epochs, range_of
from nngen.space.adaptive import SURROGATE
from nngen.space.pool import EXPERTS
from nngen.surrogate.experts import Experts, Floats, Ints, JointAccuracies, joint_accuracies, load_experts
from nngen.surrogate.plan_accuracy import MIN_GROUPS
from nngen.surrogate.source import DrawnQuartets
from nngen.text import counted
from nngen.training import pick_device

if TYPE_CHECKING:
    from nngen.surrogate.ranking import Agreement  # loads torch

_BESIDE = ("convex_weights", "stacking", "mean_probabilities", "best_single")


def gates(
    campaign: Annotated[str | None, Parameter(name="CAMPAIGN")] = None,
    /,
    *,
    epochs: Count | None = None,
    top: Count = 20,
    train: Count | None = None,
    train_epochs: Annotated[int, Parameter(validator=range_of(Epochs))] | None = None,
    seeds: Seeds | None = None,
    unfreeze: Flag = False,
    gate: Literal["calibrated", "linear", "convolution"] | None = None,
    device: str = "auto",
    families_from: FamiliesFrom = (),
    budget: BudgetOptions = BudgetOptions(),
    machines: EngineOptions = EngineOptions(),
    dry_run: DryRun = False,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Train a gate for every mixture of four families, over the families' kept outputs; no network is trained.

    Each gate is linear on the mean colours of a grid of 4 by 4, and blends the probabilities of its four experts, which
    are calibrated first. Both are trained on one half of the validation images and scored on the other, both ways. With
    two or more seeds of the families, mixtures are ranked by the first one, and the column fresh has the accuracy with
    the others.

    With --train K the K best become candidates, as campaign CAMPAIGN-frozen-EPOCHS: files whose experts start from the
    families' kept weights and stay as they are, while the gate is trained on the training images. Replicates take the
    weights of the next seed of each family. With --unfreeze all weights are trained from there on, those of the experts
    at a tenth of the learning rate, as campaign CAMPAIGN-warm-EPOCHS.

    Args:
        campaign: Campaign of families alone (nngen experts train); the last one by default.
        epochs: Epochs of the families' trials, which are a rung of the campaign; those of the last one by default.
        top: Mixtures to list.
        train: Mixtures to train as candidates, in place of the list.
        train_epochs: Passes over the training images of each candidate; 1 by default.
        seeds: Seeds of each candidate; 1 by default.
        unfreeze: Train the experts of the candidates too.
        gate: Gate of candidates with frozen experts: ``calibrated`` (the default) as in the list, ``linear`` without
            the calibration, ``convolution`` on whole images.
        device: Device of the gates: ``auto``, ``cpu`` or ``cuda``.
        families_from: A folder or a Python entry point that the campaign took families from; may be given several
            times.

    Examples:
        nngen surrogate gates
        nngen surrogate gates experts --top 100 --json
        nngen surrogate gates experts --train 10 --seeds 2
        nngen surrogate gates experts --train 10 --gate convolution
        nngen surrogate gates experts --train 10 --train-epochs 5 --unfreeze
    """
    from nngen.surrogate.gates import frozen_plan, warm_plan

    if train is None and (unfreeze or dry_run or gate):
        flag = "unfreeze" if unfreeze else "dry-run" if dry_run else "gate"
        raise UsageError(f"--{flag} is for --train K, which trains candidates")
    if unfreeze and gate:
        raise UsageError("--gate is for frozen experts: --unfreeze trains all weights, with the default gate")
    device = pick_device(device)
    if train is None:
        _list(campaign, epochs, top, device, output)
        return
    if not machines.here:
        raise UsageError("candidates that start from kept weights are trained on this machine: leave out --engine")
    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        weights = family_weights(store, alone.campaign, alone.fidelity.epochs, alone.families)
        kind = "warm" if unfreeze else "frozen" if gate in (None, "calibrated") else gate
        name = f"{alone.campaign}-{kind}-{alone.fidelity.epochs}"
        before, base = begun(store, name), store.campaign(alone.campaign).spec
        stored = store.campaign(name).spec if before else None
    # What is not typed again stays as it was.
    train = max(train, stored.size if stored else 0)
    passes, seeds = train_epochs or (stored.epochs if stored else 1), seeds or (stored.replicates if stored else 1)
    if seeds > (fewest := min(map(len, weights.values()))):
        raise UsageError(
            f"--seeds {seeds} takes weights of as many seeds of every family, and {fewest} are kept: nngen experts"
            f" train {alone.campaign} --seeds {seeds} trains more"
        )
    quartets = _best(alone, train, device)[before:] if before < train else ()
    spec = replace(
        base,
        name=name,
        size=train,
        sampler=SURROGATE,
        families=alone.families,
        epochs=passes,
        rungs=stored.rungs if stored and passes == stored.epochs else (),
        finalists=train if seeds > 1 else 0,
        replicates=seeds,
        keep_weights="all",
        start=_identity(weights),
    )
    summary = train_mixtures(
        alone,
        spec,
        DrawnQuartets(quartets=quartets, plan=warm_plan(alone.families) if unfreeze else frozen_plan(gate)),
        weights=weights,
        families_from=families_from,
        budget=budget,
        machines=machines,
        output=output,
        dry_run=dry_run,
    )
    if summary is not None:
        more = ("--unfreeze",) if unfreeze else ("--gate", gate) if gate else ()
        again = ("surrogate", "gates", alone.campaign, "--train", str(train), *more)
        finish(summary, again, ("leaderboard", name), output)


def _train_gates(alone: Experts, mixtures: Ints, device: str) -> Floats:
    """Return the accuracy of the gate of each mixture, with the first seed of the experts."""
    from nngen.surrogate.gates import gate_accuracies

    with progress_bar("training gates") as report:
        return gate_accuracies(alone, mixtures, device=device, progress=report)


def _best(alone: Experts, number: int, device: str) -> tuple[tuple[str, ...], ...]:
    """Return the families of the best mixtures."""
    from nngen.surrogate.ranking import listed_mixtures

    mixtures = listed_mixtures(alone, {}, device)
    if len(mixtures) < number:
        raise UsageError(
            f"{number:,} mixtures were asked for, and {len(alone.families)} families have {len(mixtures):,}"
        )
    order = np.argsort(-_train_gates(alone, mixtures, device), kind="stable")[:number]
    return tuple(tuple(alone.families[member] for member in mixtures[place]) for place in order)


def _identity(weights: Mapping[str, tuple[Path, ...]]) -> str:
    """Identify the weights of all families by a SHA-256, in hex, over those of their first seeds."""
    found = hashlib.sha256()
    for family, (first, *_) in sorted(weights.items()):
        with first.open("rb") as file:
            found.update(f"{family} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def _list(campaign: str | None, epochs: int | None, top: int, device: str, output: ArchiveOptions) -> None:
    """Train all gates and print the best mixtures."""
    from nngen.surrogate.gates import gate_accuracies
    from nngen.surrogate.ranking import listed_mixtures
    from nngen.surrogate.scores import score_mixtures

    with output.read() as store:
        alone = load_experts(store, campaign, epochs)
        joint = joint_accuracies(store, alone)
    mixtures = listed_mixtures(alone, joint, device)
    accuracies = _train_gates(alone, mixtures, device)
    best = np.argsort(-accuracies, kind="stable")[:top]
    fresh = [gate_accuracies(alone, mixtures[best], seed=seed, device=device) for seed in range(1, len(alone.logits))]
    beside = score_mixtures(alone, mixtures[best], device=device)
    members = [tuple(mixtures[place].tolist()) for place in best]
    trained = {number: float(np.mean(joint[own])) for number, own in enumerate(members) if own in joint}
    rows = [
        {
            "rank": number + 1,
            "experts": [alone.families[member] for member in members[number]],
            "gate": float(accuracies[place]),
            "fresh": float(np.mean([values[number] for values in fresh])) if fresh else None,
            **{name: None if np.isnan(beside[name][number]) else float(beside[name][number]) for name in _BESIDE},
            "trained": trained.get(number),
        }
        for number, place in enumerate(best)
    ]
    found = _agreement(mixtures, accuracies, joint)
    if output.json:
        print_json(
            {
                "campaign": alone.campaign,
                "epochs": alone.fidelity.epochs,
                "seeds": len(alone.logits),
                "images": len(alone.labels),
                "missing": dict(alone.missing),
                "space": math.comb(len(alone.families), EXPERTS),
                "gates": len(mixtures),
                "agreement": found and asdict(found),
                "mixtures": rows,
            }
        )
    else:
        _print(alone, len(mixtures), rows, found)
    suggest("surrogate", "gates", alone.campaign, "--train", min(10, len(mixtures)), *output.place)


def _agreement(mixtures: Ints, accuracies: Floats, joint: JointAccuracies) -> Agreement | None:
    """Compare the gates with joint trainings; None where too few mixtures were trained jointly."""
    from nngen.surrogate.ranking import agreement

    place = {tuple(row): number for number, row in enumerate(mixtures.tolist())}
    trained = [place[members] for members in joint]
    truth = np.array([np.mean(seeds) for seeds in joint.values()])
    return agreement("gate", accuracies[trained], truth) if len(trained) >= MIN_GROUPS else None


def _print(alone: Experts, count: int, rows: list[dict[str, Any]], found: Agreement | None) -> None:
    for family, reason in alone.missing.items():
        note(f"{family} is not ranked: {reason}")
    say(
        f"{counted(len(alone.families), 'family', 'families')} of {alone.campaign}"
        f" after {counted(alone.fidelity.epochs, 'epoch')}; {counted(count, 'gate')},"
        f" each trained on one half of {len(alone.labels):,} validation images and scored on the other"
    )
    some = any(row["trained"] is not None for row in rows)
    columns = ["rank", "experts", "gate", *(["fresh"] if len(alone.logits) > 1 else []), *_BESIDE]
    print_table(rows, [*columns, "trained"] if some else columns)
    if len(alone.logits) > 1:
        say("gate chose the mixtures, so it is optimistic; fresh is of experts with other seeds.")
    else:
        say("gate chose the mixtures, so it is optimistic: nngen experts train with --seeds 2 adds a fresh accuracy.")
    if found is None or found.tau is None:
        say(f"how well gates rank jointly trained mixtures is not known: fewer than {MIN_GROUPS} were trained jointly.")
    else:
        say(
            f"gate agrees with the accuracies of {found.mixtures} jointly trained mixtures by a tau of {found.tau:.2f}"
            f" ({found.low:.2f} to {found.high:.2f})."
        )
