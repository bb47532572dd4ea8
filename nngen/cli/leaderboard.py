"""``nngen leaderboard``: rank what was trained."""

from __future__ import annotations

from pathlib import Path

from nngen.cli.output import print_json, print_table

__all__ = ["leaderboard"]

_COLUMNS = (
    "rank",
    "id",
    "experts",
    "dataset",
    "epochs",
    "batch",
    "seeds",
    "validation_accuracy",
    "test_accuracy",
    "seconds",
    "parameters",
)


def leaderboard(
    *, campaign: str | None = None, top: int | None = None, archive: Path | None = None, json: bool = False
) -> None:
    """Rank what was trained, by validation accuracy within each data set.

    Trials of one candidate that differ in the seed alone are one row, with their mean. The test accuracy
    stands where it was revealed: for the best candidate of a finished campaign.

    Args:
        campaign: Only what this campaign trained.
        top: Rows to show per data set; all of them by default.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the rows as JSON.

    Examples:
        nngen leaderboard
        nngen leaderboard --campaign demo --top 5
        nngen leaderboard --json
    """
    from nngen.analysis.leaderboard import leaderboard as rank
    from nngen.archive import Archive, default_path
    from nngen.errors import UsageError

    if top is not None and top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    with Archive.open(archive or default_path(), readonly=True) as store:
        if campaign is not None:
            store.campaign(campaign)
        rows = [row.to_dict() for row in rank(store.trials(campaign), top=top)]
    if json:
        print_json(rows)
    elif not rows:
        print("nothing was trained yet")
    else:
        print_table([row | {"id": row["id"][:13], "experts": ", ".join(row["experts"])} for row in rows], _COLUMNS)
