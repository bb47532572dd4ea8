"""README and documentation: every block runs, links lead somewhere, words and references are complete."""

from __future__ import annotations

import enum
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import nngen
from nngen.assembly.registries import GATES, KINDS, LOSSES
from nngen.campaign_spec import SCHEDULERS
from nngen.checks.dynamic import dynamic_rules
from nngen.checks.static import static_rules
from nngen.families.trust import LEVELS
from nngen.llm.finetuning.config import METHODS
from nngen.llm.finetuning.splits import Task
from nngen.llm.rewriters.base import Kind
from nngen.llm.rewriters.factory import REWRITERS
from nngen.space import SAMPLERS
from nngen.types import AUGMENTATIONS, Outcome

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("design/*.md"))]
TRANSCRIPT = DOCS / "transcript.md"
WRITE = "WRITE_TRANSCRIPT" in os.environ
"""Whether the outputs of the transcript are written anew."""

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language; those with a further word, as ``skip``, are left out."""
    return [text for found, text in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def run(command: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "bash") or blocks(page, "python")],
    ids=lambda page: page.stem,
)
def test_every_block_runs(page, tmp_path, wheel):
    if page.stem == "llm":
        pytest.importorskip("trl")
    for folder in ("examples", "eval"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for block in blocks(page, "bash"):
        done = run(["bash", "-euo", "pipefail", "-c", block], tmp_path)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    (tmp_path / "page.py").write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    done = run([sys.executable, "page.py"], tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    if page.stem == "README":
        assert (tmp_path / "report.html").stat().st_size > 10_000
        assert (tmp_path / "best" / "README.md").exists()
    if page.stem == "python":
        assert "True valid" in done.stdout
        assert "did you mean" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs(tmp_path, wheel):
    pytest.importorskip("pandas")
    cells = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    # The value of a cell's last line is what the notebook shows.
    shown = [re.sub(r"(?m)^(?=\S)(?!.*(?: = |import ))(.+)\Z", r"print(repr((\1)))", text) for text in code]
    done = run([sys.executable, "-c", "\n".join(shown)], tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "(True, 'valid')" in done.stdout


def masked(text: str) -> list[str]:
    """Return the lines of an output without what differs between machines: numbers, ids, widths."""
    text = re.sub(r"\b[0-9a-f]{8,}\b|\d[\d,.]*", "0", text)
    return [" ".join(re.sub("─+", "─", line).split()) for line in text.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_transcript_is_what_happens(tmp_path, wheel):
    """Each line of output on the page is printed by its command; ``...`` stands for lines that are left out."""
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images[:500], digits.target[:500], strict=True)):
        if label < 3:
            file = tmp_path / "photos" / ("zero", "one", "two")[label] / f"{number:03}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).resize((24, 24)).convert("RGB").save(file)
    page = TRANSCRIPT.read_text(encoding="utf-8")
    for block in blocks(TRANSCRIPT, "console"):
        fresh = []
        for call, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            done = run(["bash", "-c", f"{call} 2>&1"], tmp_path)
            assert done.returncode == 0, f"{call}\n{done.stdout}"
            fresh.append(f"$ {call}\n{done.stdout}")
            printed = masked(done.stdout)
            lost = [line for line in masked(shown) if line not in ("", "...") and line not in printed]
            assert WRITE or not lost, f"{call}\n{lost}\n{done.stdout}"
        page = page.replace(block, "".join(fresh))
    if WRITE:
        TRANSCRIPT.write_text(page, encoding="utf-8")


def test_steps_of_the_notebook_are_short():
    for cell in json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]:
        lines = [line for line in "".join(cell["source"]).splitlines() if line and "import " not in line]
        assert cell["cell_type"] == "markdown" or len(lines) <= 4, lines


def test_blocks_run_or_say_why_not():
    known = ("bash", "python", "bash skip", "python skip", "console", "toml", "json", "text", "", "{toctree}")
    wrong = []
    for page in PAGES:
        for found, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if found not in known:
                wrong.append(f"{page.name}: ```{found}")
            lines = text.splitlines() if found == "console" and page.parent == DOCS and page != TRANSCRIPT else []
            wrong += [f"{page.name}: {line}" for line in lines if not line.startswith("$ ")]
    assert not wrong, "\n".join(wrong)


def test_every_file_that_states_the_version_states_this_one():
    stated = {
        "CITATION.cff": rf"^version: {re.escape(nngen.__version__)}$",
        "CHANGELOG.md": rf"^## {re.escape(nngen.__version__)} \(\d{{4}}-\d\d-\d\d\)$",
        "docs/clusters.md": rf"nngen:{re.escape(nngen.__version__)}\b",
        "examples/kuberay/Dockerfile": rf"nngen:{re.escape(nngen.__version__)}\b",
        "examples/kuberay/raycluster.yaml": rf"image: \S+/nngen:{re.escape(nngen.__version__)}$",
    }
    for name, pattern in stated.items():
        assert re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE), name


def test_links_lead_somewhere():
    wrong = []
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path = target.partition("#")[0]
            generated = path.startswith("reference/")  # made by docs/generated_pages.py
            if path and "://" not in path and not generated and not (page.parent / path).exists():
                wrong.append(f"{page.relative_to(ROOT)}: {target}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_the_site():
    listed = (DOCS / "index.md").read_text(encoding="utf-8")
    names = {path.stem for path in DOCS.glob("*.*") if path.suffix in (".md", ".ipynb")} - {"index"}
    assert {name for name in names if not re.search(rf"^{name}$", listed, re.MULTILINE)} == set()
    decisions = (DOCS / "design" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (DOCS / "design").glob("[0-9]*.md") if f"({path.name})" not in decisions} == set()


def test_words_has_every_name_that_options_take():
    text = (DOCS / "words.md").read_text(encoding="utf-8")
    enums: list[type[enum.StrEnum]] = [Outcome, Kind, Task]
    names = [str(item) for kind in enums for item in kind]
    names += [*SAMPLERS, *SCHEDULERS, *AUGMENTATIONS, *LEVELS, *METHODS, *GATES, *KINDS, *LOSSES]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_words_has_every_check_rule_in_its_order():
    _, _, rest = (DOCS / "words.md").read_text(encoding="utf-8").partition("Rules of a check, in their order:")
    listed = re.findall(r"^\| `([^`]+)` \|", rest.partition("\n## ")[0], re.MULTILINE)
    assert listed == [rule.name for rule in (*static_rules(), *dynamic_rules())]


def test_pages_have_every_rewriter():
    words, llm = ((DOCS / name).read_text(encoding="utf-8") for name in ("words.md", "llm.md"))
    assert [entry.argument for entry in REWRITERS if f"`{entry.argument}`" not in words] == []
    assert [entry.argument for entry in REWRITERS if not entry.takes and f"`{entry.argument}`" not in llm] == []


def test_words_are_in_use():
    """A word on the page is in a help text, a message, a column or another page."""
    words = re.findall(r"^\| ([^|`]+?) \|", (DOCS / "words.md").read_text(encoding="utf-8"), re.MULTILINE)
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "nngen").rglob("*.py")]
    texts += [page.read_text(encoding="utf-8") for page in PAGES if page.stem != "words"]
    everything = "\n".join(texts).lower().replace("_", " ").replace("-", " ")
    single = [word.strip() for entry in words if entry != "word" for word in entry.split(",")]
    assert [word for word in single if word.lower().replace("-", " ").rstrip("s") not in everything] == []


def test_the_reference_has_every_command_and_option():
    spec = importlib.util.spec_from_file_location("generated_pages", DOCS / "generated_pages.py")
    generated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generated)
    for name, page in generated.command_pages().items():
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert [row for row in rows if len(re.split(r"(?<!\\)\|", row)) != 5] == [], "a bar inside of a cell"
        for words, command in generated.subcommands(name, generated.command_app(name)):
            assert f"nngen {words}" in page
            flags = {flag for argument in command.assemble_argument_collection() for flag in argument.names}
            assert [flag for flag in flags if flag.startswith("-") and f"`{flag}`" not in page] == []
    python = generated.python_page()
    assert [name for name in nngen.__all__ if name != "__version__" and f"nngen.{name}\n" not in python] == []


def test_the_python_page_shows_every_public_name():
    shown = "\n".join(blocks(DOCS / "python.md", "python"))
    for name in nngen.__all__:
        assert name == "__version__" or re.search(rf"\b{name}\b", shown), f"python.md does not show {name}"


def test_each_public_name_is_the_one_of_its_module():
    for name in nngen.__all__:
        assert getattr(nngen, name) is not None
    assert set(nngen.__all__) <= set(dir(nngen))
    with pytest.raises(AttributeError, match="module 'nngen' has no attribute 'nothing'"):
        _ = nngen.nothing
