"""Bitwise comparison of LEMUR's families as experts and alone.

    python eval/families_verbatim.py            # all 34, each at the accepted size nearest to 3x32x32
    python eval/families_verbatim.py --write

Each family is built, run and trained for one epoch twice: from its own source, and from the function in a mixture's
file. The comparison covers names, shapes, values and ``requires_grad`` of all parameters and buffers, the outputs in
both modes, and all values after ``learn``. Exit code 1 if a family differs or is refused.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from _page import Evaluation, table

from nngen.errors import AssemblyError
from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.types import Shape

sys.path.append(str(Path(__file__).parent.parent / "tests" / "assembly"))
from family_comparison import compare

SHAPE = Shape(3, 32, 32)
COLUMNS = ("family", "size", "equal", "seconds")
EVALUATION = Evaluation(__file__, __doc__)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare every family and print a table; return 1 if one differs."""
    arguments = EVALUATION.arguments(argv, threads=1, seed=0)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    families = load_families(open_lemur())
    measured = profiles(list(families.values()), SHAPE)
    rows, problems = [], []
    for name, family in families.items():
        began = time.perf_counter()
        interface = measured[name].interface
        assert interface is not None, measured[name].reason
        size = interface.adapter(SHAPE).size or (SHAPE.height, SHAPE.width)
        shape = Shape(SHAPE.channels, *size)
        try:
            found = compare(family, shape, complex_input=interface.complex, seed=arguments.seed)
        except AssemblyError as error:
            found = [f"refused: {error}"]
        problems += [f"- {name}: {difference}" for difference in found]
        rows.append((name, str(shape), "no" if found else "yes", f"{time.perf_counter() - began:.1f}"))
    about = f"""Each family from its own source and from the function that mixtures hold, with the same seeds: names,
shapes, values and `requires_grad` of parameters and buffers, outputs in evaluation and training, and all values after
one `learn` on two batches. torch {torch.__version__}, {arguments.threads} thread, seed {arguments.seed}."""
    notes = problems or [f"{len(rows)} of {len(rows)} families are equal to the last bit."]
    return EVALUATION.finish(
        EVALUATION.page("Families verbatim", about, table(COLUMNS, rows, right=("seconds",)), notes), good=not problems
    )


if __name__ == "__main__":
    sys.exit(main())
