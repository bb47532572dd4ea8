"""The command line: parses arguments, calls the packages below, prints results.

Results go to stdout, progress and notes to stderr. Each command's module is imported when the command is used, so
that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import gc
import inspect
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import NoReturn

from cyclopts import App, ArgumentCollection, CycloptsError, Parameter
from docstring_parser import parser as docstrings

from nngen import __version__
from nngen.cli.config import ENVIRONMENT, read_config, read_project
from nngen.cli.errors import AFTERWARDS, check_process, check_values, os_message, parsing_message, show_origin
from nngen.cli.output import begin_output, detail, guard_streams, lost_output, note, print_error, suggestion
from nngen.errors import NngenError, UsageError

__all__ = ["app", "main"]

_COMMANDS = {
    "config": ("nngen.cli.config:app", "Show and write nngen.toml, a project's values of options."),
    "doctor": ("nngen.cli.doctor:doctor", "Examine this machine; name the command that mends each problem."),
    "lemur": ("nngen.cli.lemur:app", "Fetch LEMUR; read, import and replay its records."),
    "families": ("nngen.cli.lemur:families", "List LEMUR's families: accepted shapes, size, best result."),
    "sample": ("nngen.cli.sample:sample", "Print quartets of families in a sampler's order."),
    "plans": ("nngen.cli.plans:app", "List, show and copy the plans that ship with nngen."),
    "assemble": ("nngen.cli.assemble:assemble", "Write mixtures as self-contained PyTorch files."),
    "check": ("nngen.cli.check:check", "Check files: contract, import, shapes, one step, gradients."),
    "train": ("nngen.cli.train:train", "Train files in isolated workers and score them outside."),
    "campaign": ("nngen.cli.campaign:app", "Sample, assemble, check, train and store; resumes after any stop."),
    "leaderboard": ("nngen.cli.results:leaderboard", "Rank the trained candidates."),
    "show": ("nngen.cli.results:show", "Show one candidate: plan, checks, trials, curves."),
    "diff": ("nngen.cli.results:diff", "Compare two candidates: plans, results, sources."),
    "predict": ("nngen.cli.predict:predict", "Predict the classes of image files with kept weights."),
    "ensemble": ("nngen.cli.predict:ensemble", "Average several models; compare the mean with each of them."),
    "fidelity": ("nngen.cli.fidelity:fidelity", "Compare rankings after few epochs with those after many."),
    "coverage": ("nngen.cli.coverage:coverage", "Measure how much of the space a sample covers, and how evenly."),
    "effects": ("nngen.cli.effects:effects", "Estimate effects of families and pairs, with intervals."),
    "cost": ("nngen.cli.report:cost", "Add up the cost of a campaign and forecast the next."),
    "report": ("nngen.cli.report:report", "Write a campaign's report as one HTML file."),
    "dashboard": ("nngen.cli.report:dashboard", "Serve a live page on an archive, for a browser on this machine."),
    "llm-propose": ("nngen.cli.llm_propose:llm_propose", "Propose mixtures with a rewriter; check and train them."),
    "prompts": ("nngen.cli.prompts:app", "List, show and render the prompts of rewriters."),
    "llm": ("nngen.cli.prompts:llm", "Fetch a small language model to try the loop with."),
    "feedback": ("nngen.cli.finetune:feedback", "Build a data set from the archive for tuning a model."),
    "finetune": ("nngen.cli.finetune:finetune", "Tune a model on a feedback set with LoRA."),
    "adapter": ("nngen.cli.finetune:adapters", "Merge an adapter into its base."),
    "evolve": ("nngen.cli.evolve:evolve", "Run the closed loop: propose, check, train, tune, repeat."),
    "experts": ("nngen.cli.surrogate:experts", "Train every family alone, once, to rank all their mixtures."),
    "surrogate": ("nngen.cli.surrogate:surrogate", "Rank all mixtures of families by what the families do alone."),
    "predict-accuracy": (
        "nngen.cli.predict_accuracy:predict_accuracy",
        "Predict the accuracy of a plan that was not trained.",
    ),
    "archive": ("nngen.cli.doctor:archive", "Check an archive; save what can be read of a damaged one."),
    "export": ("nngen.cli.export:export", "Export trained mixtures to LEMUR."),
}


_HELP = frozenset({"--help", "-h"})
_ATTRIBUTES = "add_attribute_docstrings"  # of docstring_parser: searches the sources of classes


app = App(
    name="nngen",
    help="Search mixtures of experts made of LEMUR's families: assemble, check, train, explain, propose, export.",
    version=__version__,
    help_format="markdown",
    config=(read_config, ENVIRONMENT, partial(read_project, known=tuple(_COMMANDS)), check_values),
    suppress_keyboard_interrupt=False,  # run() reports it in one line with its own exit code
)

for _name, (_path, _help) in _COMMANDS.items():
    app.command(_path, name=_name, help=_help)


def main() -> NoReturn:
    """Run the command line and exit with its code: 0, 1, 2, 3 or 130."""
    guard_streams()
    code = run(sys.argv[1:])
    gc.freeze()  # the process ends: nothing is left to look for in what is still alive
    with suppress(OSError):
        sys.stdout.flush()
        sys.exit(code)
    # Flushing at exit would raise once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def run(tokens: list[str]) -> int:
    """Run one command and return its exit code; an error becomes one line on stderr, with ``--json`` an object too."""
    start = time.monotonic()
    begin_output()
    as_json = "--json" in tokens
    code = _run(tokens, as_json)
    lost, following = lost_output(), suggestion()
    # The reader (head, less) may go away when it has seen enough; every other reason is a failure.
    if lost is not None and not isinstance(lost, BrokenPipeError):
        print_error(f"cannot write the results to stdout: {lost.strerror}", kind="OSError", code=1, as_json=False)
        return code or 1
    usage = resource.getrusage(resource.RUSAGE_SELF)
    detail(f"{time.monotonic() - start:.1f} s, {usage.ru_maxrss / 1024:,.0f} MiB at most in this process")
    if following is not None and code == 0 and lost is None:
        note(following, prefix="next: nngen ")
    return code


def _run(tokens: list[str], as_json: bool) -> int:
    AFTERWARDS.clear()
    kind, code = NngenError.__name__, 0
    gc.disable()  # modules that are imported, and a help that is printed, leave nothing to collect
    try:
        # Only the command that is used is imported; the others keep the line that the overview shows.
        if tokens and tokens[0] in _COMMANDS:
            check_process()
            _load(tokens[0])
        helping = bool(_HELP.intersection(tokens))
        if not helping:
            gc.set_threshold(200_000, 10, 100)  # trials are read by the hundred thousand, and none of them is garbage
            gc.enable()
        # Errors are raised, not printed with rich's boxes; "return_value" keeps cyclopts from calling sys.exit.
        with _assembled_once() if helping else nullcontext():
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        message = next(filter(None, (text() for text in AFTERWARDS)), "")
        code = 1 if message else 0
    except CycloptsError as error:
        message, kind, code = parsing_message(error, app), UsageError.__name__, UsageError.exit_code
    except NngenError as error:
        message, kind, code = str(error), type(error).__name__, error.exit_code
        show_origin()
    except OSError as error:
        message, kind, code = os_message(error), OSError.__name__, 1
        show_origin()
    except KeyboardInterrupt:
        message, kind, code = "interrupted; run the same command again to go on", KeyboardInterrupt.__name__, 130
    finally:
        gc.enable()
    if code:
        print_error(message, kind=kind, code=code, as_json=as_json)
    return code


@contextmanager
def _assembled_once() -> Iterator[None]:
    """Assemble the arguments of a command once for its help, which asks for them three times.

    Sources are not searched for docstrings below attributes: nngen describes them in the docstring of their class.
    """
    assemble, parser = App.assemble_argument_collection, vars(docstrings)
    attributes = parser.get(_ATTRIBUTES)
    known: dict[int, ArgumentCollection] = {}

    def once(
        command: App, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        if id(command) not in known:
            known[id(command)] = assemble(command, default_parameter=default_parameter, parse_docstring=True)
        return known[id(command)]

    App.assemble_argument_collection = once  # type: ignore[method-assign, assignment]
    parser[_ATTRIBUTES] = lambda *_: None
    try:
        yield
    finally:
        App.assemble_argument_collection = assemble  # type: ignore[method-assign]
        parser[_ATTRIBUTES] = attributes


def _load(name: str) -> None:
    """Import one command; its line in the overview is replaced by its own help."""
    path, _ = _COMMANDS[name]
    # A lazy command keeps the help that it was registered with, so it is registered again without one.
    del app[name]
    app.command(path, name=name)
    _show_examples(app[name])


def command_app(words: str) -> App:
    """Return the application of a command, such as ``campaign run``."""
    name, *below = words.split()
    _load(name)
    found = app[name]
    for word in below:
        found = found[word]
    return found


def _show_examples(command: App) -> None:
    """Show the examples of a command's docstring below its help, and those of its subcommands."""
    doc = inspect.getdoc(command.default_command) if command.default_command else None
    if doc:
        # docstring_parser knows no section "Examples:" of plain lines, so cyclopts leaves it out of the help.
        _, _, examples = doc.partition("\nExamples:\n")
        command.help_epilogue = f"Examples:\n\n{examples}" if examples else None
    for name in command:
        if not name.startswith("-"):
            _show_examples(command[name])
