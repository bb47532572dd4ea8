"""Proposals of a small model: plans under the grammar, regions before and after tuning, beside two baselines.

Steps, in this order; ``--until`` stops after one of them, so that each can be a separate job:

``corpus``     regions of assembled files, changed by ``mutate`` and ``random`` and checked by the engine;
``plans``      plans by the untuned model, ``random`` and ``mutate``;
``untuned``    regions by the untuned SmolLM2-135M-Instruct, of files whose quartets are not in the corpus;
``tuning``     fine-tuning of the model on the corpus's feedback set (SFT, LoRA);
``tuned``      the same regions by the tuned model, ``random`` and ``mutate``.

Code by a model is checked in the sandbox (bubblewrap). Results are stored under ``--work`` as soon as they are known,
so a run that was killed can be resumed. Exit code 1 if a claim of the page is not met.

    python eval/rewriter.py [--corpus 840] [--plans 50] [--regions 56] [--threads 2] [--until STEP] [--write]
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import torch
from _page import Evaluation, note, table

from nngen.analysis.statistics import wilson
from nngen.archive import Archive
from nngen.assembly.assemble import Assembler
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.setup import prepare_inputs
from nngen.campaign_spec import CampaignSpec
from nngen.datasets import load_dataset
from nngen.families.near_duplicates import SAME_CODE, similarity, tree_shingles
from nngen.files import cache_dir
from nngen.lemur.source import open_lemur
from nngen.llm.finetuning.config import Tuning
from nngen.llm.finetuning.dataset import build_from_archive, counter
from nngen.llm.finetuning.finetune import ADAPTER, NOTE, Tuned, finetune
from nngen.llm.finetuning.held_out import HeldOut
from nngen.llm.finetuning.stored_set import read_view
from nngen.llm.proposals.log import Proposal, Stage, proposals
from nngen.llm.proposals.parents import Parent
from nngen.llm.proposals.parsing import python_block
from nngen.llm.proposals.plan_space import PlanSpace
from nngen.llm.proposals.propose import Proposer
from nngen.llm.proposals.regions import REGIONS, find
from nngen.llm.rewriters.base import Options, Reply, Request, Rewriter
from nngen.llm.rewriters.baselines import Mutate, Uniform
from nngen.llm.rewriters.mutations import skeleton
from nngen.llm.rewriters.transformers_local import Local
from nngen.testing.tiny_model import fetch
from nngen.training import LocalEngine

EVALUATION = Evaluation(__file__, __doc__)
STEPS = ("corpus", "plans", "untuned", "tuning", "tuned")
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
PARENTS = 24
TIMES_UNTUNED = 3.0
LEAST_TUNED = 0.5
LEAST_PLANS = 0.98
LEAST_EXAMPLES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Models, data and files of all steps.

    Attributes:
        learned: Files whose regions the corpus changes.
        held_out: Files of other quartets.
    """

    given: argparse.Namespace
    base: str
    spec: CampaignSpec
    inputs: CampaignInputs
    engine: LocalEngine
    archive: Archive
    learned: Sequence[Parent]
    held_out: Sequence[Parent]


