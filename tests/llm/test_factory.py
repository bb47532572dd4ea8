"""Registry of rewriters: names, help and error messages come from its entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from nngen.errors import MissingExtraError, RewriterError
from nngen.llm.rewriters import transformers_local
from nngen.llm.rewriters.base import REWRITERS, Kind, Options, Request, Rewriter, RewriterEntry, register
from nngen.llm.rewriters.baselines import Baseline
from nngen.llm.rewriters.factory import LOCAL_MODEL, entry_of, open_rewriter, rewriter_help


class Echo(Baseline):
    """Toy rewriter that returns the given code."""

    name = "echo"

    def write(self, request: Request, rng: Random) -> str | None:
        return request.code or None


@pytest.fixture
def toy() -> Iterator[RewriterEntry]:
    entry = RewriterEntry(
        argument="echo",
        purpose="the same again",
        matches=lambda argument: argument == "echo",
        create=lambda _argument, _options: Echo(),
        trusted=True,
    )
    yield register(entry)
    REWRITERS.remove(entry)


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(argument: str, _: Options) -> None:
        raise RewriterError(f"{argument} cannot be loaded: gone")

    monkeypatch.setattr(transformers_local, "Local", refuse)


def test_one_entry_adds_a_rewriter(toy: RewriterEntry) -> None:
    rewriter = open_rewriter("echo")
    assert isinstance(rewriter, Rewriter)
    assert entry_of("echo") is toy
    assert "echo (the same again)" in rewriter_help()
    reply = rewriter.propose([Request(kind=Kind.REGION, messages=(), seed=0, code="x = 1")])[0]
    assert reply.text == "```python\nx = 1\n```"


def test_without_the_entry_the_name_is_that_of_a_model() -> None:
    assert entry_of("echo") is LOCAL_MODEL
    assert "echo" not in rewriter_help()


@pytest.mark.parametrize("name", ["random", "mutate", "cross"])
def test_baselines_are_trusted_and_not_tunable(name: str) -> None:
    entry = entry_of(name)
    assert entry.trusted
    assert not entry.tunable
    assert open_rewriter(name).trusted


def test_every_form_stands_in_the_help() -> None:
    text = rewriter_help()
    assert all(entry.argument in text for entry in (*REWRITERS, LOCAL_MODEL))


@pytest.mark.parametrize(
    ("name", "hint"), [("randm", "did you mean random? "), ("x", ""), ("echoo", "did you mean echo? ")]
)
@pytest.mark.usefixtures("unloadable", "toy")
def test_an_unknown_name_is_answered_with_the_rewriters_without_a_model(name: str, hint: str) -> None:
    with pytest.raises(RewriterError) as refused:
        open_rewriter(name)
    message, names = str(refused.value).split("rewriters without a model: ")
    assert message == f"{name} cannot be loaded: gone; {hint}"
    assert [*names.split(", ")] == [entry.argument for entry in REWRITERS if ":" not in entry.argument]
    assert {"random", "mutate", "cross", "tpe", "echo"} <= {*names.split(", ")}


@pytest.mark.parametrize("argument", ["./randm", "randm.gguf", "me/randm", "folder", "m" * 400])
@pytest.mark.usefixtures("unloadable")
def test_a_model_that_cannot_be_loaded_is_not_taken_for_a_misspelt_name(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    for name, options in ((argument, None), ("randm", Options(adapter=Path("adapter")))):
        with pytest.raises(RewriterError, match=r"cannot be loaded: gone$"):
            open_rewriter(name, options)


def test_options_that_do_not_fit_are_refused_with_the_forms_that_take_them() -> None:
    local = "hybrid:MODEL or sequential:MODEL or MODEL"
    with pytest.raises(RewriterError, match=f"--adapter is for --rewriter {local}, not for mutate"):
        open_rewriter("mutate", Options(adapter=Path("adapter")))
    with pytest.raises(RewriterError, match="--model is for --rewriter http://HOST:PORT, not for random"):
        open_rewriter("random", Options(model="small"))
    with pytest.raises(RewriterError, match=f"--quantize is for --rewriter {local}, not for mutate"):
        open_rewriter("mutate", Options(quantize=True))
    with pytest.raises(RewriterError, match="a base in 4 bits needs a CUDA device"):
        open_rewriter("model", Options(quantize=True))
    with pytest.raises(RewriterError, match=r"--rewriter is empty: write random \(uniform draws\), mutate"):
        open_rewriter("")


def test_a_misspelt_name_is_answered_so_without_the_packages_of_models_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise MissingExtraError("transformers", "llm")

    monkeypatch.setattr(transformers_local, "Local", missing)
    with pytest.raises(RewriterError, match=r"transformers is not installed: .*; did you mean random\? rewriters"):
        open_rewriter("randm")
    with pytest.raises(MissingExtraError):
        open_rewriter("some/model")
