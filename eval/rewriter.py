"""What a small model writes: plans under the grammar, regions before and after tuning, beside two baselines.

1. A corpus: regions of real assembled files, changed by ``mutate`` and ``random`` and checked by the engine.
2. The feedback set of that archive, and SmolLM2-135M-Instruct tuned on it (SFT, LoRA).
3. Plans: the untuned model, ``random`` and ``mutate``; share parsed, share valid, share new, seconds each.
4. Regions of files whose quartets and plans the corpus does not hold: the untuned model, the tuned one, ``random``
   and ``mutate``. What a model wrote is checked in the sandbox (bubblewrap).

Each step is kept under --work and not done again.

    python eval/rewriter.py [--corpus 420] [--plans 50] [--regions 56] [--threads 2] [--work FOLDER] [--write]
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import torch

from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.llm.baselines import Mutate, Uniform
from nngen.llm.bench import Fidelity, Ground, lay
from nngen.llm.feedback import build_from_archive, counter
from nngen.llm.finetune import finetune
from nngen.llm.intervals import share_interval
from nngen.llm.knowledge import plan_values
from nngen.llm.lineage import Proposal, funnel
from nngen.llm.local import Local
from nngen.llm.plans import PlanSpace
from nngen.llm.propose import Parent, Proposer
from nngen.llm.regions import REGIONS
from nngen.llm.rewriter import Rewriter
from nngen.llm.smollm import fetch
from nngen.llm.tuning import Tuning
from nngen.paths import cache_dir

OUT = Path(__file__).parent / "results" / "rewriter.json"
LIGHT = (
    "ComplexNet",
    "DPN107",
    "DPN131",
    "DPN68",
    "Diffuser",
    "ICNet",
    "MobileNetV3",
    "ShuffleNet",
    "SqueezeNet-1",
    "SqueezeNet-2",
)
PARENTS = 12


def main() -> None:
    """Run every step that is not done yet, print what came of it, and write it if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("corpus", 420), ("plans", 50), ("regions", 56), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--work", type=Path, default=cache_dir() / "eval" / "rewriter")
    parser.add_argument("--write", action="store_true", help=f"write {OUT.name}")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    base = str(fetch())
    tuning = Tuning(base=base, epochs=given.epochs, accumulate=4, lr=6e-4, save_every=10, judged=10)
    with lay(Fidelity(), LIGHT) as ground, Archive.open(given.work / "corpus.db") as archive:
        learned = _parents(ground, archive, 1, frozenset())
        corpus = {
            writer.name: _told(_propose(archive, writer, ground, f"corpus-{writer.name}", learned, given.corpus))
            for writer in (Mutate(), Uniform())
        }
        # Built before anything is proposed for the held-out files, so none of it can be learned.
        if not (given.work / "feedback").exists():
            build_from_archive(archive, given.work / "feedback", count=counter(base), tasks=["region"])
        seen = frozenset("+".join(parent.plan.experts) for parent in learned if parent.plan)
        # Every region of each of these parents is asked for once.
        held_out = _parents(ground, archive, 2, seen)[: max(given.regions // len(REGIONS), 1)]
        plain = Local(base)
        plans = {
            writer.name: _told(_plans(archive, writer, ground, given.plans)) for writer in (plain, Uniform(), Mutate())
        }
        before = _told(_propose(archive, plain, ground, "regions-untuned", held_out, given.regions))
        del plain
        tuned = finetune(tuning, given.work / "feedback", given.work / "tuned", _say)
        regions = {"untuned": before}
        for name, writer in (("tuned", Local(base, tuned.adapter)), ("random", Uniform()), ("mutate", Mutate())):
            regions[name] = _told(_propose(archive, writer, ground, f"regions-{name}", held_out, given.regions))
    result = {
        "command": f"python eval/rewriter.py {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}",
        "model": Path(base).name,
        "corpus": corpus,
        "tuning": {
            "examples": tuned.rows,
            "updates": tuned.updates,
            "seconds": round(tuned.seconds),
            "loss": [round(tuned.before.loss, 4), round(tuned.after.loss, 4)],
            "token_accuracy": [round(tuned.before.token_accuracy, 4), round(tuned.after.token_accuracy, 4)],
        },
        "plans": plans,
        "regions": regions,
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if given.write:
        OUT.write_text(text, encoding="utf-8")


def _parents(ground: Ground, archive: Archive, seed: int, seen: frozenset[str]) -> list[Parent]:
    """Assemble plans that have every region, of quartets that were not seen."""
    space, rng, assembler = PlanSpace(families=tuple(sorted(ground.families))), Random(seed), Assembler()
    found: dict[str, Parent] = {}
    while len(found) < PARENTS:
        plan = space.draw(rng)
        name = "+".join(plan.experts)
        if name in seen or name in found or not (plan.losses.balance > 0 and plan.recipe.mixup > 0):
            continue
        candidate = assembler.assemble(plan, [ground.families[expert] for expert in plan.experts])
        for expert in plan.experts:
            archive.add_family(ground.families[expert][0])
        archive.add_candidate(candidate, {e: ground.families[e][0].fingerprint for e in plan.experts})
        found[name] = Parent(id=candidate.id, source=candidate.source, plan=plan)
    return list(found.values())


def _propose(
    archive: Archive, writer: Rewriter, ground: Ground, batch: str, parents: Sequence[Parent], number: int
) -> tuple[Proposal, ...]:
    _say(batch)
    return _proposer(archive, writer, ground, batch).regions(number, parents, 0)


def _plans(archive: Archive, writer: Rewriter, ground: Ground, number: int) -> tuple[Proposal, ...]:
    _say(f"plans of {writer.name}")
    proposer = _proposer(archive, writer, ground, f"plans-{writer.name}")
    return proposer.plans(number, plan_values((), proposer.space), (), 0)


def _proposer(archive: Archive, writer: Rewriter, ground: Ground, batch: str) -> Proposer:
    return Proposer(archive=archive, rewriter=writer, judge=ground.judge, families=ground.families, batch=batch)


def _told(held: Sequence[Proposal]) -> Mapping[str, Any]:
    """Sum a batch up: how far it came, with Wilson's intervals, what failed, and what it cost."""
    counted = funnel(held)
    faults: dict[str, int] = {}
    for row in held:
        if not row.valid:
            name = str(row.fault or row.outcome)
            faults[name] = faults.get(name, 0) + 1
    by_region: dict[str, list[int]] = {}
    for row in held:
        tally = by_region.setdefault(row.region or "plan", [0, 0])
        tally[0] += row.valid
        tally[1] += 1
    return {
        "asked": counted.asked,
        "parsed": counted.parsed,
        "valid": counted.checked,
        "valid_share": _share(counted.checked, counted.asked),
        "new": counted.new,
        "new_share_of_valid": _share(counted.new, counted.checked),
        "failures": dict(sorted(faults.items())),
        "valid_of_asked_by_region": {name: f"{good} of {all_}" for name, (good, all_) in by_region.items()},
        "seconds_a_proposal": round(sum(row.seconds for row in held) / max(len(held), 1), 2),
        "seconds_a_check": round(sum(row.check_seconds for row in held) / max(len(held), 1), 2),
        "reply_tokens": round(sum(row.reply_tokens for row in held) / max(len(held), 1)),
    }


def _share(hits: int, trials: int) -> list[float]:
    """Give a share with its 95 % interval."""
    low, high = share_interval(hits, trials)
    return [round(value, 4) for value in (hits / max(trials, 1), low, high)]


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if shutil.which("bwrap") is None:
        sys.exit("bubblewrap is needed: apt-get install bubblewrap")
    main()
