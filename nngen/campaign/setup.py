"""Prepares a campaign: loads the data, measures the families and settles every argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nngen.archive import CampaignRecord
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.selection import source_of
from nngen.campaign_spec import CampaignSpec
from nngen.datasets.dataset import Dataset, load_dataset
from nngen.errors import FamilyError, UsageError
from nngen.families.catalogue import choose, load_families
from nngen.families.probe import profiles
from nngen.lemur.reader import Lemur
from nngen.space import find_sampler
from nngen.space.pool import EXPERTS, Pool
from nngen.space.samplers import check_size
from nngen.types import Family, Shape

__all__ = ["prepare", "prepare_inputs"]

Progress = Callable[[int, int], None]


def prepare(
    name: str,
    stored: CampaignRecord | None,
    given: Mapping[str, object],
    machine: Mapping[str, object],
    *,
    lemur: Lemur,
    families_from: Sequence[str] = (),
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> tuple[CampaignSpec, CampaignInputs]:
    """Settle the arguments of a campaign of quartets and prepare its inputs.

    Args:
        name: Name of the campaign.
        stored: The campaign as the archive holds it; None for one that begins.
        given: Arguments given now, by field of ``CampaignSpec``; families as a sorted tuple.
        machine: Defaults that suit this machine (device, threads).
        lemur: Source of the families.
        families_from: Further sources of families.
        data_root: Folder of torchvision's files.
        progress: Receives (done, total) while families are measured.

    Raises:
        UsageError: If the campaign exists with other arguments, or arguments are missing or unknown.
        FamilyError: If a family is unknown, or fewer than four can be used.
        DataError: If the data set is missing or broken.
        LemurError: If LEMUR cannot be read.
    """
    rungs = given.get("rungs")
    if isinstance(rungs, tuple) and rungs:
        given = {"epochs": rungs[-1], **given}  # the last rung is the longest training
    if stored is not None:
        stored.spec.require(given)
        dataset = load_dataset(stored.spec.dataset, data_root=data_root)
        chosen = choose(load_families(lemur, families_from), stored.pool)
        inputs = _measured(chosen, dataset, stored.spec.shape, progress, left_out=stored.left_out)
        return stored.spec, inputs
    if "size" not in given:
        raise UsageError(f"there is no campaign {name} yet: say how many quartets it takes with --size")
    typed: dict[str, Any] = dict(given)
    families = load_families(lemur, families_from)
    chosen = choose(families, typed.get("families") or tuple(families))
    # Cheap checks come before families are measured.
    _check_pool(chosen)
    find_sampler(typed.get("sampler", CampaignSpec.default("sampler")))
    dataset = load_dataset(typed.get("dataset", CampaignSpec.default("dataset")), data_root=data_root)
    spec = CampaignSpec(**{"name": name, "shape": dataset.default_shape, **machine, **typed})
    source_of(spec)  # refuses what cannot be sampled
    inputs = _measured(chosen, dataset, spec.shape, progress)
    check_size(Pool.of(inputs.families), spec.size)
    return spec, inputs


def prepare_inputs(
    dataset: Dataset,
    shape: Shape,
    names: Sequence[str] | None = None,
    *,
    lemur: Lemur,
    families_from: Sequence[str] = (),
    progress: Progress | None = None,
) -> CampaignInputs:
    """Prepare the inputs of a campaign with another source than a sampler.

    Args:
        dataset: Data set of the campaign.
        shape: Shape of its images.
        names: Families to use; None for all.
        lemur: Source of the families.
        families_from: Further sources of families.
        progress: Receives (done, total) while families are measured.

    Raises:
        FamilyError: If a family is unknown, or fewer than four can be used at the shape.
        LemurError: If LEMUR cannot be read.
    """
    families = load_families(lemur, families_from)
    chosen = choose(families, names if names is not None else tuple(families))
    _check_pool(chosen)
    return _measured(chosen, dataset, shape, progress)


def _check_pool(chosen: Sequence[Family]) -> None:
    if len(chosen) < EXPERTS:
        raise FamilyError(f"the pool has only {len(chosen)} families, and a mixture takes {EXPERTS}: name more")


def _measured(
    chosen: Sequence[Family],
    dataset: Dataset,
    shape: Shape,
    progress: Progress | None,
    *,
    left_out: Mapping[str, str] | None = None,
) -> CampaignInputs:
    """Separate the usable families from the others; a resumed campaign keeps the reasons it began with."""
    found = profiles(chosen, shape, classes=dataset.classes, progress=progress)
    usable, refused = {}, {}
    for family in chosen:
        profile = found[family.name]
        if profile.usable and profile.interface is not None:
            usable[family.name] = (family, profile.interface)
        else:
            refused[family.name] = profile.reason
    if left_out is None and len(usable) < EXPERTS:
        why = "; ".join(f"{family}: {reason}" for family, reason in refused.items())
        raise FamilyError(f"only {len(usable)} of {len(chosen)} families can be used at {shape} ({why})")
    return CampaignInputs(families=usable, dataset=dataset, left_out=refused if left_out is None else left_out)
