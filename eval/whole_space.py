"""Speed and memory of scoring every mixture of a pool from the outputs of its families, against a plain loop.

    python eval/whole_space.py --write                   # everything; a gate for every mixture takes minutes
    python eval/whole_space.py --parts gates --write     # the gates alone; the rest of the page stays as it is

The outputs are made up (images of different difficulty, experts of different skill and taste), because time and memory
do not depend on their values. Every pool is scored by a process of its own, whose peak memory is read. The plain loop
computes the same scores mixture by mixture in NumPy, on a sample; its time for the whole space is that of the sample,
scaled. The figures of each part stay in ``eval/results/whole_space.json``, from which the page is made.
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from _page import RESULTS, Evaluation, note, table
from more_itertools import chunked

from nngen.files import load_json, store_json

EVALUATION = Evaluation(__file__, __doc__)
LIMIT_S, LIMIT_MIB, EQUAL = 60.0, 2048, 1e-5
SEARCHED, TOP = 50, 24
PARTS = ("scores", "gates", "search")
STORE = RESULTS / "whole_space.json"
STEPS, RELAXATION, PENALTY, TEMPERATURES = 20, 1.8, 0.1, (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Floats = npt.NDArray[np.float64]


def made_up(families: int, images: int, classes: int, seed: int = 0) -> Any:
    """Make up the outputs of experts with accuracies of about .2 to .6."""
    from nngen.surrogate.experts import Experts
    from nngen.types import Shape, TrialSpec

    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=images)
    right = np.eye(classes)[labels]
    hard = random.normal(0, 1, (images, classes))  # what misleads every expert
    features = random.normal(0, 1, (images, 48))
    logits = np.empty((1, families, images, classes), np.float16)
    for family in range(families):
        taste = (features @ random.normal(0, 0.1, 48))[:, None]  # an expert is better on some images
        skill = random.uniform(0.2, 1.5) + taste
        own = random.normal(0, 1, (images, classes))
        logits[0, family] = random.uniform(0.5, 2) * (skill * right + hard + own)
    accuracies = (logits[0].argmax(2) == labels).mean(1)
    spec = TrialSpec(dataset="made up", shape=Shape(3, 32, 32))
    return Experts(
        campaign="made-up",
        fidelity=spec.fidelity(),
        families=tuple(f"{number:04d}" for number in range(families)),
        logits=logits,
        labels=labels,
        features=features,
        accuracies=accuracies,
        parameters=random.uniform(1e6, 3e7, families),
        speed=random.uniform(0.3, 0.9, families),
        missing={},
    )


def plain_scores(experts: Any, mixture: Sequence[int]) -> dict[str, float]:
    """Compute the scores of one mixture with its experts' first seed, one step after the other."""
    from nngen.surrogate.scores import halves

    logits, labels = experts.logits[0][list(mixture)].astype(np.float64), experts.labels
    powers = np.exp(logits - logits.max(2, keepdims=True))
    shares = powers / powers.sum(2, keepdims=True)
    hits = logits.argmax(2) == labels
    alone = sorted(experts.accuracies[list(mixture)])
    pairs = list(combinations(hits, 2))
    found = {
        "mean_single": float(np.mean(alone)),
        "best_single": alone[-1],
        "second_single": alone[-2],
        "mean_probabilities": _accuracy(shares.sum(0), labels),
        "mean_logits": _accuracy(logits.sum(0), labels),
        "oracle": hits.any(0).mean(),
        "disagreement": np.mean([(a != b).mean() for a, b in pairs]),
        "double_fault": np.mean([(~a & ~b).mean() for a, b in pairs]),
        "q_statistic": np.mean([_yule(a, b) for a, b in pairs]),
        "speed": experts.speed[list(mixture)].mean(),
        "parameters": experts.parameters[list(mixture)].sum() / 1e6,
    }
    parts: dict[str, list[float]] = {"convex_weights": [], "ridge_gate": [], "stacking": []}
    for number, half in enumerate(halves(len(labels))):
        fit, scored = half.fit.numpy(), half.scored.numpy()
        truth = shares[:, fit, labels[fit]]
        weights = np.full(len(mixture), 1 / len(mixture))
        for _ in range(STEPS):
            responsibility = weights[:, None] * truth
            ratio = (responsibility / responsibility.sum(0)).mean(1) / weights
            weights = weights * ratio**RELAXATION
            weights /= weights.sum()
        parts["convex_weights"].append(_accuracy(np.tensordot(weights, shares[:, scored], 1), labels[scored]))
        competence = _competence(experts.features, hits, fit)[:, scored] / _temperature(experts, number)
        gate = np.exp(competence - competence.max(0))
        gate /= gate.sum(0)
        parts["ridge_gate"].append(_accuracy((gate[:, :, None] * shares[:, scored]).sum(0), labels[scored]))
        logs = np.log(shares.clip(np.exp(-20))).transpose(1, 0, 2).reshape(len(labels), -1)
        mean, goal = logs[fit].mean(0), np.eye(shares.shape[2])[labels[fit]]
        known = logs[fit] - mean
        gram = known.T @ known
        slopes = np.linalg.solve(
            gram + PENALTY * np.diag(gram).mean() * np.eye(len(gram)), known.T @ (goal - goal.mean(0))
        )
        parts["stacking"].append(_accuracy((logs[scored] - mean) @ slopes + goal.mean(0), labels[scored]))
    for name, values in parts.items():
        sizes = [len(half.scored) for half in halves(len(labels))]
        found[name] = float(np.average(values, weights=sizes))
    return {name: float(value) for name, value in found.items()}


