"""Bias of the published sample compared with other samplers: 1,140 of the C(29,4) = 23,751 quartets.

The published campaign took a prefix of ``itertools.combinations`` in alphabetical order. This script audits the same
prefix and the other samplers at the same size. The pool is measured: the 29 of LEMUR's 34 families that accept images
of 256 px without an adapter; the other five need one or fail.

    python eval/published_bias.py [--size 1140] [--seed 0] [--write]

Exit code 1 unless the pool has 29 families, the lexicographic sample is 4.8 % of the space with AirNet as its only
anchor, and the stratified and balanced samples have no anchor, include every family and are not biased.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from _page import Evaluation, table

from nngen.families.catalogue import load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.space import SAMPLERS, Coverage, coverage, draw
from nngen.space.evenness import evenness
from nngen.types import Shape

SHAPE = Shape(3, 256, 256)
COLUMNS = (
    "sampler",
    "share",
    "anchors",
    "families",
    "pairs",
    "triples",
    "unseen pairs",
    "family Gini",
    "chi-square p",
)
EVALUATION = Evaluation(__file__, __doc__)


def pool(jobs: int) -> tuple[list[str], dict[str, str]]:
    """Return the families that accept the shape without an adapter, and the reasons of the others."""
    measured = profiles(load_families(open_lemur()).values(), SHAPE, jobs=jobs)
    native = [name for name, profile in measured.items() if profile.native(SHAPE)]
    return native, {name: profile.why(SHAPE) for name, profile in measured.items() if name not in native}


def audit_table(audits: Mapping[str, Coverage]) -> str:
    """Write the audits as Markdown."""
    rows = []
    for name, audit in audits.items():
        even = evenness(audit)
        counts = (audit.family_range, audit.pair_range, audit.triple_range, len(audit.unseen_pairs))
        share = (f"{audit.share:.2%}", ", ".join(audit.anchors) or "none")
        rows.append((name, *share, *counts, f"{even.family_gini:.3f}", f"{even.p:.2g}"))
    return table(COLUMNS, rows, right=set(COLUMNS) - {"sampler", "anchors"})


def failures(families: list[str], audits: Mapping[str, Coverage]) -> list[str]:
    """List the claims that are not met."""
    wrong = [] if len(families) == 29 else [f"{len(families)} families take {SHAPE} as they are, not 29"]
    published = audits["lexicographic"]
    if published.anchors != ("AirNet",) or f"{published.share:.3f}" != "0.048":
        wrong.append(f"lexicographic: {published.share:.2%} of the space, anchors {published.anchors}")
    wrong += [
        f"{name}: {audit.verdict}"
        for name, audit in audits.items()
        if name in ("stratified", "balanced") and (audit.anchors or audit.absent or audit.biased)
    ]
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the pool, audit every sampler, print."""
    given = EVALUATION.arguments(argv, size=1140, seed=0, jobs=(1, "families measured at a time"))
    families, others = pool(given.jobs)
    names = [name for name in ("lexicographic", "random", "stratified", "balanced") if name in SAMPLERS]
    audits = {name: coverage(families, draw(name, families, given.size, given.seed)) for name in names}
    about = (
        f"{given.size:,} quartets of the {len(families)} families that take {SHAPE} as they are; ranges are largest "
        "less smallest count."
    )
    wrong = failures(families, audits)
    text = EVALUATION.page(
        "The published sample and its cure",
        about,
        audit_table(audits),
        [f"- {name}: {audit.verdict}" for name, audit in audits.items()],
        "Families that do not take the shape as they are:",
        [f"- {name}: {why}" for name, why in others.items()],
        "; ".join(wrong) or "Everything holds.",
    )
    return EVALUATION.finish(text, good=not wrong)


if __name__ == "__main__":
    sys.exit(main())
