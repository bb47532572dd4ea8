"""Models of other people as experts: LEMUR's, drawn by kind, and files in the styles of public repositories.

    python eval/any_model.py --models 1000            # resumes from eval/results/any_model.json
    python eval/any_model.py --models 1000 --write    # and writes the page

Each source is proven as by ``nngen check --family``, in a process of its own: at 3x64x64 as it is, and where that
fails, at 3x32x32 with the search for the sizes that it accepts. Of those that join, every file and every fourth model
is assembled with ShuffleNet into a mixture, which is checked as by ``nngen check``. A model that is refused is run
alone, which tells what cannot run at all from what runs and may not join.

A fault is a family that joins and whose mixture is not valid, a file whose answer is not the expected one, or a worker
without an answer. Exit code 1 for a fault.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from _any_model_files import JOIN, STAND
from _any_model_styles import MORE_JOIN, MORE_STAND
from _page import RESULTS, Evaluation, note, table

from nngen.assembly.assemble import Assembler
from nngen.errors import NngenError
from nngen.families import probe
from nngen.families.catalogue import load_families, make_family
from nngen.families.probe import PRELOAD, Probe
from nngen.families.profile import Answer
from nngen.isolation import Isolation, JobRunner
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.text import decode_python
from nngen.training import CheckJob, LocalEngine
from nngen.types import Family, Interface, Shape

FIRST, SHAPE = Shape(3, 64, 64), Shape(3, 32, 32)
STORE = RESULTS / "any_model.json"
PARTNER = "ShuffleNet"
EVERY = 4
SIDES = (64, 224)
LIMITS = ("took longer", "needs more")
"""Beginnings of the reasons of models that need more time or memory than this evaluation gives them."""

SECONDS = 40.0
FILES = "files of this evaluation"
JOINING: dict[str, str | bytes] = {**JOIN, **MORE_JOIN}
STANDING = {**STAND, **MORE_STAND}
EVALUATION = Evaluation(__file__, __doc__)
JOINED, REFUSED, BROKEN, FAULT = "joined", "refused", "cannot run", "fault"


def main(argv: Sequence[str] | None = None) -> int:
    """Try the sources that have no result yet, and print the page; return 1 for a fault."""
    arguments = EVALUATION.arguments(
        argv, models=(1000, "models of LEMUR"), seed=0, max_minutes=(float("inf"), "stop after this time")
    )
    lemur = open_lemur()
    results: dict[str, list[str]] = json.loads(STORE.read_text()) if STORE.exists() else {}
    names = list(drawn(lemur.models(), arguments.models, arguments.seed))
    files = {**JOINING, **{name: source for name, (source, _) in STANDING.items()}}
    sources = {f"file:{name}": decode_python(text) if isinstance(text, bytes) else text for name, text in files.items()}
    end = time.monotonic() + 60 * arguments.max_minutes
    partner = load_families(lemur)[PARTNER]
    probe.TIME_LIMIT_S = SECONDS
    with JobRunner(preload=PRELOAD) as runner, LocalEngine() as engine:
        trial = Trial(runner, engine, partner)
        for place, name in enumerate([*sources, *names]):
            if name in results or time.monotonic() > end:
                continue
            text = sources[name] if name in sources else lemur.source(name)
            kind = FILES if name in sources else kind_of(name)
            mixed = (name in sources or place % EVERY == 0) and name != PARTNER
            verdict, reason = trial.verdict(make_family(name.removeprefix("file:"), text), mixed=mixed)
            results[name] = [kind, verdict, reason]
            note(f"{name}: {verdict} {reason}"[:160])
            STORE.parent.mkdir(parents=True, exist_ok=True)
            STORE.write_text(json.dumps(results, indent=0, sort_keys=True, ensure_ascii=False) + "\n")
    return EVALUATION.finish(page(results), good=not faults(results))


def kind_of(model: str) -> str:
    """Return a model's kind: the words before the first number or hash of its name."""
    words = re.split(r"-(?=[0-9a-f]{8})|\d", model)[0].rstrip("-").split("-")
    return "-".join(words[:2] if words[0] in ("ast", "alt", "rl") else words[:1])