def _accuracy(values: Floats, labels: npt.NDArray[np.int64]) -> float:
    rows = np.arange(len(labels))
    right = values[rows, labels]
    others = values.copy()
    others[rows, labels] = -np.inf
    return float((right > others.max(1)).mean())


def _yule(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    odds, against = (a & b).mean() * (~a & ~b).mean(), (a & ~b).mean() * (~a & b).mean()
    return float((odds - against) / (odds + against)) if odds + against else 0.0


def _competence(features: Floats, hits: npt.NDArray[np.bool_], fit: npt.NDArray[np.int64]) -> Floats:
    scaled = (features - features[fit].mean(0)) / features[fit].std(0, ddof=1)
    known, goal = scaled[fit], hits[:, fit].T.astype(np.float64)
    gram = known.T @ known + PENALTY * len(fit) * np.eye(known.shape[1])
    return (goal.mean(0) + scaled @ np.linalg.solve(gram, known.T @ (goal - goal.mean(0)))).T


_temperatures: dict[tuple[int, int], float] = {}


def _temperature(experts: Any, half: int) -> float:
    """Return the temperature under which the gate of all experts is likeliest; it is the same for every mixture."""
    from nngen.surrogate.scores import halves

    key = (id(experts), half)
    if key not in _temperatures:
        fit, labels = halves(len(experts.labels))[half].fit.numpy(), experts.labels
        logits = experts.logits[0].astype(np.float64)
        shares = np.exp(logits - logits.max(2, keepdims=True))
        shares /= shares.sum(2, keepdims=True)
        competence = _competence(experts.features, logits.argmax(2) == labels, fit)[:, fit]
        likelihoods = []
        for temperature in TEMPERATURES:
            gate = np.exp((competence - competence.max(0)) / temperature)
            gate /= gate.sum(0)
            likelihoods.append(np.log((gate * shares[:, fit, labels[fit]]).sum(0)).mean())
        _temperatures[key] = TEMPERATURES[int(np.argmax(likelihoods))]
    return _temperatures[key]


def measure(families: int, images: int, classes: int, loop: int, device: str, threads: int) -> dict[str, Any]:
    """Score one pool in this process; with the differences to the plain loop on a sample."""
    import torch

    from nngen.surrogate.scores import all_mixtures, score_mixtures

    torch.set_num_threads(threads)
    experts = made_up(families, images, classes)
    mixtures = all_mixtures(families)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, spent = time.perf_counter(), time.process_time()
    scores = score_mixtures(experts, mixtures, device=device)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample = np.random.default_rng(1).choice(len(mixtures), min(loop, len(mixtures)), replace=False)
    start, differences = time.perf_counter(), dict.fromkeys(scores, 0.0)
    for number in sample:
        for name, value in plain_scores(experts, mixtures[number]).items():
            differences[name] = max(differences[name], abs(value - float(scores[name][number])))
    plain_s = (time.perf_counter() - start) / len(sample) * len(mixtures)
    return {
        "families": families,
        "mixtures": len(mixtures),
        "seconds": seconds,
        "cpu_s": cpu_s,
        "peak_mib": peak,
        "before_mib": base,
        "plain_s": plain_s,
        "differences": differences,
        "sample": len(sample),
    }


def gates(families: int, images: int, classes: int, device: str, threads: int) -> dict[str, Any]:
    """Train a gate for every mixture of one pool in this process."""
    import torch

    from nngen.surrogate.gates import gate_accuracies
    from nngen.surrogate.scores import all_mixtures

    torch.set_num_threads(threads)
    experts, mixtures = made_up(families, images, classes), all_mixtures(families)
    start, spent = time.perf_counter(), time.process_time()
    accuracies = gate_accuracies(experts, mixtures, device=device)
    return {
        "families": families,
        "mixtures": len(mixtures),
        "seconds": time.perf_counter() - start,
        "cpu_s": time.process_time() - spent,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "best": float(accuracies.max()),
        "best_single": float(experts.accuracies.max()),
    }


def search(families: int, images: int, classes: int, device: str, threads: int, listed: bool) -> dict[str, Any]:
    """Search a pool that is too large to score whole; list it by one score too, for comparison."""
    import torch

    from nngen.surrogate.scores import Outputs, score_mixtures
    from nngen.surrogate.search import top_mixtures

    torch.set_num_threads(threads)
    experts = made_up(families, images, classes)
    start = time.perf_counter()
    found = top_mixtures(experts, device=device)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    best = np.sort(score_mixtures(experts, found, device=device)["mean_probabilities"])[::-1][:TOP]
    kept = math.nan
    if listed:
        outputs, every = Outputs.of(experts, torch.from_numpy(experts.logits[0].copy()), device), []
        pictures = torch.arange(images, device=device)
        for block in chunked(combinations(range(families), 4), 20_000):
            chosen = torch.zeros(len(block), families, dtype=torch.float64, device=device)
            chosen.scatter_(1, torch.tensor(block, device=device), 1.0)
            every.append(outputs.accuracy(chosen, pictures, "probabilities").cpu().numpy())
        true = np.sort(np.concatenate(every))[::-1][:TOP]
        kept = float((best >= true - 1e-12).mean())
    return {
        "families": families,
        "mixtures": math.comb(families, 4),
        "seconds": seconds,
        "peak_mib": peak,
        "best": float(best[0]),
        "kept": kept,
    }


def apart(part: str, families: int, given: Any) -> Mapping[str, Any]:
    """Measure one part on one pool in a process of its own."""
    note(f"{part} of {families} families: {math.comb(families, 4):,} mixtures")
    words = [sys.executable, __file__, "--parts", part, "--one", str(families)]
    for name in ("images", "classes", "loop", "device", "threads", "listed", "searched_images"):
        words += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the parts that were asked for and print the page."""
    given = EVALUATION.arguments(
        argv,
        parts={"nargs": "+", "default": list(PARTS), "choices": PARTS},
        families=([29, 34], "sizes of the pools"),
        images=(5000, "validation images"),
        classes=10,
        loop=(200, "mixtures that the plain loop scores"),
        device="cpu",
        threads=(2, "threads of torch"),
        searched=([60, 100, 1000], "sizes of pools that are searched, not scored whole"),
        searched_images=(1000, "validation images of these"),
        listed=(60, "size up to which a searched pool is listed too, by one score"),
        one=(int, "measure one part on a pool of this size and print the figures as JSON"),
    )
    if given.one is not None:
        print(json.dumps(_one(given.parts[0], given)))
        return 0
    if max(given.families) >= SEARCHED or min(given.searched) < SEARCHED:
        EVALUATION.error(f"pools from {SEARCHED} families on are searched, smaller ones are scored whole")
    known = load_json(STORE) or {}
    for part in given.parts:
        sizes = given.searched if part == "search" else given.families
        known[part] = [apart(part, families, given) for families in sizes]
        if given.write:
            store_json(STORE, known)
    good, blocks = True, []
    for part, write in (("scores", _of_scores), ("gates", _of_gates), ("search", _of_search)):
        text, holds = write(known[part], given) if part in known else (f"The part {part} is not measured yet.", False)
        blocks.append(text)
        good = good and holds
    about = f"{given.images:,} images, {given.classes} classes, made-up outputs."
    page = EVALUATION.page("Every mixture of a pool scored from the outputs of its families", about, *blocks)
    return EVALUATION.finish(page, good=good)


def _one(part: str, given: Any) -> dict[str, Any]:
    size = (given.one, given.images, given.classes)
    if part == "scores":
        return measure(*size, given.loop, given.device, given.threads)
    if part == "gates":
        return gates(*size, given.device, given.threads)
    listed = given.one <= given.listed
    return search(given.one, given.searched_images, given.classes, given.device, given.threads, listed)


def _of_scores(rows: Sequence[Mapping[str, Any]], given: Any) -> tuple[str, bool]:
    first = rows[0]
    largest = max(max(row["differences"].values()) for row in rows)
    good = first["seconds"] < LIMIT_S and first["peak_mib"] < LIMIT_MIB and largest <= EQUAL
    columns = ("families", "mixtures", "seconds", "CPU seconds", "peak MiB", "plain loop, s (scaled)", "ratio")
    cells = [
        (
            row["families"],
            f"{row['mixtures']:,}",
            f"{row['seconds']:.1f}",
            f"{row['cpu_s']:.1f}",
            f"{row['peak_mib']:.0f}",
            f"{row['plain_s']:.0f}",
            f"{row['plain_s'] / row['seconds']:.0f}",
        )
        for row in rows
    ]
    notes = [
        f"- Largest difference of any score to the plain loop on {first['sample']} mixtures: {largest:.1e}"
        f" (claim: at most {EQUAL:.0e}).",
        f"- Claim: {first['families']} families in under {LIMIT_S:.0f} s and {LIMIT_MIB:,} MiB:"
        f" {'holds' if good else 'does not hold'}.",
    ]
    return "\n\n".join([table(columns, cells, right=columns), "\n".join(notes)]), good


def _of_gates(rows: Sequence[Mapping[str, Any]], given: Any) -> tuple[str, bool]:
    columns = ("families", "gates", "seconds", "CPU seconds", "ms each", "peak MiB", "best gate", "best family")
    cells = [
        (
            row["families"],
            f"{row['mixtures']:,}",
            f"{row['seconds']:.0f}",
            f"{row['cpu_s']:.0f}",
            f"{1000 * row['seconds'] / row['mixtures']:.1f}",
            f"{row['peak_mib']:.0f}",
            f"{row['best']:.4f}",
            f"{row['best_single']:.4f}",
        )
        for row in rows
    ]
    text = "Each gate is trained on one half of the images and scored on the other, both ways."
    return "\n\n".join(["## A gate for every mixture", text, table(columns, cells, right=columns)]), True


def _of_search(rows: Sequence[Mapping[str, Any]], given: Any) -> tuple[str, bool]:
    columns = ("families", "mixtures", "seconds", "peak MiB", "best accuracy", f"best {TOP} found")
    cells = [
        (
            row["families"],
            f"{row['mixtures']:,}",
            f"{row['seconds']:.1f}",
            f"{row['peak_mib']:.0f}",
            f"{row['best']:.4f}",
            "-" if math.isnan(row["kept"]) else f"{row['kept']:.0%}",
        )
        for row in rows
    ]
    text = (
        f"A beam search by the mean of probabilities, {given.searched_images:,} images; the last column is the share of"
        f" the {TOP} best accuracies of the full listing that it reaches, where the pool was listed."
    )
    good = all(row["kept"] == 1 for row in rows if not math.isnan(row["kept"]))
    return "\n\n".join(["## Pools that are searched", text, table(columns, cells, right=columns)]), good


if __name__ == "__main__":
    raise SystemExit(main())
