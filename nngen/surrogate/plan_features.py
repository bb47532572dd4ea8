"""Features of plans for predictors and for the ranker of drafts: families, pairs, and the numbers of the recipe."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from nngen.plan import Plan, flat_fields
from nngen.surrogate.experts import Floats
from nngen.surrogate.plan_text import CHOICES, RATES, field_value

_WIDE = 8  # a field whose largest value is so many times its smallest one enters as a logarithm


class Encoded(NamedTuple):
    """Plans as rows of numbers."""

    rows: Floats  # ``(n, d)``
    groups: list[list[int]]  # columns of the experts and of each other field; those of pairs are in none


def plan_features(plans: Sequence[Plan]) -> Encoded:
    """Encode plans as rows of numbers: each field, families and pairs; names become indicators.

    The columns are those that occur, so plans that are compared with each other are encoded together.
    """
    from sklearn.feature_extraction import DictVectorizer

    vectorizer = DictVectorizer(sparse=False)
    rows: Floats = vectorizer.fit_transform([_columns(plan) for plan in plans])
    groups = defaultdict(list)
    for place, name in enumerate(vectorizer.get_feature_names_out()):
        if not name.startswith("pair "):
            groups["experts" if name.startswith("family ") else name.partition("=")[0]].append(place)
    return Encoded(rows, list(groups.values()))


def _columns(plan: Plan) -> dict[str, float | str]:
    columns: dict[str, float | str] = {}
    for path, value in flat_fields(plan).items():
        if path in CHOICES or path.startswith("rates."):
            columns[path] = field_number(plan, path)
        elif path != "experts":
            columns[path] = float(value) if isinstance(value, int | float) else str(value)
    families = Counter(plan.experts)
    columns |= {f"family {name}": float(count) for name, count in families.items()}
    columns |= {f"pair {one} {other}": 1.0 for one, other in combinations(sorted(families), 2)}
    return columns


def field_number(plan: Plan, path: str) -> float:
    """Return a field of ``CHOICES`` as a number, or its logarithm where the choices span orders of magnitude.

    Rates have logarithms, and words their places among the choices.
    """
    choices, own = CHOICES.get(path, RATES), field_value(plan, path)
    if isinstance(own, str):
        return float(choices.index(own))
    value = float(own)
    positive = [float(choice) for choice in choices if float(choice) > 0]
    wide = bool(positive) and max(positive) / min(positive) >= _WIDE
    # Zero has no logarithm: it counts as a tenth of the smallest value.
    return math.log10(max(value, min(positive) / 10)) if wide else value