def drawn(models: Sequence[str], count: int, seed: int) -> Iterator[str]:
    """Draw models, one of each kind in turn until a kind has none left; small kinds are whole, first of all."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for model in models:
        kinds[kind_of(model)].append(model)
    order = sorted(kinds)
    for kind in order:
        random.Random(f"{seed} {kind}").shuffle(kinds[kind])
    random.Random(seed).shuffle(order)
    left = count
    while left and any(kinds.values()):
        for kind in [kind for kind in order if kinds[kind]][:left]:
            yield kinds[kind].pop()
            left -= 1


class Trial:
    """Tries one source after the other in workers."""

    def __init__(self, runner: JobRunner, engine: LocalEngine, partner: Family) -> None:
        self.runner, self.engine = runner, engine
        self.assembler = Assembler()
        answer = self._answer(Probe(family=partner, shape=SHAPE, classes=10, wanted="process"))
        assert answer.interface is not None, answer.reason
        self.partner = (partner, answer.interface)

    def verdict(self, family: Family, *, mixed: bool) -> tuple[str, str]:
        """Return the verdict on a family and its reason."""
        for shape in (FIRST, SHAPE):
            answer = self._answer(Probe(family=family, shape=shape, classes=10, wanted="process"))
            if not answer.reason:
                break
        if answer.interface is not None and not answer.reason:
            fault = self._mixture(family, answer.interface, shape) if mixed else ""
            return (FAULT, fault) if fault else (JOINED, ", ".join(answer.notes))
        if answer.reason.startswith("the worker sent no"):
            return FAULT, answer.reason
        runs = not answer.reason.startswith(LIMITS) and any(self._runs(family, side) for side in SIDES)
        return (REFUSED if runs else BROKEN), answer.reason

    def _answer(self, probe: Probe) -> Answer:
        job = probe.job()
        if probe.shape == FIRST:  # without the search, which takes most of the time
            job = replace(job, arguments={**job.arguments, "interface": asdict(Interface(low=1))})
        return probe.answer(*self.runner.collect(job))

    def _runs(self, family: Family, side: int) -> bool:
        """Whether it runs forward and backward alone, from its own file, at some size."""
        shape = Shape(SHAPE.channels, side, side)
        probe = Probe(family=family, shape=shape, classes=10, wanted="process", cost_behind=Interface(low=1))
        return self._answer(probe).cost is not None

    def _mixture(self, family: Family, interface: Interface, shape: Shape) -> str:
        """Check a mixture with the partner; return what is wrong with it."""
        try:
            plan = Plan(experts=(family.name, self.partner[0].name))
            candidate = self.assembler.assemble(plan, [(family, interface), self.partner])
        except NngenError as error:
            return f"not assembled: {error}"
        verdict = self.engine.check(CheckJob(candidate=candidate, shape=shape, isolation=Isolation.PROCESS))
        return "" if verdict.valid else f"mixture: {verdict.outcome.value}: {verdict.message}"


def faults(results: dict[str, list[str]]) -> list[str]:
    """List what is wrong: faults, and files whose answer is not the expected one."""
    found = [f"- {name}: {reason}" for name, (_, verdict, reason) in results.items() if verdict == FAULT]
    for name, (_, verdict, reason) in results.items():
        short = name.removeprefix("file:")
        if short in JOINING and short != name and verdict not in (JOINED, FAULT):
            found.append(f"- {name}: must join, but {verdict}: {reason}")
        if short in STANDING and short != name and STANDING[short][1] not in reason:
            found.append(f"- {name}: {verdict} {reason}, expected: {STANDING[short][1]}")
    return found


def page(results: dict[str, list[str]]) -> str:
    """Write the page: counts by kind, the shares, and every reason for which a model that runs may not join."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, verdict, _ in results.values():
        kinds[kind][verdict] += 1
    files = kinds.pop(FILES, Counter())
    large = {kind: count for kind, count in kinds.items() if count.total() >= 5}
    small = sum((count for kind, count in kinds.items() if kind not in large), Counter[str]())
    lemur = sum(kinds.values(), Counter[str]())
    rows = [*sorted(large.items()), (f"{len(kinds) - len(large)} kinds of fewer than 5 each", small)]
    rows += [("all of LEMUR's", lemur), (FILES, files)]
    columns = ("kind", JOINED, REFUSED, BROKEN, FAULT, "joined of those that run")
    cells = [(kind, *(count[name] for name in columns[1:5]), share(count)) for kind, count in rows]
    reasons = [
        f"- {name} ({kind}): {reason}"
        for name, (kind, verdict, reason) in sorted(results.items())
        if verdict == REFUSED
    ]
    about = f"""Sources proven as by `nngen check --family`, at {FIRST} or else at {SHAPE} behind an adapter; of those
that join, every file and every fourth model was checked in a mixture with {PARTNER}. Those that need more than
{SECONDS:.0f} s count as models that cannot run here. `{STORE.name}` beside this page holds each verdict."""
    wrong = faults(results)
    return EVALUATION.page(
        "Models of other people as experts",
        about,
        table(columns, cells, right=columns[1:]),
        wrong or ["0 faults."],
        "## Run alone, and refused",
        reasons or ["None."],
    )


def share(count: Counter[str]) -> str:
    """Return the share of joined ones among those that run alone."""
    runs = count[JOINED] + count[REFUSED] + count[FAULT]
    return f"{count[JOINED]} of {runs}" + (f" ({count[JOINED] / runs:.1%})" if runs else "")


if __name__ == "__main__":
    sys.exit(main())
