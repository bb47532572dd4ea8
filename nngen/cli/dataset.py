"""``nngen dataset``: what the archive teaches, as a data set to tune a model on."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from nngen.cli.output import print_json, print_table

__all__ = ["app"]

app = App(name="dataset", help="Write what the archive teaches as a data set to tune a model on.")


@app.command
def build(
    *,
    out: Path,
    tokenizer: str | None = None,
    limit: int = 1024,
    tasks: str | None = None,
    seed: int = 0,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Write a feedback set: Parquet and JSONL for SFT, DPO and KTO in three splits, with a data card.

    No quartet, and no near-twin of one, is in two splits. What is longer than the limit is left out
    whole; no answer is cut.

    Args:
        out: Folder to write; an earlier feedback set there is replaced.
        tokenizer: Base model whose tokens are counted; three characters are one by default.
        limit: Most tokens of question and answer together.
        tasks: Only these, separated by commas: region, improve, summary, accuracy, code.
        seed: Of the split.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print the counts as JSON.

    Examples:
        nngen dataset build --out generated/feedback
        nngen dataset build --out generated/regions --tasks region --tokenizer model.gguf --json
    """
    from dataclasses import asdict

    from nngen.archive import Archive, default_path
    from nngen.llm.finetuning.dataset import build_from_archive, counter

    with Archive.open(archive or default_path(), readonly=True) as store:
        chosen = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
        built = build_from_archive(store, out, count=counter(tokenizer), limit=limit, tasks=chosen, seed=seed)
    told = {"folder": str(built.folder), "fingerprint": built.fingerprint, "counts": dict(built.counts)}
    told |= {"tasks": dict(built.tasks), "dropped": asdict(built.drops)}
    if json:
        print_json(told)
        return
    print_table([{"view": view, **counts} for view, counts in built.counts.items()], ("view", *built.counts["sft"]))
    drops = built.drops
    print(f"left out: {drops.long:,} too long, {drops.split:,} on account of the splits, {drops.twice:,} repeats")
    print(f"{out}: fingerprint {built.fingerprint[:12]}")
