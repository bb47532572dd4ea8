"""The hostile corpus as families: measured in the sandbox, which contains every attack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from containment import Targets, contain_family
from corpus import ATTACKS

from nngen.datasets import Dataset
from nngen.families.probe import PRELOAD
from nngen.isolation import JobRunner

CORPUS = {attack.name: attack for attack in ATTACKS}
QUICK = ("read_home", "tcp", "forge_verdict", "fork_swarm")


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    with JobRunner(preload=PRELOAD) as runner:
        yield runner


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.corpus) for name in CORPUS]
)
def test_the_corpus_is_contained_as_families(name: str, cache: Path, digits: Dataset, runner: JobRunner) -> None:
    with Targets(digits) as targets:
        row = contain_family(CORPUS[name], runner, targets, slack_s=5.0)
    assert row.fault == "", row.verdict
