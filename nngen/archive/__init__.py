"""Everything that was found, in one SQLite file."""

from nngen.archive.connection import check_creatable, default_path
from nngen.archive.external import Added, ExternalModel, ExternalResult, ExternalResults
from nngen.archive.protocol import Store
from nngen.archive.records import Event, Promotion, StoredCampaign, StoredCandidate, StoredTrial
from nngen.archive.states import TrialState
from nngen.archive.store import Archive

__all__ = [
    "Added",
    "Archive",
    "Event",
    "ExternalModel",
    "ExternalResult",
    "ExternalResults",
    "Promotion",
    "Store",
    "StoredCampaign",
    "StoredCandidate",
    "StoredTrial",
    "TrialState",
    "check_creatable",
    "default_path",
]
