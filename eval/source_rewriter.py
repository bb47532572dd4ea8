"""A model tuned on code by trained accuracies: regions of mixtures rewritten and trained, beside three other writers.

    python eval/source_rewriter.py [--parents 4] [--taught 8] [--lessons 140] [--changes 60] [--write]

Random plans on digits are trained on several seeds. Those of the first group are taught from: ``mutate`` and ``random``
rewrite their regions, every valid change is trained, and SmolLM2-135M-Instruct is tuned on the feedback set, in which a
child counts as good or bad where it differs from its parent by more than two standard errors. Rows of whole files
(``delta``) are included as far as the model's context holds them; the page says how many do. Then the tuned and the
untuned model, ``mutate`` and ``random`` rewrite the same regions of the second group, whose quartets are others, and
every valid new file is trained.

Power, stated before the run: with 60 changes a writer, two shares around one half differ visibly (two-sided 5 %, power
80 %) from 26 points on, n = 7.85 * 2 * p * (1 - p) / d^2.

Code is checked and trained in the sandbox (bubblewrap). Every proposal and every trial is stored in ``--work`` at once,
and each finished writer in ``eval/results/source_rewriter.json``, so a run that was killed is resumed.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from _page import RESULTS, Evaluation, note, table

from nngen.analysis.statistics import wilson
from nngen.archive import Archive, StoredTrial
from nngen.campaign.protocols import CampaignInputs, GivenCandidates, Suggestion
from nngen.campaign.runner import Campaign
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.datasets import load_dataset
from nngen.files import cache_dir, load_json, write_atomically
from nngen.lemur.source import open_lemur
from nngen.llm.finetuning.stored_set import META
from nngen.llm.proposals.evidence import noise_of, trained_candidates
from nngen.llm.proposals.log import Proposal
from nngen.llm.proposals.parents import Parent, new_candidates
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.propose import Proposer
from nngen.llm.rewriters.base import Options, Rewriter
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.surrogate.plan_text import CHOICES
from nngen.training import LocalEngine
from nngen.training.engine import Engine

EVALUATION = Evaluation(__file__, __doc__)
STORE = RESULTS / "source_rewriter.json"
WRITERS = ("tuned", "untuned", "mutate", "random")
LIGHT = ("AirNext", "ComplexNet", "DPN68", "ICNet", "MobileNetV3", "ShuffleNet", "SqueezeNet-1", "SqueezeNet-2")
FILE_LIMIT = 8192
"""Tokens of the model's context, which bounds rows of whole files."""

