"""``nngen llm-propose``: ask a rewriter for better mixtures, and say how far its proposals came."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.archive import Archive, StoredTrial
    from nngen.llm.bench import Ground
    from nngen.llm.proposals.log import Funnel, Proposal
    from nngen.llm.proposals.parents import Parent
    from nngen.llm.proposals.propose import Proposer
    from nngen.llm.rewriters.base import Rewriter

__all__ = ["llm_propose"]


def llm_propose(
    *,
    rewriter: str,
    kind: str = "plan",
    number: Annotated[int, Parameter(name=["--number", "-n"])] = 10,
    parent: str | None = None,
    from_top: int | None = None,
    region: str | None = None,
    train: bool = False,
    families: str | None = None,
    dataset: str = "digits",
    shape: str | None = None,
    epochs: int = 1,
    batch: int = 64,
    lr: float = 1e-3,
    device: str = "auto",
    threads: int = 1,
    adapter: Path | None = None,
    model: str = "",
    temperature: float = 1.0,
    repair: bool = False,
    seed: int = 0,
    name: str | None = None,
    data_root: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Ask a rewriter for better mixtures; check what it proposes, and train it if asked.

    Every proposal is kept with its lineage, whatever became of it; what repeats a candidate is refused
    before training. The same command again goes on where it stopped.

    Args:
        rewriter: random, mutate, a GGUF file, a folder, a hub id, or http://... of an OpenAI-compatible server.
        kind: plan (a new plan), region (new code for a part of a file) or file (a whole file).
        number: Proposals in all.
        parent: Id of the candidate to improve on, or its beginning.
        from_top: Improve on the best K in turn.
        region: Regions to write, separated by commas; all in turn by default.
        train: Train what is valid and new.
        families: The pool, separated by commas; every usable family by default.
        dataset: What is trained on; its shape and classes are checked with.
        shape: Channels, height and width, as 3x32x32; the data set's own by default.
        epochs: How often the training split is shown.
        batch: Samples per step.
        lr: Learning rate handed to the candidates.
        device: auto, cpu or cuda; for the model and for the candidates.
        threads: CPU threads of a candidate's worker.
        adapter: Folder of a tuned adapter, for a model in this process.
        model: The model's name, for a server.
        temperature: Of a model's draws; 0 takes the likeliest.
        repair: Ask once more, with the message, where a proposal failed.
        seed: Of every draw.
        name: Of this batch; made of rewriter, kind and seed by default.
        data_root: Where torchvision's files lie.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print funnel and proposals as JSON.

    Examples:
        nngen llm-propose --rewriter random --kind plan -n 8 --families ShuffleNet,MobileNetV3,ICNet,DPN68,AirNext
        nngen llm-propose --rewriter model.gguf --kind plan -n 8 --from-top 3 --train --json
        nngen llm-propose --rewriter mutate --kind region --region gate,mixing -n 20 --from-top 5
    """
    from nngen.archive import Archive, default_path
    from nngen.cli.progress import progress_bar
    from nngen.errors import UsageError
    from nngen.llm.bench import Fidelity, lay
    from nngen.llm.judging import require_sandbox
    from nngen.llm.rewriters.base import Kind
    from nngen.llm.rewriters.factory import entry_of, open_rewriter
    from nngen.training import pick_device
    from nngen.types import Shape

    if kind not in list(Kind):
        raise UsageError(f"no kind of proposal is called {kind!r}: there are {', '.join(Kind)}")
    if number < 1 or (from_top is not None and from_top < 1):
        raise UsageError("--number and --from-top must be at least 1")
    if parent is not None and from_top is not None:
        raise UsageError("--parent names one candidate and --from-top takes the best: give one of them")
    wanted = Shape.parse(shape) if shape else None
    pool = None if families is None else [item.strip() for item in families.split(",") if item.strip()]
    where = pick_device(device)
    fidelity = Fidelity(dataset=dataset, shape=wanted, epochs=epochs, batch=batch, lr=lr, device=where, threads=threads)
    with (
        Archive.open(archive or default_path()) as store,
        progress_bar("measuring families") as bar,
        lay(fidelity, pool, data_root=data_root, progress=bar) as ground,
    ):
        parents = _parents(store, ground, parent, from_top, Kind(kind))
        # Said before a model is loaded; the proposer says it again, of the rewriter itself.
        require_sandbox(rewriter, Kind(kind), ground.judge, trusted=entry_of(rewriter).trusted)
        writer = open_rewriter(rewriter, adapter=adapter, model=model, device=where)
        title = name or f"{writer.name}-{kind}-{seed}"
        proposer = _proposer(store, writer, ground, title, repair=repair, temperature=temperature)
        regions = [item.strip() for item in region.split(",")] if region else []
        held = _ask(proposer, Kind(kind), number, parents, regions, seed)
        funnel = _finish(store, title, held, ground, seed, train=train)
    _print(title, funnel, held, json=json)


