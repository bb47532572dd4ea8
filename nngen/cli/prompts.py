"""``nngen prompts``: look at what rewriters are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App

from nngen.cli.output import print_json, print_table

__all__ = ["app"]

app = App(name="prompts", help="Look at what rewriters are asked.")


@app.command
def ls(*, json: bool = False) -> None:
    """List the prompts.

    Args:
        json: Print the rows as JSON.

    Examples:
        nngen prompts ls
        nngen prompts ls --json
    """
    from nngen.llm.prompts import load_prompts

    rows = [
        {
            "name": item.name,
            "id": item.id,
            "output": item.output,
            "examples": item.examples,
            "budget": item.budget,
            "inputs": list(item.inputs),
            "purpose": item.purpose,
        }
        for item in load_prompts().values()
    ]
    if json:
        print_json(rows)
    else:
        print_table(rows, ("name", "id", "output", "examples", "budget", "purpose"))


@app.command
def show(name: str, /, *, json: bool = False) -> None:
    """Print a prompt as it is written: head and body.

    Args:
        name: The prompt's name.
        json: Print it as JSON.

    Examples:
        nngen prompts show plan
        nngen prompts show region --json
    """
    from dataclasses import asdict

    from nngen.llm.prompts import prompt

    found = prompt(name)
    if json:
        print_json(asdict(found) | {"id": found.id})
        return
    print(f"{found.id}: {found.purpose}")
    print(f"inputs: {', '.join(found.inputs)}; at most {found.examples} examples, {found.budget:,} tokens\n")
    print(f"[system]\n{found.system}\n\n[user]\n{found.body}")


@app.command
def render(
    name: str,
    /,
    *,
    parent: str | None = None,
    region: str = "gate",
    families: str | None = None,
    budget: int | None = None,
    tokenizer: str | None = None,
    archive: Path | None = None,
    json: bool = False,
) -> None:
    """Fill a prompt in from the archive, as ``llm-propose`` would, and say what did not fit.

    Args:
        name: plan, region or file.
        parent: Id of the candidate to improve on, or its beginning; the best by default.
        region: For the prompt of that name.
        families: The pool of a plan, separated by commas; every family by default.
        budget: Tokens that it may take; the prompt's own by default.
        tokenizer: Base model whose tokens are counted; three characters are one by default.
        archive: The archive's file; NNGEN_ARCHIVE or ./nngen.db by default.
        json: Print turns, tokens and what was left out as JSON.

    Examples:
        nngen prompts render plan
        nngen prompts render region --region mixing --budget 400
    """
    from nngen.archive import Archive, default_path
    from nngen.llm.prompts import estimate_tokens
    from nngen.llm.proposals.prompt_context import render_from_archive

    count: Any = estimate_tokens
    if tokenizer is not None:
        from nngen.llm.rewriters.transformers_local import load_tokenizer

        loaded = load_tokenizer(tokenizer)
        count = lambda text: len(loaded(text)["input_ids"])  # noqa: E731
    with Archive.open(archive or default_path(), readonly=True) as store:
        pool = None if families is None else [item.strip() for item in families.split(",")]
        filled = render_from_archive(
            store, name, parent=parent, region=region, families=pool, count=count, budget=budget
        )
    if json:
        turns = [turn.to_dict() for turn in filled.messages]
        told = {"prompt": filled.prompt, "tokens": filled.tokens, "omitted": list(filled.omitted), "messages": turns}
        print_json(told)
        return
    for turn in filled.messages:
        print(f"[{turn.role}]\n{turn.content}\n")
    left = f"; left out: {', '.join(filled.omitted)}" if filled.omitted else ""
    print(f"{filled.prompt}: {filled.tokens:,} tokens{left}")
