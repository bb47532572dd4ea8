"""Everything that was found, in one SQLite file."""

from nngen.archive.opening import default_path
from nngen.archive.protocol import Store
from nngen.archive.rows import Event, StoredCampaign, StoredCandidate, StoredTrial
from nngen.archive.states import TrialState
from nngen.archive.store import Archive

__all__ = [
    "Archive",
    "Event",
    "Store",
    "StoredCampaign",
    "StoredCandidate",
    "StoredTrial",
    "TrialState",
    "default_path",
]