def _parents(store: Archive, ground: Ground, parent: str | None, from_top: int | None, kind: Any) -> list[Parent]:
    """Find what is improved on; a plan may start from nothing."""
    from nngen.llm.proposals.parents import at_fidelity, named_parent, top_parents
    from nngen.llm.rewriters.base import Kind

    trials = at_fidelity(store.trials(), ground.judge.spec)
    if parent is not None:
        return [named_parent(store, parent, trials)]
    if from_top is None and kind is Kind.PLAN:
        return []
    return top_parents(store, trials, from_top or 1)


def _proposer(
    store: Archive, writer: Rewriter, ground: Ground, batch: str, *, repair: bool, temperature: float
) -> Proposer:
    from nngen.llm.prompts import estimate_tokens
    from nngen.llm.proposals.propose import Proposer

    def tell(proposal: Proposal) -> None:
        done = f"repeats {proposal.twin_of[:13]}" if proposal.twin else proposal.stage
        why = f": {proposal.fault or proposal.outcome}, {proposal.message[:80]}" if not proposal.valid else ""
        print(f"{batch} {proposal.index + 1}  {proposal.region or proposal.kind}  {done}{why}", file=sys.stderr)

    return Proposer(
        archive=store,
        rewriter=writer,
        judge=ground.judge,
        families=ground.families,
        batch=batch,
        count=getattr(writer, "tokens", estimate_tokens),
        repair=repair,
        temperature=temperature,
        watch=tell,
    )


def _ask(
    proposer: Proposer, kind: Any, number: int, parents: list[Parent], regions: list[str], seed: int
) -> tuple[Proposal, ...]:
    from nngen.llm.proposals.log import proposals
    from nngen.llm.proposals.parents import at_fidelity
    from nngen.llm.proposals.prompt_context import plan_values
    from nngen.llm.rewriters.base import Kind

    if kind is Kind.REGION:
        return proposer.regions(number, parents, seed, regions)
    if kind is Kind.FILE:
        return proposer.files(number, parents, seed)
    trials = at_fidelity(proposer.archive.trials(), proposer.judge.spec)
    failed = proposals(proposer.archive)
    starts = [(item.plan, item.accuracy) for item in parents if item.plan is not None]
    values = [plan_values(trials, proposer.space, failed=failed, parent=start) for start in starts]
    return proposer.plans(number, values or plan_values(trials, proposer.space, failed=failed), parents, seed)


def _finish(
    store: Archive, batch: str, held: tuple[Proposal, ...], ground: Ground, seed: int, *, train: bool
) -> Funnel:
    from nngen.llm.proposals.log import funnel
    from nngen.llm.training import train_proposals, trained_funnel

    def tell(trial: StoredTrial) -> None:
        result = "failed" if trial.validation_accuracy is None else f"{trial.validation_accuracy:.4f}"
        print(f"{batch} trained {', '.join(trial.experts)}  {result}", file=sys.stderr)

    if not train:
        return funnel(held)
    train_proposals(store, batch, held, ground.judge, ground.families, seed, tell)
    return trained_funnel(store, batch, held, ground.judge)


def _print(batch: str, funnel: Funnel, held: tuple[Proposal, ...], *, json: bool) -> None:
    from dataclasses import asdict

    from nngen.llm.proposals.log import to_row

    rows = [to_row(proposal) for proposal in held]
    if json:
        print_json({"batch": batch, "funnel": asdict(funnel), "proposals": rows})
        return
    print_table([asdict(funnel)], list(asdict(funnel)))
    failed = [row for row in rows if not row["new"]]
    if failed:
        print_table(failed, ("index", "region", "stage", "fault", "outcome", "twin", "message"))
    print(f"batch {batch}")
