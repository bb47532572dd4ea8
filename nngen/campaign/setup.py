"""Prepares the inputs of a campaign: measures its families and separates the usable ones from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nngen.archive.records import CampaignRecord
from nngen.campaign.protocols import CampaignInputs
from nngen.campaign.selection import source_of
from nngen.campaign_spec import CampaignSpec
from nngen.datasets.dataset import Dataset
from nngen.errors import FamilyError, UsageError
from nngen.families.catalogue import choose, load_families
from nngen.families.hyperparameters import with_hyperparameters
from nngen.families.probe import usable_families
from nngen.families.trust import AUTO
from nngen.lemur.reader import Lemur
from nngen.space.pool import EXPERTS, Pool
from nngen.space.samplers import check_size
from nngen.text import did_you_mean, listed, one_line
from nngen.types import Hyperparameters, Shape

Progress = Callable[[int, int], None]


def prepare(
    spec: CampaignSpec,
    dataset: Dataset,
    stored: CampaignRecord | None = None,
    *,
    lemur: Lemur,
    families_from: Sequence[str] = (),
    progress: Progress | None = None,
    wanted: str = AUTO,
) -> CampaignInputs:
    """Prepare the inputs of a campaign of quartets, with the arguments and errors of ``prepare_inputs``.

    A campaign that is resumed (``stored``) keeps its pool, and the reasons for what was left out, whatever is measured
    now.

    Raises:
        UsageError: If the sampler is unknown, or cannot draw so many quartets.
    """
    if stored is not None:
        families = load_families(lemur, families_from)
        if gone := [name for name in stored.pool if name not in families]:
            raise FamilyError(
                f"campaign {stored.name} has {listed(gone, 4)} in its pool, not found here: add --families-from PLACE"
            )
        chosen = with_hyperparameters(choose(families, stored.pool), spec.hyperparameters)
        usable, _ = usable_families(chosen, spec.shape, classes=dataset.classes, progress=progress, wanted=wanted)
        return CampaignInputs(families=usable, dataset=dataset, left_out=stored.left_out)
    if spec.alone:
        raise UsageError("families alone are trained by nngen campaign run CAMPAIGN --baselines")
    source_of(spec)  # refuses what cannot be sampled, before families are measured
    inputs = prepare_inputs(
        dataset,
        spec.shape,
        spec.families,
        lemur=lemur,
        families_from=families_from,
        hyperparameters=spec.hyperparameters,
        progress=progress,
        wanted=wanted,
    )
    check_size(Pool.of(inputs.families), spec.size)
    known = sorted({*inputs.families, *inputs.left_out})
    if strange := [name for name, _ in spec.plan.rates if name not in known]:
        hint = did_you_mean(one_line(strange[0], 60), known, otherwise=f"there are {listed(known, 8)}")
        raise UsageError(f"the plan's [rates] name {one_line(strange[0], 60)}, which is not in the pool: {hint}")
    return inputs


def prepare_inputs(
    dataset: Dataset,
    shape: Shape,
    names: Sequence[str] = (),
    *,
    lemur: Lemur,
    families_from: Sequence[str] = (),
    hyperparameters: Hyperparameters | None = None,
    progress: Progress | None = None,
    wanted: str = AUTO,
) -> CampaignInputs:
    """Prepare the inputs of a campaign that begins, with any source of candidates.

    Args:
        dataset: Data set of the campaign.
        shape: Shape of its images.
        names: Families to use; all of them by default.
        lemur: Source of the families.
        families_from: Further sources of families.
        hyperparameters: Values in place of LEMUR's best, for the families that have them.
        progress: Receives (done, total) while families are measured.
        wanted: Isolation level of the measurements, or ``auto``.

    Raises:
        FamilyError: If a family is unknown, or fewer than four can be used at the shape.
        UsageError: If no family has one of the hyperparameters, or its value is not possible.
        LemurError: If LEMUR cannot be read.
    """
    families = load_families(lemur, families_from)
    chosen = with_hyperparameters(choose(families, names or tuple(families)), hyperparameters or {})
    if len(chosen) < EXPERTS:
        raise FamilyError(f"the pool has only {len(chosen)} families, and a mixture takes {EXPERTS}: name more")
    usable, refused = usable_families(chosen, shape, classes=dataset.classes, progress=progress, wanted=wanted)
    if len(usable) < EXPERTS:
        why = "; ".join(f"{family}: {reason}" for family, reason in refused.items())
        raise FamilyError(f"only {len(usable)} of {len(chosen)} families can be used at {shape} ({why})")
    return CampaignInputs(families=usable, dataset=dataset, left_out=refused)
