"""Results of an archive as the pages of the dashboard need them, computed once for all readers."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock, Thread
from typing import Any, TypeVar, cast

from nngen.analysis.leaderboard import leaderboard, validation_images
from nngen.analysis.loop_report import Loops, loops
from nngen.analysis.ranking.limits import limits
from nngen.analysis.ranking.rows import Row
from nngen.analysis.results import OutcomeRow, outcome_rows
from nngen.archive import Archive, Tally, TrialLine
from nngen.errors import NngenError

T = TypeVar("T")

_MOST = 24  # values that are kept; those of a campaign of 100,000 trials take about 100 MB

_REST = 4.0  # seconds for which a value is served after its archive has changed, in seconds that it took to compute

_PATIENCE_S = 0.5  # seconds for which a reader waits for the new value before it gets the one before


@dataclass(slots=True)
class _Entry:
    lock: Lock = field(default_factory=Lock)
    value: Any = None
    version: int = -1
    until: float = 0.0

    def update(self, version: int, compute: Callable[[], Any]) -> None:
        """Compute the value, unless another thread has done so."""
        with self.lock:
            begun = time.monotonic()
            if self.version < version:
                self.value = compute()
                self.version, now = version, time.monotonic()
                self.until = now + _REST * (now - begun)

    def refresh(self, version: int, compute: Callable[[], Any]) -> None:
        """Compute the value; where that fails, the next reader computes it and sees the error."""
        try:
            self.update(version, compute)
        except (NngenError, OSError):
            self.version = -1


class Shared:
    """Values by key, each computed by one thread at a time, for all readers.

    A value is computed again when its archive has changed, but for a fifth of the time at most, so that readers of a
    large archive do not take the processor from its trainings. Meanwhile readers get the value before.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(
        self, key: Hashable, version: int, compute: Callable[[], T], again: Callable[[], T] | None = None
    ) -> tuple[T, bool]:
        """Return a value, and whether it is as new as the archive.

        Args:
            key: Key of the value.
            version: Version of the archive; a value of an earlier one is computed again.
            compute: Computes the value.
            again: Computes it in another thread, where there is an earlier value; ``compute`` by default.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > _MOST:
                self._entries.popitem(last=False)
        if entry.version < 0:
            entry.update(version, compute)
        elif entry.version < version and time.monotonic() >= entry.until and not entry.lock.locked():
            refresh = Thread(target=entry.refresh, args=(version, again or compute), daemon=True)
            refresh.start()
            refresh.join(_PATIENCE_S)
        return cast(T, entry.value), entry.version >= version


class Snapshot:
    """An archive as one request reads it.

    Attributes:
        archive: The archive, opened for this request.
        stale: Whether a value is older than the archive, so that the page has to be read again.
    """

    def __init__(self, archive: Archive, shared: Shared) -> None:
        self.archive, self.stale = archive, False
        self._shared = shared
        # Another file may come to stand at the same path.
        self._file = archive.path and archive.path.stat().st_ino

    def tallies(self) -> Mapping[str, tuple[Tally, ...]]:
        """Return the numbers of trials by campaign, and within it by rung."""

        def count(source: Snapshot) -> Mapping[str, tuple[Tally, ...]]:
            found: dict[str, tuple[Tally, ...]] = {}
            for tally in source.archive.tallies():
                found[tally.campaign] = (*found.get(tally.campaign, ()), tally)
            return found

        return self._get("tallies", None, count)

    def rows(self, campaign: str | None) -> tuple[Row, ...]:
        """Return the leaderboard of a campaign, or of all."""

        def rank(source: Snapshot) -> tuple[Row, ...]:
            return leaderboard(source.archive.scores(campaign), images=partial(validation_images, source.archive))

        return self._get("rows", campaign, rank)

    def limits(self, campaign: str) -> tuple[str, ...]:
        """Return what the leaderboard of a campaign cannot tell."""
        return self._get("limits", campaign, lambda source: limits(source.rows(campaign)))

    def lines(self, campaign: str) -> tuple[TrialLine, ...]:
        """Return the trials of a campaign in brief."""
        return self._get("lines", campaign, lambda source: source.archive.lines(campaign, brief=True))

    def outcomes(self, campaign: str) -> tuple[OutcomeRow, ...]:
        """Return the reasons for which trials of a campaign failed."""

        def count(source: Snapshot) -> tuple[OutcomeRow, ...]:
            return outcome_rows(source.archive.trials(campaign, failed=True, curves=False))

        return self._get("outcomes", campaign, count)

    def parents(self) -> Mapping[str, str]:
        """Return the parent of each proposed candidate that has one."""
        return self._get("parents", None, lambda source: source.archive.parents())

    def loops(self, name: str) -> Loops | None:
        """Return a closed loop, compared with others; None before its first cycle was judged."""
        return self._get(f"loop {name}", None, lambda source: loops(source.archive, name))

    def _get(self, name: str, campaign: str | None, compute: Callable[[Snapshot], T]) -> T:
        path = self.archive.path

        def again() -> T:
            # A connection belongs to its thread.
            with Archive.open(path or "", readonly=True) as archive:
                return compute(Snapshot(archive, self._shared))

        version = self.archive.last_event_id(campaign)
        value, new = self._shared.get((self._file, name, campaign), version, partial(compute, self), again)
        self.stale |= not new
        return value
