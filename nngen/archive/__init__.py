"""Storage of campaigns, candidates, trials and imported results in one SQLite file.

The contract of ``Archive``; ``nngen.testing.archive_contract`` is the same contract as a test class.

Who may change what
    - One driver per campaign writes; any number of readers read at the same time. A second live
      driver is refused by ``lock`` with ``ArchiveError``.
    - Families, plans, candidates, verdicts, curves, predictions, reveals and events are facts:
      added once, never changed, never removed. Adding an equal fact again changes nothing.
    - A trial goes ``ready -> running -> done``. ``requeue`` and ``requeue_trial`` return running trials
      to ``ready``; only the driver that holds the lock calls them. Nothing leaves ``done``.
    - A test accuracy is revealed at most once per trial.

What lasts
    - Each call is one transaction. When it has returned, its work survives SIGKILL of the process
      and loss of power; when it has not, either all of it is stored or nothing.
    - A trial becomes ``done`` together with its curve, its predictions and its event.

What raises
    - ``ArchiveError``: the file cannot be read or written; a transition is forbidden; a candidate's
      id is taken by another program (LEMUR's id is blind to white space); a second driver.
    - ``UsageError``: no campaign or candidate has the name asked for (the message lists the
      nearest names), a prefix fits several candidates, a campaign's name is taken.

Order
    Everything is returned in the order in which it was added, whatever the clock says.
"""

from nngen.archive.connection import check_creatable, default_path
from nngen.archive.external import Added, ExternalModel, ExternalResult, ExternalResults, Replay
from nngen.archive.records import (
    CampaignRecord,
    Event,
    LoopRole,
    NewTrial,
    Promotion,
    StoredCandidate,
    StoredTrial,
    Tally,
    TrialLine,
    TrialScore,
    TrialState,
)
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
    "Replay",
    "StoredCandidate",
    "StoredTrial",
    "Tally",
    "TrialLine",
    "TrialScore",
    "TrialState",
    "check_creatable",
    "default_path",
]