REGIONAL = {path: tuple(v for v in values if v) for path, values in CHOICES.items()}
"""Values of the plans: without zeros, with which a file lacks the region of a loss or an augmentation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all steps share."""

    given: argparse.Namespace
    spec: CampaignSpec
    inputs: CampaignInputs
    engine: Engine
    archive: Archive

    def proposer(self, rewriter: Rewriter, batch: str, **more: Any) -> Proposer:
        """Make the proposer of a batch."""
        return Proposer(
            archive=self.archive,
            rewriter=rewriter,
            engine=self.engine,
            inputs=self.inputs,
            spec=self.spec,
            batch=batch,
            note=note,
            **more,
        )

    def train(self, name: str, source: GivenCandidates) -> tuple[StoredTrial, ...]:
        """Train candidates as a campaign, or what is left of them."""
        if source.suggestions:
            spec = replace(self.spec, name=name, size=len(source.suggestions))
            Campaign(
                spec=spec,
                archive=self.archive,
                inputs=self.inputs,
                engine=self.engine,
                source=source,
                reveal=False,
            ).run()
        return self.archive.trials(name) if source.suggestions else ()


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, and print the page."""
    given = EVALUATION.arguments(
        argv,
        taught=(8, "mixtures whose changed regions the model learns from"),
        parents=(4, "mixtures whose regions are rewritten by every writer"),
        seeds=(3, "seeds that mixtures are trained on"),
        lessons=(140, "changes of the taught mixtures by mutate, and half as many by random"),
        changes=(60, "changes by each writer"),
        writers={"nargs": "+", "default": list(WRITERS), "choices": list(WRITERS), "help": "writers to run"},
        epochs=(1, "epochs of each training"),
        train_size=(400, "training images"),
        passes=(1.0, "passes of the tuning"),
        base=(Path, "model in place of SmolLM2-135M-Instruct"),
        store=(STORE, "file of the finished writers"),
        work=(cache_dir() / "eval" / "source_rewriter", "folder for the archive, the feedback set and the adapter"),
    )
    if shutil.which("bwrap") is None:
        EVALUATION.error("bubblewrap is needed: apt-get install bubblewrap")
    sizes = {name: getattr(given, name) for name in ("taught", "parents", "seeds", "lessons", "changes")}
    sizes |= {name: getattr(given, name) for name in ("epochs", "train_size", "passes")}
    stored: dict[str, Any] = json.loads(given.store.read_text()) if given.store.exists() else {"sizes": sizes}
    if stored["sizes"] != sizes:
        EVALUATION.error(f"{given.store} holds writers of other sizes: {stored['sizes']}")
    if missing := [name for name in given.writers if name not in stored]:
        work(given, stored, missing)
    given.store = given.work = given.base = None  # no path of this machine on the page
    done = [name for name in WRITERS if name in stored]
    return EVALUATION.finish(page(stored, done), good=len(done) == len(WRITERS))


def work(given: argparse.Namespace, stored: dict[str, Any], missing: Sequence[str]) -> None:
    """Train the mixtures, teach the model, and run each writer."""
    store = given.store
    given.work.mkdir(parents=True, exist_ok=True)
    dataset = load_dataset("digits")
    spec = CampaignSpec(
        name="mixtures", size=1, shape=dataset.default_shape, epochs=given.epochs, train_size=given.train_size
    )
    inputs = prepare_inputs(dataset, spec.shape, LIGHT, lemur=open_lemur())
    with LocalEngine() as engine, Archive.open(given.work / "source.db") as archive:
        bench = Bench(given=given, spec=spec, inputs=inputs, engine=engine, archive=archive)
        taught, others = drawn(bench)
        # The feedback set is built before a file of the second group is trained, so that none is learned.
        lessons(bench, mixtures(bench, "taught", taught))
        parents = mixtures(bench, "parents", others)
        for name in missing:
            note(name)
            rewriter = opened(bench, name, stored)
            rows = bench.proposer(rewriter, f"changes-{name}").regions(given.changes, parents, 0)
            trials = bench.train(f"changes-{name}", new_candidates(archive, rows))
            stored[name] = summary(rows, trials, [*archive.trials("taught"), *archive.trials("parents")])
            write_atomically(store, (json.dumps(stored, indent=1) + "\n").encode())


def drawn(bench: Bench) -> tuple[list[Suggestion], list[Suggestion]]:
    """Draw plans of different quartets that have every region, in two groups."""
    taught, number = bench.given.taught, bench.given.taught + bench.given.parents
    space = PlanSpace(families=tuple(sorted(bench.inputs.families)), choices=REGIONAL)
    rows = bench.proposer(Uniform(), "plans", space=space).plans(2 * number, (), 0)
    found: dict[tuple[str, ...], Suggestion] = {}
    for one in new_candidates(bench.archive, rows).suggestions:
        found.setdefault(one.plan.experts, one)
    chosen = list(found.values())[:number]
    if len(chosen) < number:
        EVALUATION.error(f"{number} different mixtures are wanted, and {len(chosen)} are there: ask for fewer")
    return chosen[:taught], chosen[taught:]


def mixtures(bench: Bench, name: str, chosen: Sequence[Suggestion]) -> list[Parent]:
    """Train a group on several seeds, and return those that could be trained."""
    seeds = range(bench.given.seeds)
    trials = bench.train(
        name, GivenCandidates(suggestions=tuple(replace(one, seed=seed) for one in chosen for seed in seeds))
    )
    found = trained_candidates(trials).items()
    return [Parent.of(bench.archive.candidate(one), row.accuracy) for one, row in found]


def lessons(bench: Bench, taught: Sequence[Parent]) -> None:
    """Change regions of the first group, train the changes, and build the feedback set."""
    from nngen.llm.finetuning.dataset import build_from_archive, counter

    given, batches = bench.given, []
    for writer, number in ((Mutate(), given.lessons), (Uniform(), given.lessons // 2)):
        batches.append(f"lessons-{writer.name}")
        rows = bench.proposer(writer, batches[-1]).regions(number, taught, 1)
        bench.train(batches[-1], new_candidates(bench.archive, rows))
    if not (given.work / "feedback").exists():
        build_from_archive(
            bench.archive,
            given.work / "feedback",
            count=counter(base_of(given)),
            tasks=["region", "delta"],
            batches=batches,
            file_limit=FILE_LIMIT,
        )


def base_of(given: argparse.Namespace) -> str:
    """Return the model."""
    from nngen.testing.tiny_model import fetch

    return str(given.base or fetch())


def opened(bench: Bench, name: str, stored: dict[str, Any]) -> Rewriter:
    """Open a writer; the tuned model is tuned first."""
    if name in ("mutate", "random"):
        return Mutate() if name == "mutate" else Uniform()
    from nngen.llm.finetuning.config import Tuning
    from nngen.llm.finetuning.finetune import finetune
    from nngen.llm.rewriters.transformers_local import Local

    given, base = bench.given, base_of(bench.given)
    if name == "untuned":
        return Local(base)
    tuning = Tuning(base=base, temper=0.5, epochs=given.passes, lr=1e-3, save_every=10, judged=16)
    tuned = finetune(tuning, given.work / "feedback", given.work / "tuned", note)
    meta = load_json(given.work / "feedback" / META)
    stored["tuning"] = {
        "before": tuned.before.loss,
        "after": tuned.after.loss,
        **{key: meta[key] for key in ("tasks", "dropped")},
        **{key: getattr(tuned, key) for key in ("rows", "updates", "seconds")},
    }
    return Local(base, Options(adapter=tuned.adapter))


def summary(
    rows: Sequence[Proposal], trials: Sequence[StoredTrial], unchanged: Sequence[StoredTrial]
) -> dict[str, Any]:
    """Count the changes of a writer at each stage, and those clearly better or worse than their parents."""
    noise = noise_of(unchanged)
    parents, children = trained_candidates(unchanged), trained_candidates(trials)
    gaps = [
        (
            children[row.candidate].accuracy - parents[row.parent].accuracy,
            noise.gap(parents[row.parent], children[row.candidate]),
        )
        for row in rows
        if row.new and row.candidate in children
    ]
    return {
        "asked": len(rows),
        "valid": sum(row.valid for row in rows),
        "new": sum(row.new for row in rows),
        "trained": len(gaps),
        "better": sum(gap > 1 for _, gap in gaps),
        "worse": sum(gap < -1 for _, gap in gaps),
        "gains": [round(gain, 4) for gain, _ in gaps],
        "noise": round(noise.sd, 5),
        "seconds": round(sum(row.seconds for row in rows), 1),
    }


def page(stored: Mapping[str, Any], done: Sequence[str]) -> str:
    """Return the page of the finished writers."""
    sizes = stored["sizes"]
    about = (
        f"Digits, {sizes['train_size']} images, {sizes['epochs']} epoch(s). {sizes['parents']} mixtures are rewritten,"
        f" {sizes['taught']} others were taught from, all trained on {sizes['seeds']} seeds. Intervals are Wilson's,"
        " 95 %, and shares those of the changes that were asked for."
    )
    lines = []
    for name in done:
        row = stored[name]
        shares = (_share(row[key], row["asked"]) for key in ("valid", "new", "better", "worse"))
        gain = f"{100 * fmean(row['gains']):+.2f}" if row["gains"] else "-"
        lines.append((name, row["asked"], *shares, gain, f"{row['seconds'] / max(row['asked'], 1):.1f}"))
    columns = ("writer", "asked", "valid", "new", "better", "worse", "mean gain, points", "seconds a change")
    seen = math.sqrt(7.85 * 0.5 / max(sizes["changes"], 1))
    blocks = [table(columns, lines)] if lines else ["No writer is done yet."]
    blocks.append(
        "`better` and `worse`: trained children that differ from their parent by more than two standard errors, by the"
        " deviation between seeds of the mixtures. Shares around one half differ visibly from"
        f" {100 * seen:.0f} points on."
    )
    if told := stored.get("tuning"):
        tasks = ", ".join(f"{count} {task}" for task, count in told["tasks"].items())
        blocks.append(
            f"Tuning: {tasks} rows ({told['dropped']['files']} whole files were over the limit of {FILE_LIMIT:,}"
            f" tokens), {told['updates']} updates in {told['seconds']:,.0f} s; held-out loss {told['before']:.3f} to"
            f" {told['after']:.3f} nats a token."
        )
    if len(done) == len(WRITERS):
        better = {name: wilson(stored[name]["better"], stored[name]["asked"]) for name in done}
        won = better["tuned"].low > max(better[name].high for name in done if name != "tuned")
        blocks.append(
            "The tuned model makes more better children than every other writer."
            if won
            else "**The tuned model does not make visibly more better children than every other writer.**"
        )
    return EVALUATION.page("Code rewritten by a model that was taught by accuracies", about, *blocks)


def _share(hits: int, tries: int) -> str:
    share = wilson(hits, tries)
    return f"{hits} of {tries} ({share.low:.0%} to {share.high:.0%})"


if __name__ == "__main__":
    sys.exit(main())
