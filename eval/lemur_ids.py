"""LEMUR's ids recomputed: ``nn_id`` and ``uid`` compared with those shipped in nn-dataset 2.1.2.

Every name that ends in a hash is compared with the hash of its source. For 50 random models, the uid of every recorded
trial is computed with sorted keys, as in nngen, and if that differs, with every order of the keys, because LEMUR 2.1.2
hashes the text of a dictionary whose order comes from a Python set.

    python eval/lemur_ids.py [--models 50] [--seed 0] [--write]
"""

from __future__ import annotations

import json
import random
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from _page import Evaluation, table

from nngen.lemur.fetch import fetch
from nngen.lemur.layout import RESULTS, SOURCES, digest, nn_id, uid

EVALUATION = Evaluation(__file__, __doc__)
NOT_IN_UID = ("uid", "duration", "accuracy", "epoch")
MOST_KEYS = 7
HASHED = re.compile(r"(?:(.+)-)?([0-9a-f]{32})")


def names_and_hashes(wheel: zipfile.ZipFile) -> tuple[list[str], list[str], list[str]]:
    """Group the shipped names: hash equal to that of the code, hash different, no hash."""
    equal, differs, plain = [], [], []
    for member in wheel.namelist():
        if not member.startswith(f"{SOURCES}/") or not member.endswith(".py") or member.endswith("/__init__.py"):
            continue
        name = member.removeprefix(f"{SOURCES}/").removesuffix(".py")
        match = HASHED.fullmatch(name)
        if match is None:
            plain.append(name)
        else:
            (equal if match[2] == nn_id(wheel.read(member).decode()) else differs).append(name)
    return equal, differs, plain


def explain(trial: Mapping[str, Any]) -> str:
    """Describe how the recorded uid follows from the recorded hyperparameters."""
    if uid(trial) == trial["uid"]:
        return "sorted keys"
    kept = {key: value for key, value in trial.items() if key not in NOT_IN_UID}
    if digest({key: value for key, value in trial.items() if key != "uid"}) == trial["uid"]:
        return "sorted keys, results included (LEMUR's script uid_gen)"
    if len(kept) > MOST_KEYS:
        return f"more than {MOST_KEYS} keys, orders not tried"
    if any(digest({key: kept[key] for key in order}) == trial["uid"] for order in permutations(kept)):
        return "another order of the same keys"
    return "not found"


def trials(wheel: zipfile.ZipFile, members: list[str]) -> Iterator[dict[str, Any]]:
    """Read the trials of some result files."""
    for member in members:
        yield from json.loads(wheel.read(member))


def sample(wheel: zipfile.ZipFile, models: int, seed: int) -> dict[str, Counter[str]]:
    """Explain the uid of each trial of some models; each uid is explained once."""
    files: dict[str, list[str]] = {}
    for info in wheel.infolist():
        # Many files of the ga-* models hold an empty list.
        if info.filename.startswith(f"{RESULTS}/") and info.filename.endswith(".json") and info.file_size > len("[]\n"):
            files.setdefault(info.filename.split("/")[4].rpartition("_")[2], []).append(info.filename)
    found = {}
    for model in sorted(random.Random(seed).sample(sorted(files), models)):
        counts: Counter[str] = Counter()
        known: dict[str, str] = {}
        for trial in trials(wheel, files[model]):
            known.setdefault(trial["uid"], explain(trial))
            counts[known[trial["uid"]]] += 1
        found[model] = counts
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Count, and write the tables."""
    given = EVALUATION.arguments(argv, models=50, seed=0)
    with zipfile.ZipFile(fetch()) as wheel:
        equal, differs, plain = names_and_hashes(wheel)
        found = sample(wheel, given.models, given.seed)
    names = (
        f"{len(equal) + len(differs) + len(plain):,} models (`__init__.py` is none). {len(plain):,} names hold no MD5;"
        f" of the {len(equal) + len(differs):,} that do, {len(equal):,} equal `nn_id` of their source and"
        f" **{len(differs):,} do not**:"
    )
    by_prefix = Counter(name.rpartition("-")[0] for name in differs)
    total: Counter[str] = sum(found.values(), Counter())
    rows = []
    for model, counts in found.items():
        ordered, other = counts["sorted keys"], counts["another order of the same keys"]
        rows.append((model, counts.total(), ordered, other, counts.total() - ordered - other))
    text = EVALUATION.page(
        "LEMUR's ids, computed again",
        "nn-dataset 2.1.2.",
        "## Names and the hash of their code",
        names,
        [f"- `{prefix}-<md5>`: {count:,}" for prefix, count in by_prefix.most_common()],
        "All of them by name:",
        [f"- {name}" for name in sorted(differs)],
        f"## The uid of {total.total():,} trials of {len(found)} models",
        [f"- {how}: {count:,} ({count / total.total():.1%})" for how, count in total.most_common()],
        table(("model", "trials", "sorted keys", "another order", "other"), rows),
    )
    return EVALUATION.finish(text, good=True)


if __name__ == "__main__":
    sys.exit(main())
