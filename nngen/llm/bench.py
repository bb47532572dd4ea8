"""What proposals stand on: the usable families at a shape, the data set, the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nngen.datasets import load_dataset
from nngen.errors import FamilyError
from nngen.families.catalogue import choose, load_families
from nngen.families.probe import profiles
from nngen.lemur.source import open_lemur
from nngen.llm.judging import EngineJudge
from nngen.space.pool import EXPERTS
from nngen.training import LocalEngine
from nngen.types import Family, Interface, Shape, TrialSpec

__all__ = ["Fidelity", "Ground", "lay"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How proposals are checked and trained.

    Attributes:
        shape: The data set's own where None.
        memory_mib: Limit on a worker's resident memory.
    """

    dataset: str = "digits"
    shape: Shape | None = None
    epochs: int = 1
    batch: int = 64
    lr: float = 1e-3
    device: str = "cpu"
    threads: int = 1
    wall_s: float = 3600.0
    memory_mib: int = 12_288


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Families that can be used, and who judges what is made of them."""

    families: Mapping[str, tuple[Family, Interface]]
    judge: EngineJudge


@contextmanager
def lay(
    fidelity: Fidelity,
    names: Sequence[str] | None = None,
    *,
    data_root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Ground]:
    """Measure the families, load the data set and start the engine; all ends with the block.

    Raises:
        FamilyError: If a family is unknown, or fewer than four can be used at the shape.
        DataError: If the data set is missing or broken.
    """
    known = load_families(open_lemur())
    chosen = choose(known, names if names is not None else known)
    dataset = load_dataset(fidelity.dataset, data_root=data_root)
    shape = fidelity.shape or dataset.default_shape
    found = profiles(chosen, shape, classes=dataset.classes, progress=progress)
    usable = {
        family.name: (family, profile.interface)
        for family in chosen
        if (profile := found[family.name]).usable and profile.interface is not None
    }
    if len(usable) < EXPERTS:
        raise FamilyError(f"only {len(usable)} of {len(chosen)} families can be used at {shape}, {EXPERTS} are needed")
    spec = TrialSpec(
        dataset=fidelity.dataset,
        shape=shape,
        epochs=fidelity.epochs,
        batch=fidelity.batch,
        lr=fidelity.lr,
        device=fidelity.device,
        threads=fidelity.threads,
        time_limit_s=fidelity.wall_s,
        memory_mib=fidelity.memory_mib,
    )
    with LocalEngine() as engine:
        yield Ground(families=usable, judge=EngineJudge(engine=engine, dataset=dataset, spec=spec))