class Clocked:
    """Rewriter that also measures the seconds of reading the prompts, by requesting one token per chunk first."""

    trusted = False

    def __init__(self, model: Local, name: str, notes: Path) -> None:
        self.name, self._model, self._notes = name, model, notes

    def propose(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer each request, and record the seconds of reading."""
        start = time.perf_counter()
        self._model.propose([replace(request, max_tokens=1) for request in requests])
        seconds = time.perf_counter() - start
        replies = self._model.propose(requests)
        with self._notes.open("a") as file:
            entry = {"writer": self.name, "kind": requests[0].kind, "requests": len(requests), "seconds": seconds}
            file.write(json.dumps(entry) + "\n")
        return replies


def main(argv: Sequence[str] | None = None) -> int:
    """Run the remaining steps, print the page, and write it if requested."""
    given = EVALUATION.arguments(
        argv,
        corpus=840,
        plans=50,
        regions=56,
        threads=2,
        epochs=1.0,
        lr=1e-3,
        work=(cache_dir() / "eval" / "rewriter", "folder for archives, feedback and adapters"),
        adapter=(Path, "folder of an earlier tuning to evaluate instead of tuning one"),
        learned=(Path, "with --adapter: the feedback set that it was tuned on"),
        until={"choices": STEPS, "default": STEPS[-1], "help": "stop after this step"},
    )
    if (given.adapter is None) != (given.learned is None):
        EVALUATION.error("--adapter and --learned go together")
    if shutil.which("bwrap") is None:
        EVALUATION.error("bubblewrap is needed: apt-get install bubblewrap")
    torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    wanted = STEPS[: STEPS.index(given.until) + 1]
    dataset = load_dataset("digits")
    spec = CampaignSpec(name="trials", size=1, shape=dataset.default_shape)
    inputs = prepare_inputs(dataset, spec.shape, LIGHT, lemur=open_lemur())
    with LocalEngine() as engine, Archive.open(given.work / "corpus.db") as archive:
        learned = _parents(inputs, archive, 1, PARENTS, frozenset())
        seen = frozenset("+".join(parent.plan.experts) for parent in learned if parent.plan)
        # Every region of each of these parents is requested once.
        held_out = _parents(inputs, archive, 2, max(given.regions // len(REGIONS), 1), seen)
        bench = Bench(
            given=given,
            base=str(fetch()),
            spec=spec,
            inputs=inputs,
            engine=engine,
            archive=archive,
            learned=learned,
            held_out=held_out,
        )
        tuned = None
        for step in wanted:
            note(step)
            tuned = DO[step](bench)
        if given.until != STEPS[-1] and not given.write:
            return 0
        page, missed = _page(bench, tuned)
    return EVALUATION.finish(page, good=not missed)


def _corpus(bench: Bench) -> None:
    """Change regions without a model: ``mutate`` follows the prompt, ``random`` adds rarer changes."""
    for writer, number in ((Mutate(), bench.given.corpus), (Uniform(), bench.given.corpus // 2)):
        _proposer(bench, writer, f"corpus-{writer.name}").regions(number, bench.learned, 0)
    folder = _feedback(bench)
    if not folder.exists():
        # From the corpus alone, so that proposals for the held-out files are not learned.
        batches = ("corpus-mutate", "corpus-random")
        build_from_archive(bench.archive, folder, count=counter(bench.base), tasks=["region"], batches=batches)


def _feedback(bench: Bench) -> Path:
    found: Path = bench.given.learned or bench.given.work / "feedback"
    return found


def _tag(bench: Bench) -> str:
    """Return the tag of the tuned model, which differs from that of an earlier one."""
    return "tuned" if bench.given.adapter is None else "earlier"


def _held(bench: Bench, batch: str, number: int) -> bool:
    """Return whether a batch is complete, so that no model has to be loaded for it."""
    return len(proposals(bench.archive, batch)) >= number


def _plans(bench: Bench) -> None:
    if _held(bench, "plans-mutate", bench.given.plans):
        return
    for writer in (Clocked(Local(bench.base), "untuned", bench.given.work / "clock.jsonl"), Uniform(), Mutate()):
        proposer = _proposer(bench, writer, f"plans-{writer.name}")
        proposer.plans(bench.given.plans, (), 0)


def _untuned(bench: Bench) -> None:
    if not _held(bench, "regions-untuned", bench.given.regions):
        _regions(bench, Clocked(Local(bench.base), "untuned", bench.given.work / "clock.jsonl"))


def _tune(bench: Bench) -> Tuned:
    given = bench.given
    if given.adapter is not None:
        told = json.loads((given.adapter / NOTE).read_text(encoding="utf-8"))["result"]
        before, after = HeldOut(**told["before"]), HeldOut(**told["after"])
        return Tuned(**{**told, "adapter": given.adapter / ADAPTER, "before": before, "after": after})
    # The table of changes is long for the gate and short for the step. Without tempering the gate has a third of all
    # examples and the step a fiftieth, although every region is requested equally often.
    tuning = Tuning(
        base=bench.base, temper=0.5, epochs=given.epochs, accumulate=4, lr=given.lr, save_every=10, judged=10
    )
    return finetune(tuning, _feedback(bench), given.work / "tuned", note)


def _tuned(bench: Bench) -> Tuned:
    tuned = _tune(bench)
    tag = _tag(bench)
    if not _held(bench, f"regions-{tag}", bench.given.regions):
        writer = Local(bench.base, Options(adapter=tuned.adapter))
        _regions(bench, Clocked(writer, tag, bench.given.work / "clock.jsonl"))
    for writer in (Uniform(), Mutate()):
        _regions(bench, writer)
    return tuned


def _regions(bench: Bench, writer: Rewriter) -> None:
    """Request regions of the held-out files."""
    _proposer(bench, writer, f"regions-{writer.name}").regions(bench.given.regions, bench.held_out, 0)


def _proposer(bench: Bench, writer: Rewriter, batch: str) -> Proposer:
    return Proposer(
        archive=bench.archive,
        rewriter=writer,
        engine=bench.engine,
        inputs=bench.inputs,
        spec=bench.spec,
        batch=batch,
    )


def _parents(inputs: CampaignInputs, archive: Archive, seed: int, number: int, seen: frozenset[str]) -> list[Parent]:
    """Assemble plans with every region, of quartets that the corpus does not contain."""
    space, rng, assembler = PlanSpace(families=tuple(sorted(inputs.families))), Random(seed), Assembler()
    found: dict[str, Parent] = {}
    while len(found) < number:
        plan = space.draw(rng)
        name = "+".join(plan.experts)
        if name in seen or name in found or not (plan.losses.balance > 0 and plan.recipe.mixup > 0):
            continue
        candidate = assembler.assemble(plan, [inputs.families[expert] for expert in plan.experts])
        for expert in plan.experts:
            archive.add_family(inputs.families[expert][0])
        archive.add_candidate(candidate, {e: inputs.families[e][0].fingerprint for e in plan.experts})
        found[name] = Parent(id=candidate.id, source=candidate.source, plan=plan)
    return list(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Novelty:
    """Novelty of the valid regions of one rewriter with respect to the feedback set.

    Attributes:
        valid: Number of valid regions.
        other: Number of these that differ from every learned answer as syntax trees.
        far: Number whose similarity to every learned answer of the region is below ``SAME_CODE``.
        own: Number that no change of the baselines' table can produce.
    """

    valid: int
    other: int
    far: int
    own: int


def _novelty(bench: Bench, held: Sequence[Proposal]) -> Novelty:
    answers: dict[str, list[str]] = {}
    for row in read_view(_feedback(bench), "sft", "train"):
        code = python_block(row["messages"][-1]["content"])
        answers.setdefault(_name(code), []).append(code)
    sources = {parent.id: parent.source for parent in bench.held_out}
    valid = [row for row in held if row.valid]
    other = far = own = 0
    for row in valid:
        learned = answers.get(_name(row.written), [])
        mine = tree_shingles(row.written)
        other += all(ast.dump(ast.parse(row.written)) != ast.dump(ast.parse(code)) for code in learned)
        far += all(similarity(mine, tree_shingles(code)) < SAME_CODE for code in learned)
        own += skeleton(row.written) != skeleton(find(sources[row.parent], row.region))
    return Novelty(valid=len(valid), other=other, far=far, own=own)


def _name(code: str) -> str:
    return str(getattr(ast.parse(code).body[0], "name", ""))


def _page(bench: Bench, tuned: Tuned | None) -> tuple[str, list[str]]:
    """Write the page of the finished steps, and list the claims that are not met."""
    every = {batch: proposals(bench.archive, batch) for batch in _batches(_tag(bench))}
    held = {batch: rows for batch, rows in every.items() if rows}
    claims = _claims(held, tuned, _tag(bench))
    missed = [name for name, met in claims if not met]
    about = (
        f"{Path(bench.base).name} (135 million weights) on {platform.machine()}, "
        f"{bench.given.threads} CPU thread(s), torch {torch.__version__}; data set digits, shape "
        f"{bench.spec.shape}. Intervals are Wilson's, 95 %."
    )
    page = EVALUATION.page(
        "The rewriter",
        about,
        *_funnels(held),
        _reasons(held),
        *_by_region(held),
        *_news(bench, held),
        *_lesson(bench, tuned),
        *_clockwork(bench, held),
        "## Claims",
        [f"- {'met' if met else 'NOT MET'}: {name}" for name, met in claims],
    )
    return page, missed


def _batches(tag: str) -> tuple[str, ...]:
    plans = tuple(f"plans-{name}" for name in ("untuned", "random", "mutate"))
    return (*plans, *(f"regions-{name}" for name in ("untuned", tag, "random", "mutate")))


def _claims(held: dict[str, tuple[Proposal, ...]], tuned: Tuned | None, tag: str) -> list[tuple[str, bool]]:
    plans = held.get("plans-untuned", ())
    before, after = (_valid(held.get(f"regions-{name}", ())) for name in ("untuned", tag))
    parsed = sum(row.reached(Stage.PARSED) for row in plans)
    claims = [
        (f"all plans parse: {parsed} of {len(plans)}", parsed == len(plans)),
        (f"at least {LEAST_PLANS:.0%} of the plans pass all checks: {_valid(plans):.1%}", _valid(plans) >= LEAST_PLANS),
    ]
    if tuned is None or f"regions-{tag}" not in held:
        return [*claims, ("the tuned model's regions are not measured yet", False)]
    return [
        *claims,
        (f"tuned on at least {LEAST_EXAMPLES} examples: {tuned.rows}", tuned.rows >= LEAST_EXAMPLES),
        (f"at least {LEAST_TUNED:.0%} of the tuned model's regions are valid: {after:.1%}", after >= LEAST_TUNED),
        (
            f"tuned at least {TIMES_UNTUNED:g} times untuned: {after:.1%} beside {before:.1%}",
            after >= TIMES_UNTUNED * before,
        ),
    ]


def _valid(held: Sequence[Proposal]) -> float:
    return sum(row.valid for row in held) / max(len(held), 1)


def _funnels(held: dict[str, tuple[Proposal, ...]]) -> list[str]:
    columns = ("kind, writer", "asked", "parsed", "applied", "valid", "share valid", "new of the valid")
    cells = []
    for batch, rows in held.items():
        valid, new = sum(row.valid for row in rows), sum(row.new for row in rows)
        reached = [sum(row.reached(stage) for row in rows) for stage in (Stage.PARSED, Stage.APPLIED)]
        shares = (_share(valid, len(rows)), _share(new, valid))
        checking = _mean([row.check_seconds for row in rows if row.reached(Stage.APPLIED)])
        seconds = (f"{_mean([row.seconds for row in rows]):.2f}", f"{checking:.2f}")
        cells.append((batch.replace("-", ", "), len(rows), *reached, valid, *shares, *seconds))
    return [
        table((*columns, "s writing", "s checking"), cells),
        "Seconds are per proposal; to check, per proposal that could be applied. No repair turn was used.",
    ]


def _reasons(held: dict[str, tuple[Proposal, ...]]) -> list[str]:
    """Return the reasons of failed regions."""
    lines = ["Why regions failed:", ""]
    for batch, rows in held.items():
        why = Counter(str(row.fault or row.outcome) for row in rows if not row.valid)
        if batch.startswith("regions-"):
            said = ", ".join(f"{name} {number}" for name, number in why.most_common()) or "none did"
            lines.append(f"- {batch.removeprefix('regions-')}: {said}")
    return lines


def _by_region(held: dict[str, tuple[Proposal, ...]]) -> list[str]:
    writers = [batch for batch in held if batch.startswith("regions-")]
    cells = []
    for region in REGIONS:
        rows = [[row for row in held[writer] if row.region == region] for writer in writers]
        cells.append((region, *(f"{sum(row.valid for row in asked)} of {len(asked)}" for asked in rows)))
    return [
        "Valid of those asked, by region:",
        table(("region", *(w.removeprefix("regions-") for w in writers)), cells),
    ]


def _news(bench: Bench, held: dict[str, tuple[Proposal, ...]]) -> list[str]:
    about = (
        "How new the valid regions are, beside the answers of the training set: `other` differ from every one of"
        f" them, `far` are under {SAME_CODE} similar (renamed shingles) to every one, `own` hold a change that the"
        " baselines' table cannot write."
    )
    cells = []
    for batch in (name for name in held if name.startswith("regions-")):
        news = _novelty(bench, held[batch])
        shares = (_share(number, news.valid) for number in (news.other, news.far, news.own))
        cells.append((batch.removeprefix("regions-"), news.valid, *shares))
    return [about, table(("writer", "valid", "other", "far", "own"), cells)]


def _lesson(bench: Bench, tuned: Tuned | None) -> list[str]:
    corpus = [row for name in ("mutate", "random") for row in proposals(bench.archive, f"corpus-{name}")]
    about = (
        f"The corpus: {len(corpus)} changed regions of {len(bench.learned)} assembled files,"
        f" {sum(row.valid for row in corpus)} valid. The held-out files are of {len(bench.held_out)} other quartets;"
        " their code is the same template's, so where a plan's numbers do not enter a region, its text was seen."
    )
    if tuned is None:
        return [about, "Tuning: not done yet."]
    told = json.loads((tuned.adapter.parent / NOTE).read_text(encoding="utf-8"))["tuning"]
    before, after = tuned.before, tuned.after
    tuning = (
        f"Tuning: SFT, LoRA rank {told['rank']}, {tuned.rows} different examples, shares of the regions to the"
        f" power of {told.get('temper', 1.0):g}, {told['epochs']:g} epoch(s), {tuned.updates} updates of"
        f" {told['accumulate']}, rate {told['lr']:g}, {tuned.seconds:,.0f} s (parts of it may"
        f" have had other numbers of threads); held-out loss {before.loss:.3f} to {after.loss:.3f} nats a token,"
        f" tokens right {before.token_accuracy:.1%} to {after.token_accuracy:.1%} ({after.rows} rows)."
    )
    if bench.given.adapter is None:
        return [about, tuning]
    views = (row for split in ("train", "validation") for row in read_view(bench.given.learned, "sft", split))
    quartets = {row["group"] for row in views}
    shared = quartets & {"+".join(sorted(parent.plan.experts)) for parent in bench.held_out if parent.plan}
    earlier = (
        "**This adapter was not tuned by this command.** It is of an earlier run of the same steps, on a feedback"
        f" set of its own (fingerprint {tuned.fingerprint[:12]}) from earlier templates; {len(shared)} of"
        f" the {len(bench.held_out)} held-out quartets are among the {len(quartets)} that it learned from. Its seconds"
        " hold pauses."
    )
    return [about, tuning, earlier]


def _clockwork(bench: Bench, held: dict[str, tuple[Proposal, ...]]) -> list[str]:
    """Return rows of the seconds of reading the prompt, writing the reply, and checking."""
    notes = [json.loads(line) for line in (bench.given.work / "clock.jsonl").read_text().splitlines()]
    cells = []
    for kind, writer in (("plan", "untuned"), ("region", "untuned"), ("region", _tag(bench))):
        batch = f"{kind}s-{writer}"
        if batch not in held:
            continue
        rows, mine = held[batch], [entry for entry in notes if (entry["kind"], entry["writer"]) == (kind, writer)]
        read = sum(entry["seconds"] for entry in mine) / max(sum(entry["requests"] for entry in mine), 1)
        write = _mean([row.seconds for row in rows]) - read
        check = _mean([row.check_seconds for row in rows if row.reached(Stage.APPLIED)])
        tokens = f"{_mean([row.reply_tokens for row in rows]):.0f}"
        cells.append((batch.replace("-", ", "), f"{read:.2f}", f"{write:.2f}", tokens, f"{check:.2f}"))
    return ["Seconds per proposal:", table(("what", "read", "write", "tokens written", "check"), cells)]


def _share(hits: int, trials: int) -> str:
    if not trials:
        return "none"
    share = wilson(hits, trials)
    return f"{hits / trials:.1%} ({share.low:.1%} to {share.high:.1%})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


DO: Mapping[str, Callable[[Bench], Tuned | None]] = {
    "corpus": _corpus,
    "plans": _plans,
    "untuned": _untuned,
    "tuning": _tune,
    "tuned": _tuned,
}


if __name__ == "__main__":
    sys.exit(main())
