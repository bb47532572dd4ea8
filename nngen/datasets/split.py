"""Stratified splits that are the same on every machine and for every trial.

scikit-learn's ``StratifiedShuffleSplit`` draws otherwise: it would change the split of every published accuracy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nngen.errors import DataError
from nngen.seeds import derive


def split(labels: npt.NDArray[np.int64], share: float, name: str) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Take ``share`` of each class out of a data set.

    Args:
        labels: ``(N,)`` classes from 0.
        share: Fraction taken, in (0, 1).
        name: Name of the data set and the split, from which the seed is derived.

    Returns:
        Indices that stay and indices taken, each in ascending order.

    Raises:
        DataError: If a class has too few samples to be in both parts.
    """
    # RandomState's stream is frozen by numpy's own promise; that of Generator is not.
    random = np.random.RandomState(derive(0, "split", name))
    chosen: list[npt.NDArray[np.intp]] = []
    for label in range(int(labels.max(initial=-1)) + 1):
        members = np.flatnonzero(labels == label)
        count = max(1, round(share * len(members)))
        if len(members) <= count:
            raise DataError(f"{name}: class {label} has {len(members)} images; at least 3 are needed to split them")
        chosen.append(random.permutation(members)[:count])
    taken = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), taken), taken
