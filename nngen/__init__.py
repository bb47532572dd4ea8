"""nngen: mixtures of experts assembled from LEMUR's families, checked, trained and explained.

The names below are the public face for notebooks and scripts; each is imported when it is first used, so that
``import nngen`` is fast and loads no torch. ``docs/python.md`` shows each in a few lines.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time __getattr__ imports the same names
    from nngen.api import assemble, check, load, load_families, prepare_campaign, train
    from nngen.archive import Archive
    from nngen.campaign.budget import Budget
    from nngen.campaign.runner import Campaign
    from nngen.campaign_spec import CampaignSpec
    from nngen.datasets import Dataset, load_dataset
    from nngen.errors import NngenError
    from nngen.plan import Plan
    from nngen.training import LocalEngine
    from nngen.types import Candidate, Family, Shape, Trial, Verdict

__version__ = "0.2.0"

__all__ = [
    "Archive",
    "Budget",
    "Campaign",
    "CampaignSpec",
    "Candidate",
    "Dataset",
    "Family",
    "LocalEngine",
    "NngenError",
    "Plan",
    "Shape",
    "Trial",
    "Verdict",
    "__version__",
    "assemble",
    "check",
    "load",
    "load_dataset",
    "load_families",
    "prepare_campaign",
    "train",
]

_MODULES = {
    "nngen.api": ("assemble", "check", "load", "load_families", "prepare_campaign", "train"),
    "nngen.archive": ("Archive",),
    "nngen.campaign.budget": ("Budget",),
    "nngen.campaign.runner": ("Campaign",),
    "nngen.campaign_spec": ("CampaignSpec",),
    "nngen.datasets": ("Dataset", "load_dataset"),
    "nngen.errors": ("NngenError",),
    "nngen.plan": ("Plan",),
    "nngen.training": ("LocalEngine",),
    "nngen.types": ("Candidate", "Family", "Shape", "Trial", "Verdict"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nngen' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
