"""The command line: parse, call, print. Importing it loads neither torch nor transformers."""

from __future__ import annotations

import inspect
import os
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownCommandError, UnusedCliTokensError

from nngen import __version__
from nngen.errors import NngenError
from nngen.text import did_you_mean

__all__ = ["app", "main"]

app = App(
    name="nngen",
    help="Search mixtures of experts made of LEMUR's families: assemble, check, train, explain, propose, export.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # it has its one line and its exit code below
)

_COMMANDS = {
    "lemur": ("nngen.cli.lemur:app", "Bring LEMUR here, read its records, import them."),
    "families": ("nngen.cli.families:families", "List LEMUR's families: what each accepts, costs and reached."),
    "sample": ("nngen.cli.sample:sample", "Print quartets in a sampler's order."),
    "plans": ("nngen.cli.plans:app", "Look at the presets: mixtures as plan files."),
    "assemble": ("nngen.cli.assemble:assemble", "Write mixtures as self-contained PyTorch files."),
    "check": ("nngen.cli.check:check", "Prove that files work: contract, import, shapes, one step, gradients."),
    "train": ("nngen.cli.train:train", "Train one file in an isolated worker and score it outside."),
    "campaign": ("nngen.cli.campaign:app", "Sample, assemble, check, train and store; resumes where it stopped."),
    "leaderboard": ("nngen.cli.leaderboard:leaderboard", "Rank what was trained."),
    "show": ("nngen.cli.show:show", "Everything the archive knows of one candidate."),
    "coverage": ("nngen.cli.coverage:coverage", "Audit what a sample covers and what it cannot tell."),
    "effects": ("nngen.cli.effects:effects", "Effects of families and pairs, with intervals."),
    "cost": ("nngen.cli.cost:cost", "What trials cost, and what a campaign will."),
    "report": ("nngen.cli.report:report", "Write a campaign's report as one HTML file."),
    "llm-propose": (
        "nngen.cli.llm_propose:llm_propose",
        "Let a rewriter propose better mixtures, check and train them.",
    ),
    "prompts": ("nngen.cli.prompts:app", "Look at what rewriters are asked."),
    "dataset": ("nngen.cli.dataset:app", "Write what the archive teaches as a data set to tune a model on."),
    "finetune": ("nngen.cli.finetune:finetune", "Tune a model on the feedback set with LoRA."),
    "evolve": ("nngen.cli.evolve:evolve", "Close the loop: propose, check, train, build, tune, again."),
    "predict-accuracy": (
        "nngen.cli.predict_accuracy:predict_accuracy",
        "Predict the accuracy of a plan nobody trained.",
    ),
    "export": ("nngen.cli.export:export", "Hand validated mixtures back to LEMUR."),
}

for _name, (_path, _help) in _COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def main() -> NoReturn:
    """Run the command line and leave with its exit code: 0, 1, 2, 3 or 130."""
    sys.exit(run(sys.argv[1:]))


def run(tokens: list[str]) -> int:
    """Run one command and return its exit code; errors become one line on stderr."""
    try:
        if tokens and tokens[0] in _COMMANDS:
            _prepare(tokens[0])
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except UnknownCommandError as error:
        word = error.unused_tokens[0] if error.unused_tokens else ""
        hint = did_you_mean(word, _COMMANDS, otherwise="see nngen --help")
        return _fail(f"no command is called {word!r}: {hint}", code=2)
    except CycloptsError as error:
        return _fail(_said(error), code=2)
    except NngenError as error:
        return _fail(str(error), code=error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away; a second flush at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from here", code=130)
    return 0


def _prepare(name: str) -> None:
    """Load one command; the line it has in the overview gives way to its own help."""
    path, _ = _COMMANDS[name]
    del app[name]
    app.command(path, name=name)
    _document(app[name])


def _document(command: App) -> None:
    """Show the examples of a command's docstring below its help, and those of its subcommands."""
    doc = inspect.getdoc(command.default_command) if command.default_command else None
    if doc:
        _, _, examples = doc.partition("\nExamples:\n")
        command.help_epilogue = f"Examples:\n\n{examples}" if examples else None
    for name in command:
        if not name.startswith("-"):
            _document(command[name])


def _said(error: CycloptsError) -> str:
    """Say in our words what was typed wrongly, where cyclopts's own do not name the way out."""
    command = " ".join(error.command_chain or ())
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        what = f"a value after {error.keyword}" if error.keyword else error.argument.name
        return f"{command} needs {what}: see nngen {command} --help"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"{command} has no use for {' '.join(error.unused_tokens)}: see nngen {command} --help"
    return str(error)


def _fail(message: str, *, code: int) -> int:
    line = " ".join(message.split())
    print(f"nngen: {line}", file=sys.stderr)
    return code
