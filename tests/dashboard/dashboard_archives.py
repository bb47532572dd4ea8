"""Archives for tests of the dashboard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nngen.archive import Archive
from nngen.isolation import Isolation
from nngen.lemur.layout import nn_id
from nngen.llm.proposals.log import Proposal, Stage, record
from nngen.llm.rewriters.base import Kind
from nngen.plan import Plan
from nngen.testing.fakes import FakeEngine, fake_campaign, fake_dataset, fake_inputs
from nngen.training.engine import TrainJob
from nngen.types import Candidate, Outcome

TOKEN = "a-token"
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


def fill(path: Path) -> None:
    """Make an archive with failures, rungs, finalists, plans that differ, proposals, and hostile names."""
    with Archive.open(path) as archive:
        ladder = {"size": 9, "epochs": 6, "rungs": (2, 6), "finalists": 1, "replicates": 3}
        fake_campaign(archive, name="ladder", **ladder).run()
        fake_campaign(archive, name=HOSTILE, size=60, inputs=fake_inputs(["=1+1", "<b>Y</b>", *"CDEFGH"])).run()
        fake_campaign(archive, name="again", size=12, seed=3).run()
        fake_campaign(archive, name="long", size=2, epochs=3).run()
        _propose(archive)
        inputs = fake_inputs(left_out={"<b>X": "needs </script> channels"})
        engine = FakeEngine(checks={"A": Outcome.SHAPE}, trials={"B": Outcome.TIMEOUT})
        # Last, since what failed once is not checked or trained again.
        fake_campaign(archive, name="full", size=35, inputs=inputs, engine=engine).run()


def _propose(archive: Archive) -> None:
    """Add proposals that change numbers of their parents' plans, each the parent of the next, and train them."""
    first = next(trial for trial in archive.trials("again") if trial.trained)
    plans = [first.plan]
    for width in (16, 48, 64):
        plans.append(replace(plans[-1], gate=replace(plans[-1].gate, width=width, noise=width / 100)))
    fake_campaign(archive, name="proposed", size=1).run()
    archive.add_trials("proposed", plans[1:])
    parent = first.candidate_id or ""
    for index, trial in enumerate(archive.trials("proposed")[1:]):
        candidate = _assembled(trial.plan)
        archive.add_candidate(candidate)
        archive.start_trial(trial.id)
        assert first.spec is not None
        job = TrainJob(candidate=candidate, spec=first.spec, dataset=fake_dataset(), isolation=Isolation.PROCESS)
        result = FakeEngine().train(job)
        archive.finish_trial(trial.id, replace(result, data_fingerprint=first.data_fingerprint))
        row = Proposal(
            batch="proposed",
            index=index,
            rewriter="mutate",
            kind=Kind.PLAN,
            parent=parent,
            stage=Stage.CHECKED,
            outcome=Outcome.VALID,
            candidate=candidate.id,
            text=HOSTILE,
        )
        record(archive, row)
        parent = candidate.id


def _assembled(plan: Plan) -> Candidate:
    source = f"PLAN = {plan.to_dict()!r}\n"
    return Candidate(id=f"MoE4-{nn_id(source)}", source=source, canonical=nn_id(source), plan=plan)
