"""Everything that was found, in one SQLite file."""

from nngen.archive.foreign import Added, ForeignModel, ForeignResult, ForeignShelf
from nngen.archive.opening import check_creatable, default_path
from nngen.archive.protocol import Store
from nngen.archive.rows import Event, Promotion, StoredCampaign, StoredCandidate, StoredTrial
from nngen.archive.states import TrialState
from nngen.archive.store import Archive

__all__ = [
    "Added",
    "Archive",
    "Event",
    "ForeignModel",
    "ForeignResult",
    "ForeignShelf",
    "Promotion",
    "Store",
    "StoredCampaign",
    "StoredCandidate",
    "StoredTrial",
    "TrialState",
    "check_creatable",
    "default_path",
]
