"""Rehearsal of a graphics card on the CPU: every family of LEMUR, and one mixture.

    python eval/rehearsal.py                     # all 34, each at the accepted size nearest to 3x32x32
    python eval/rehearsal.py --families ComplexNet DenseNet
    python eval/rehearsal.py --write

On a card the worker turns weights and images to the memory format channels_last, runs nets under bfloat16 autocast,
and builds them on `cuda`. The first two run on the CPU as well; the third runs on fake CUDA tensors, which have a
device, a shape and strides, and no values. Exit code 1 if a family fails in one of them, or the mixture does not train.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from _page import Evaluation, note, table

from nngen.assembly.assemble import assemble
from nngen.checks.rule import CheckFailed
from nngen.datasets import load_dataset
from nngen.families.catalogue import load_families
from nngen.isolation import Isolation
from nngen.lemur.source import open_lemur
from nngen.plan import Plan
from nngen.training import TrainJob
from nngen.types import Shape, TrialSpec

sys.path.append(str(Path(__file__).parent.parent / "tests" / "training"))
from card_rehearsal import PASSES, Rehearsal, interface_of, rehearse, train_with_card_settings

SHAPE = Shape(3, 32, 32)
MIXTURE = ("BayesianNet-1", "ComplexNet", "DenseNet", "ShuffleNet")
COLUMNS = ("family", "size", "channels_last", "bfloat16", "fake CUDA")
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Rehearse the families and train the mixture; return 1 if anything fails."""
    arguments = EVALUATION.arguments(argv, families={"nargs": "+", "default": []}, images=32, threads=1)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    families = load_families(open_lemur())
    names = arguments.families or list(families)
    rows, found = [], {}
    for name in names:
        interface = interface_of(name)
        one = found[name] = rehearse(families[name], interface, SHAPE)
        size = interface.adapter(SHAPE).size or (SHAPE.height, SHAPE.width)
        shape = str(Shape(SHAPE.channels, *size))
        rows.append((name, shape, *_cells(one)))
        note(" | ".join(rows[-1]))
    experts = [(families[name], interface_of(name)) for name in MIXTURE]
    spec = TrialSpec(dataset="digits", shape=SHAPE, epochs=2, batch=16)
    job = TrainJob(
        candidate=assemble(Plan(experts=MIXTURE), experts),
        spec=spec,
        dataset=load_dataset("digits"),
        isolation=Isolation.PROCESS,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            sent = train_with_card_settings(job, arguments.images, Path(folder))
        loss = [message["train_loss"] for message in sent.messages if message["event"] == "epoch"]
        trained = (
            f"trains: {spec.epochs} epochs on {arguments.images} images, mean loss {loss[0]:.3f}, then {loss[-1]:.3f}"
        )
    except CheckFailed as failure:
        trained = f"fails: {failure.verdict.message}"
    good = trained.startswith("trains") and all(
        cell.startswith(PASSES) for one in found.values() for cell in _cells(one)
    )
    return EVALUATION.finish(page(rows, found, trained), good=good)


def _cells(one: Rehearsal) -> tuple[str, str, str]:
    return one.channels_last, one.bfloat16, one.cuda


def page(rows: Sequence[Sequence[str]], found: dict[str, Rehearsal], trained: str) -> str:
    """Return the page: a row per family, what is done where one differs, and the mixture."""
    contiguous = [name for name, one in found.items() if one.channels_last != PASSES]
    plain = [name for name, one in found.items() if one.bfloat16 != PASSES]
    about = f"""Each family is built with LEMUR's best hyperparameters and run on two images in evaluation and in
training, with a backward pass where there are values. torch {torch.__version__}, {torch.get_num_threads()} thread."""
    done = [
        f"- contiguous ({', '.join(contiguous) or 'none'}): the family fails in channels_last, or gives other logits;"
        " the worker leaves its weights and inputs contiguous, those of the other experts are in channels_last.",
        f"- float32 ({', '.join(plain) or 'none'}): there are no complex numbers of half precision; a mixture runs this"
        " expert without autocast.",
        "- fake CUDA: built on `cuda`, parameters and buffers all there, names and shapes of parameters as on the CPU,"
        " logits on `cuda` in both modes under bfloat16 autocast.",
    ]
    mixture = f"The mixture of {', '.join(MIXTURE)} under the card's settings {trained}."
    return EVALUATION.page("A card's path, rehearsed", about, table(COLUMNS, rows), done, mixture)


if __name__ == "__main__":
    sys.exit(main())
