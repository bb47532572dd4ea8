"""The command line: parses arguments, calls the packages below, prints results.

Results go to stdout, progress and notes to stderr. Each command's module is imported when the command is used, so
that importing this package loads neither torch nor transformers.
"""

from __future__ import annotations

import errno
import gc
import inspect
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_origin

from cyclopts import (
    App,
    Argument,
    ArgumentCollection,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    Token,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)
from docstring_parser import parser as docstrings

from nngen import __version__
from nngen.cli.config import ENVIRONMENT, read_config, read_project
from nngen.cli.output import (
    Talk,
    begin_output,
    detail,
    guard_streams,
    lost_output,
    note,
    print_error,
    set_talk,
    suggestion,
    talk,
)
from nngen.errors import NngenError, UsageError
from nngen.ranges import Range
from nngen.text import clean, did_you_mean

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


AFTERWARDS: list[Callable[[], str]] = []
"""Errors that are known when a command has ended: texts, empty where nothing happened."""

_OPEN_FILES, _FEWEST_OPEN_FILES = 16_384, 64
"""Files that a process may open: as many as campaigns with many workers need, and with fewer than these none runs."""

_LISTS = ("--families", "--exclude", "--include", "--rungs", "--tasks", "--region")
_FALSE = ("false", "0", "no", "off")
_HELP = frozenset({"--help", "-h"})
_ATTRIBUTES = "add_attribute_docstrings"  # of docstring_parser: searches the sources of classes
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def check_values(_: App, __: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Set how much is printed, then refuse values that the commands cannot use: see ``_refusal``."""
    for name, level in (("--verbose", Talk.VERBOSE), ("--quiet", Talk.QUIET)):
        if any(token.value.lower() not in _FALSE for item in arguments if item.name == name for token in item.tokens):
            set_talk(level)
    for argument in arguments:
        for token in argument.tokens:
            reason = _refusal(token.value, _types(argument.hint), argument)
            if reason:
                place, name = place_of(token)
                raise UsageError(f"{place}{name or argument.name} {reason}")
            if token.source not in ("", "cli"):
                detail(f"{argument.name} {token.value} comes from {token.source}")


def _types(hint: Any) -> set[Any]:
    """Return the plain types of an annotation: those of a union, and without what ``Annotated`` adds."""
    if get_origin(hint) is Annotated:
        return _types(get_args(hint)[0])
    return {hint}.union(*map(_types, get_args(hint))) if get_args(hint) else {hint}


def _refusal(text: str, types: set[Any], argument: Argument) -> str:
    """Return the reason against a value as a phrase; empty where cyclopts decides."""
    if "\0" in text:
        return "holds a null byte"
    if Path not in types and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # bytes that are not UTF-8, which only a path may hold
            return "is not UTF-8 text"
    # Lists of numbers are read by a converter of their own.
    if not types & {int, float} or any(get_origin(kind) is tuple for kind in types):
        return ""
    kind = int if int in types else float
    validators: Any = argument.parameter.validator
    limits = next((one for one in validators if isinstance(one, Range)), Range.of(kind))
    try:
        # cyclopts reads "8.5" as a whole number by int(float(...)), and whole numbers of any base and length.
        number = int(text, 0) if kind is int and "." not in text else float(text)
    except ValueError:
        number = None
    return f"must be {limits}, not {text!r}" if limits.refusal(number) else ""


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
            _check_process()
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
        message, kind, code = _message(error), UsageError.__name__, UsageError.exit_code
    except NngenError as error:
        message, kind, code = str(error), type(error).__name__, error.exit_code
        _show_origin()
    except OSError as error:
        message, kind, code = _os_message(error), OSError.__name__, 1
        _show_origin()
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


def _show_origin() -> None:
    """Print where the error that is handled arose, with --verbose."""
    if talk() is Talk.VERBOSE:
        print(clean(traceback.format_exc(), None, lines=True), file=sys.stderr, flush=True)


def _check_process() -> None:
    """Refuse to work in a folder that is gone, or with too few open files; the limit is raised where it may be.

    Raises:
        NngenError: If the folder or the limit cannot be worked with.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise NngenError("the working folder is gone: change to one that exists") from None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < _OPEN_FILES:
        soft = _OPEN_FILES if hard == unlimited else min(_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != unlimited and soft < _FEWEST_OPEN_FILES:
        needed = f"nngen needs {_FEWEST_OPEN_FILES}"
        raise NngenError(f"only {soft} files may be open at a time, and {needed}: ulimit -n {_OPEN_FILES}")


def _os_message(error: OSError) -> str:
    """Describe an error of the operating system that no command expected, by its file and its reason."""
    if error.errno == errno.EMFILE:
        return f"too many open files: ulimit -n {_OPEN_FILES}, or use fewer workers"
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or error}"


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


def _message(error: CycloptsError) -> str:
    """Describe a parsing error in one line that names the value and the way out."""
    command = " ".join(error.command_chain or ())
    see = f"see nngen {command} --help"
    match error:
        case UnknownCommandError():
            # The chain ends at the group whose command is unknown.
            word = error.unused_tokens[0] if error.unused_tokens else ""
            group = app[error.command_chain[0]] if error.command_chain else None
            known = _COMMANDS if group is None else [name for name in group if not name.startswith("-")]
            hint = did_you_mean(word, known, otherwise=see.replace("  ", " "))
            return f"no command{command and ' of '}{command} is called {word!r}: {hint}"
        case MissingArgumentError() if error.argument is not None:
            what = f"a value after {error.keyword}" if error.keyword else error.argument.name
            return f"{command} needs {what}: {see}"
        case UnusedCliTokensError() if error.unused_tokens:
            return (
                f"{command}: unexpected argument {' '.join(error.unused_tokens)}: {_listed_with_spaces(error) or see}"
            )
        case UnknownOptionError():
            return _unknown_option(error, see)
        case CoercionError() if error.token is not None and error.argument is not None and error.target_type in _KINDS:
            place, name = place_of(error.token)
            return (
                f"{place}{name or error.argument.name} must be {_KINDS[error.target_type]}, not {error.token.value!r}"
            )
        case ValidationError() if error.argument is not None and error.argument.tokens:
            place, name = place_of(error.argument.tokens[0])
            return f"{place}{name or error.argument.name} {error.exception_message}"
    return str(error)


def _listed_with_spaces(error: UnusedCliTokensError) -> str:
    """Return the list that a user may have meant by words after an option; empty where none takes a list."""
    words, unused = error.root_input_tokens or [], error.unused_tokens or []
    before = words[: words.index(unused[0])] if unused and unused[0] in words else []
    option = next((word for word in reversed(before) if word.startswith("-")), "")
    if option not in _LISTS:
        return ""
    names = [*before[before.index(option) + 1 :], *unused]
    return f"a list has commas: {option} {','.join(names)}"


def _unknown_option(error: UnknownOptionError, see: str) -> str:
    # A token from the command line holds the option as typed; one from a file is placed by the file's name and key.
    names = [name for argument in error.argument_collection for name in argument.names if name.startswith("--")]
    if error.token.source in ("", "cli"):
        option = error.token.keyword or error.token.value
        return f"unknown option {option}: {did_you_mean(option, names, otherwise=see)}"
    place, key = place_of(error.token)
    keys = [name.removeprefix("--").replace("-", "_") for name in names]
    return f"{place}unknown key {key}: {did_you_mean(key.replace('-', '_'), keys, otherwise=see)}"


def place_of(token: Token) -> tuple[str, str]:
    """Return the file that a token was read from, as a prefix, and the option or key as its user wrote it."""
    keyword = token.keyword or ""
    return ("", keyword) if token.source in ("", "cli", "env") else (f"{token.source}: ", keyword.strip("[]"))
