"""``nngen campaign ls`` and ``nngen campaign status``: the campaigns of an archive, and the status of one."""

from __future__ import annotations

from nngen.analysis.formatting import data_titles
from nngen.campaign.summary import read_status, summarise
from nngen.cli.options import ArchiveOptions, CampaignName
from nngen.cli.output import print_json, print_table, say
from nngen.cli.progress import print_status, print_summary, suggest_next

_SHOWN_FAILURES = 50


def ls(*, output: ArchiveOptions = ArchiveOptions()) -> None:
    """List the campaigns of an archive.

    Examples:
        nngen campaign ls
        nngen campaign ls --archive other.db --json
    """
    with output.read() as store:
        rows = []
        campaigns = store.campaigns()
        titles = data_titles((one.spec.dataset, one.data_fingerprint) for one in campaigns)
        for campaign in campaigns:
            found = summarise(store, campaign.name, brief=True).to_dict()
            best = found["best"]["validation_accuracy"] if found["best"] else None
            counts = {key: found[key] for key in ("campaign", "trials", "done", "failed")}
            suspect = found["best"]["suspect"] if found["best"] else ""
            more = {"dataset": titles[campaign.spec.dataset, campaign.data_fingerprint]}
            more |= {key: getattr(campaign.spec, key) for key in ("sampler", "epochs", "seed")}
            rows.append(counts | more | {"best_accuracy": best, "suspect": suspect, "created_at": campaign.created_at})
    if output.json:
        print_json(rows)
    elif rows:
        columns = [name for name in rows[0] if name != "suspect" or any(row["suspect"] for row in rows)]
        print_table([row | {"created_at": row["created_at"][:19]} for row in rows], columns)
    else:
        say("no campaign yet")


def status(campaign: CampaignName, /, *, output: ArchiveOptions = ArchiveOptions()) -> None:
    """Print the status of a campaign: trials, rungs, rate, budget, failures with their reasons, the best candidate.

    Examples:
        nngen campaign status first
        nngen campaign status first --json
    """
    with output.read() as store:
        stored = store.campaign(campaign)
        summary, stands = summarise(store, campaign), read_status(store, campaign)
        failures = [
            {
                "experts": list(trial.experts),
                "candidate": trial.candidate_id,
                "outcome": trial.verdict.outcome.value,
                "rule": trial.verdict.rule,
                "message": trial.verdict.message,
            }
            for trial in store.trials(
                campaign, failed=True, last=None if output.json else _SHOWN_FAILURES, curves=False
            )
            if trial.verdict is not None
        ]
    if output.json:
        more = {"standing": stands.to_dict(), "arguments": stored.arguments(), "failures": failures}
        print_json(summary.to_dict() | more)
        return
    if stored.spec.note:
        say(f"note: {stored.spec.note}")
    print_summary(summary)
    print_status(summary, stands)
    if failures:
        print_table(failures, ("outcome", "experts", "rule", "message"))
    if summary.failed > len(failures):
        print(f"the last {len(failures)} of {summary.failed:,} failures; --json lists all")
    suggest_next(summary, output, running=stands.driver is not None)
