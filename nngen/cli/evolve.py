"""``nngen evolve``: the closed loop of proposing, training and learning."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nngen.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nngen.llm.evolve import Cycle, Teacher

__all__ = ["evolve"]


def evolve(
    name: str,
    /,
    *,
    rewriter: str,
    cycles: int = 3,
    number: int = 8,
    start: int = 8,
    top: int = 3,
    judges: int = 2,
    patience: int = 2,
    tune: bool = False,
    tune_epochs: float = 1.0,
    work: Path | None = None,
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
    seed: int = 0,
    data_root: Path | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Propose plans, check and train them, judge the best on fresh seeds, tune the model, and again.

    The first cycle follows a common start of random plans. The loop stops early when the gain of the judged
    best stays inside the noise. The same command goes on where it stopped.

    Args:
        name: The loop's; its stages are campaigns NAME-0, NAME-1, ... and NAME-judge-1, ...
        rewriter: random, mutate, a GGUF file, a folder, a hub id, or a server's address.
        cycles: After the start, at most.
        number: Proposals in a cycle.
        start: Random plans that it begins with.
        top: Parents taken from the best so far.
        judges: Fresh seeds that the best is judged on.
        patience: Gains inside the noise, one after the other, before it stops.
        tune: Tune the model on the archive between cycles (a model in this process only).
        tune_epochs: How often each tuning shows its data.
        work: Folder for feedback sets and adapters; generated/NAME by default.
        families: The pool, separated by commas; every usable family by default.
        dataset: What is trained on.
        shape: Channels, height and width, as 3x32x32; the data set's own by default.
        epochs: How often the training split is shown.
        batch: Samples per step.
        lr: Learning rate handed to the candidates.
        device: auto, cpu or cuda.
        threads: CPU threads of a candidate's worker.
        adapter: Folder of a tuned adapter to begin with.
        model: The model's name, for a server.
        seed: Of every draw.
        data_root: Where torchvision's files lie.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the cycles as JSON.

    Examples:
        nngen evolve loop --rewriter mutate --families ShuffleNet,MobileNetV3,ICNet,DPN68,ComplexNet
        nngen evolve tuned --rewriter model.gguf --tune --cycles 3 --json
    """
    from dataclasses import asdict

    from nngen.archive import Archive, default_path
    from nngen.cli.progress import progress_bar
    from nngen.llm.bench import Fidelity, lay
    from nngen.llm.evolve import Evolution
    from nngen.llm.rewriters.factory import open_rewriter
    from nngen.training import pick_device
    from nngen.types import Shape

    where = pick_device(device)
    wanted = Shape.parse(shape) if shape else None
    fidelity = Fidelity(dataset=dataset, shape=wanted, epochs=epochs, batch=batch, lr=lr, device=where, threads=threads)
    pool = None if families is None else [item.strip() for item in families.split(",") if item.strip()]
    teach = _teacher(rewriter, work or Path("generated") / name, tune_epochs, where) if tune else None
    with (
        Archive.open(archive or default_path()) as store,
        progress_bar("measuring families") as bar,
        lay(fidelity, pool, data_root=data_root, progress=bar) as ground,
    ):
        loop = Evolution(
            name=name,
            archive=store,
            ground=ground,
            rewriter=open_rewriter(rewriter, adapter=adapter, model=model, device=where),
            cycles=cycles,
            start=start,
            number=number,
            top=top,
            judges=judges,
            seed=seed,
            patience=patience,
            teach=teach,
            note=_note,
        )
        found = loop.run()
    if json:
        print_json([asdict(cycle) for cycle in found])
    else:
        print_table([_row(cycle) for cycle in found], list(_row(found[0])))


def _teacher(rewriter: str, folder: Path, epochs: float, device: str) -> Teacher:
    from nngen.errors import UsageError
    from nngen.llm.finetuning.config import Tuning
    from nngen.llm.finetuning.tuner import AdapterTeacher
    from nngen.llm.rewriters.factory import entry_of

    if not entry_of(rewriter).tunable:
        raise UsageError(f"--tune tunes a model in this process, and {rewriter} is not one")
    return AdapterTeacher(tuning=Tuning(base=rewriter, epochs=epochs, device=device), folder=folder, note=_note)


def _note(line: str) -> None:
    print(f"nngen: {line}", file=sys.stderr, flush=True)


def _row(cycle: Cycle) -> dict[str, object]:
    from statistics import fmean

    low, high = cycle.mean_interval or (None, None)
    span = "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
    return {
        "cycle": cycle.number,
        "rewriter": cycle.rewriter,
        "asked": cycle.asked,
        "valid": cycle.valid,
        "new": cycle.new,
        "trained": len(cycle.accuracies),
        "mean": fmean(cycle.accuracies) if cycle.accuracies else None,
        "95 %": span,
        "best": cycle.best,
        "judged": cycle.judged,
        "gain": cycle.gain,
        "noise": cycle.noise,
    }
