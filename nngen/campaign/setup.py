"""From what was typed to a campaign that can run: the data, the pool, every argument settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.spec import CampaignSpec
from nngen.datasets.dataset import Dataset, load_dataset
from nngen.errors import FamilyError, UsageError
from nngen.families.catalogue import choose, load_families
from nngen.families.probe import profiles
from nngen.lemur.source import Lemur
from nngen.space import find_sampler
from nngen.space.pool import EXPERTS, Pool
from nngen.space.samplers import check_size
from nngen.types import Family, Interface, Shape

__all__ = ["prepare"]

Progress = Callable[[int, int], None]


def prepare(
    name: str,
    stored: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    machine: Mapping[str, Any],
    *,
    lemur: Lemur,
    families_from: Sequence[str] = (),
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> tuple[CampaignSpec, CampaignInputs]:
    """Settle a campaign's arguments and lay out what it works on.

    Args:
        name: The campaign's.
        stored: What the archive holds of it; None for a campaign that begins.
        asked: Arguments that were typed, by field of ``CampaignSpec``; families as a sorted tuple.
        machine: Arguments that this machine suggests where nothing was typed (device, threads).
        lemur: Where the families come from.
        families_from: Further places to take families from.
        data_root: Where torchvision's files lie.
        progress: Called with (done, total) while families are measured.

    Raises:
        UsageError: If the campaign exists with other arguments, or arguments are missing or unknown.
        FamilyError: If a family is unknown, or fewer than four can be used.
        DataError: If the data set is missing or broken.
        LemurError: If LEMUR cannot be read.
    """
    if stored is not None:
        spec = CampaignSpec.from_dict(stored)
        asked = _last_rung(asked)
        spec.require(asked)
        families = load_families(lemur, families_from)
        dataset = load_dataset(spec.dataset, data_root=data_root)
        chosen = choose(families, stored["pool"])
        usable, _ = _measure(chosen, spec.shape, dataset.classes, progress)
        return spec, _bench(dataset, usable, stored["left_out"])
    if "size" not in asked:
        raise UsageError(f"there is no campaign {name} yet: say how many quartets it takes with --size")
    asked = _last_rung(asked)
    families = load_families(lemur, families_from)
    names = asked.get("families") or tuple(families)
    chosen = choose(families, names)
    # What costs nothing to refuse is refused before families are measured.
    if len(chosen) < EXPERTS:
        raise FamilyError(f"the pool has only {len(chosen)} families, and a mixture takes {EXPERTS}: name more")
    find_sampler(asked.get("sampler", CampaignSpec.default("sampler")))
    dataset = load_dataset(asked.get("dataset", CampaignSpec.default("dataset")), data_root=data_root)
    spec = CampaignSpec(**{"name": name, "shape": dataset.default_shape, **machine, **asked})
    usable, left_out = _measure(chosen, spec.shape, dataset.classes, progress)
    if len(usable) < EXPERTS:
        why = "; ".join(f"{family}: {reason}" for family, reason in left_out.items())
        raise FamilyError(f"only {len(usable)} of {len(chosen)} families can be used at {spec.shape} ({why})")
    check_size(Pool.of(usable), spec.size)
    return spec, _bench(dataset, usable, left_out)


def _last_rung(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Rungs say how long the best are trained; the epochs need not be typed again."""
    rungs = asked.get("rungs")
    return {"epochs": rungs[-1]} | dict(asked) if rungs else dict(asked)


def _measure(
    chosen: Sequence[Family], shape: Shape, classes: int, progress: Progress | None
) -> tuple[dict[str, tuple[Family, Interface]], dict[str, str]]:
    """Tell the usable families from those that are left out, with the reason."""
    found = profiles(chosen, shape, classes=classes, progress=progress)
    usable, left_out = {}, {}
    for family in chosen:
        profile = found[family.name]
        if profile.usable and profile.interface is not None:
            usable[family.name] = (family, profile.interface)
        else:
            left_out[family.name] = profile.reason
    return usable, left_out


def _bench(
    dataset: Dataset, usable: Mapping[str, tuple[Family, Interface]], left_out: Mapping[str, str]
) -> CampaignInputs:
    return CampaignInputs(
        families=usable,
        dataset=dataset,
        data_fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        test_labels=dataset.test_labels.astype("<u2").tobytes(),
        left_out=left_out,
    )
