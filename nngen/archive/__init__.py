"""Storage of campaigns, candidates, trials and imported results in one SQLite file."""

from nngen.archive.connection import check_creatable, default_path
from nngen.archive.external import Added, ExternalModel, ExternalResult, ExternalResults
from nngen.archive.protocol import Store
from nngen.archive.records import CampaignRecord, Event, NewTrial, Promotion, StoredCandidate, StoredTrial
from nngen.archive.states import LoopRole, TrialState
from nngen.archive.store import Archive

__all__ = [
    "Added",
    "Archive",
    "CampaignRecord",
    "Event",
    "ExternalModel",
    "ExternalResult",
    "ExternalResults",
    "LoopRole",
    "NewTrial",
    "Promotion",
    "Store",
    "StoredCandidate",
    "StoredTrial",
    "TrialState",
    "check_creatable",
    "default_path",
]
