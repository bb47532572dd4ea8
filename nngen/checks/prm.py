"""Dictionary ``prm`` that LEMUR passes to a net, with the same keys in a check and in a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nngen.types import Hyperparameters, Shape

LEMUR_BATCH = 1
"""First entry of ``in_shape``, as nn-dataset 2.2.11 passes it: no width of a net may depend on the batch."""

_DEFAULTS = {"lr": 1e-3, "momentum": 0.9, "dropout": 0.2, "pretrained": 0, "batch": 64, "epoch": 1}
"""A value for each name that LEMUR itself knows; any other name needs one from the caller."""


def make_prm(values: Hyperparameters, *, shape: Shape, augment: str = "none") -> dict[str, Any]:
    """Fill ``prm`` with LEMUR's known names, then with the caller's values.

    Args:
        values: Values that take precedence over the defaults.
        shape: Shape of the images; its height names LEMUR's transform, ``norm_32`` for 32 pixels.
        augment: Random changes of the images: ``flip`` gives ``norm_32_flip``.
    """
    transform = f"norm_{shape.height}" + ("" if augment == "none" else f"_{augment}".replace("-", "_"))
    return {**_DEFAULTS, "transform": transform, **values}


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys that were added, removed or given another value."""
    keys = [*before, *(key for key in after if key not in before)]
    missing = object()
    return [str(key) for key in keys if before.get(key, missing) is not after.get(key, missing)]
