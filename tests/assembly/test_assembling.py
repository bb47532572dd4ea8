"""Files assembled from plans: the same bytes in every process, self-contained, in LEMUR's contract."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from assembly_toys import GOLDEN, GOLDEN_KINDS, INTERFACES, TINY, golden_candidate, golden_digest, make_family

from nngen.assembly.assemble import assemble
from nngen.assembly.identity import TEMPLATE_VERSION, canonical_hash
from nngen.assembly.output import prepare_folder, write_candidate
from nngen.assembly.plan_toml import plan_of
from nngen.assembly.render import reserved_names
from nngen.errors import PlanError, UsageError
from nngen.families.family_scopes import top_level_names
from nngen.lemur.layout import nn_id
from nngen.plan import Gate, Losses, Plan, Recipe
from nngen.types import Candidate, Family, Interface

Mix = Callable[..., Candidate]
Load = Callable[[str], ModuleType]


@pytest.mark.parametrize("kind", GOLDEN_KINDS)
def test_the_golden_files(kind: str) -> None:
    # After an intended change: python tests/assembly/assembly_toys.py
    assert golden_candidate(kind).source == (GOLDEN / f"{kind}.py").read_text()


@pytest.mark.long
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_same_bytes_in_every_process(hash_seed: str, tmp_path: Path) -> None:
    code = "from assembly_toys import golden_candidate; print(golden_candidate().source, end='')"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": str(Path(__file__).parent),
        "NNGEN_CACHE": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == (GOLDEN / "hetero.py").read_text()


def test_a_candidate_carries_its_identity(mix: Mix) -> None:
    candidate = mix()
    assert candidate.id == f"MoE4-{nn_id(candidate.source)}"
    assert candidate.canonical == canonical_hash(candidate.source)
    assert candidate.plan == Plan(experts=TINY) == plan_of(candidate.source)


@pytest.mark.long
def test_every_part_of_a_plan_reaches_the_file(mix: Mix) -> None:
    plans = [
        {"gate": Gate(width=16)},
        {"gate": Gate(depth=2)},
        {"gate": Gate(temperature=2.0)},
        {"gate": Gate(noise=0)},
        {"losses": Losses(label_smoothing=0.2)},
        {"losses": Losses(balance=0)},
        {"recipe": Recipe(gate_rate=1.0)},
        {"recipe": Recipe(weight_decay=0.0)},
        {"recipe": Recipe(mixup=0)},
        {"recipe": Recipe(warmup=0)},
        {"recipe": Recipe(clip=3.0)},
        {"experts": TINY[::-1]},
        {"experts": TINY[:2]},
        {"experts": (*TINY, *TINY), "repeats": True},
        {"gate": Gate(routing="top-k")},
        {"gate": Gate(routing="top-k", k=1)},
        {"gate": Gate(routing="top-k"), "losses": Losses(load=0.1)},
        {"gate": Gate(routing="top-k"), "losses": Losses(bias=0.1)},
        {"gate": Gate(learned_noise=True)},
        {"losses": Losses(switch=0.1)},
        {"losses": Losses(z=0.1)},
        {"losses": Losses(entropy=0.1)},
        {"losses": Losses(diversity=0.1)},
        {"recipe": Recipe(optimizer="sgd")},
        {"recipe": Recipe(cutmix=1.0)},
        {"recipe": Recipe(cutmix=1.0, mixup=0)},
        {"recipe": Recipe(ema=0.9)},
        {"rates": (("TinyAux", 0.1),)},
        {"rates": (("TinyAux", 0.2),)},
    ]
    candidates = [mix(**plan) for plan in ({}, *plans)]
    assert len({candidate.canonical for candidate in candidates}) == len(candidates)
    for candidate in candidates:
        assert candidate.canonical == canonical_hash(candidate.source)
        assert plan_of(candidate.source) == candidate.plan


def test_the_file_reads_well(mix: Mix) -> None:
    lines = mix().source.splitlines()
    assert max(map(len, lines)) <= 120
    assert not [line for line in lines if line != line.rstrip()]
    headings = [line for line in lines if line.startswith("# Expert") or line == "# The mixture"]
    assert headings == [*(f"# Expert {place}: {name}" for place, name in enumerate(TINY, 1)), "# The mixture"]


def test_every_import_of_the_frame_is_used_and_none_is_missing(mix: Mix) -> None:
    tree = ast.parse(mix().source)
    bound = [
        alias.asname or alias.name.partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    assert len(bound) == len(set(bound))
    frame = ast.Module([node for node in tree.body if not _is_family(node)], [])
    used = {node.id for node in ast.walk(frame) if isinstance(node, ast.Name)}
    assert set(bound) - {"cache"} <= used
    assert "WeightsEnum" not in mix().source


def _is_family(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(ast.unparse(item) == "cache" for item in node.decorator_list)


def test_every_name_of_the_frame_is_reserved(mix: Mix) -> None:
    everything = mix(
        gate=Gate(routing="top-k"),
        losses=Losses(load=0.1, switch=0.1, z=0.1, bias=0.1, entropy=0.1, diversity=0.1),
        recipe=Recipe(cutmix=1.0, ema=0.9),
    )
    bound: set[str] = set()
    for source in (everything.source, golden_candidate("homogeneous").source):
        bound |= top_level_names(node for node in ast.parse(source).body if not _is_family(node))
    assert bound <= reserved_names()
    assert {
        "EXPERTS",
        "WeightAverage",
        "top_k_weights",
        "DIVERSITY",
        "cutmix",
        "Trunk",
        "nn",
        "float",
    } <= reserved_names()


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ((), "takes 2 to 64 experts, not 0: none"),
        (TINY[:1], "takes 2 to 64 experts, not 1: TinyConv"),
        ((*TINY[:3], "TinyConv"), "TinyConv is named twice"),
        ((*TINY[:3], 'A"'), "is not the name of a family"),
    ],
)
def test_a_plan_whose_experts_do_not_fit_is_refused(experts: tuple[str, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        assemble(Plan(experts=experts), [])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"kind": "homogenous"}, "no kind of mixture is called 'homogenous': there are hetero, homogeneous, single"),
        ({"gate": Gate(width=1)}, "gate.width is 1: it must lie between 2 and 4096"),
        ({"gate": Gate(temperature=0)}, "gate.temperature is 0"),
        ({"gate": Gate(noise=float("nan"))}, "gate.noise is nan"),
        ({"recipe": Recipe(warmup=1)}, "recipe.warmup is 1"),
        ({"losses": Losses(label_smoothing=1.5)}, "losses.label_smoothing is 1.5"),
        ({"gate": Gate(width=2.5)}, "gate.width is 2.5: it must be a whole number"),
        ({"gate": Gate(width="wide")}, "gate.width is 'wide': it must be a number"),
        ({"gate": Gate(routing="hard")}, "gate.routing is 'hard': it may be soft or top-k"),
        ({"gate": Gate(routing="top-k", k=4)}, "gate.k is 4: it must lie between 1 and 3"),
        ({"gate": Gate(learned_noise=True, noise=0)}, "gate.learned_noise needs a gate.noise above 0"),
        ({"gate": Gate(learned_noise=1)}, "gate.learned_noise is 1: it may be true or false"),
        ({"losses": Losses(load=0.1)}, "losses.load evens out a choice of experts"),
        ({"losses": Losses(bias=0.1)}, "losses.bias evens out a choice of experts"),
        (
            {"losses": Losses(load=0.1), "gate": Gate(routing="top-k", noise=0)},
            "losses.load is defined under noise",
        ),
        ({"recipe": Recipe(optimizer="lion")}, "recipe.optimizer is 'lion': it may be adamw or sgd"),
        ({"recipe": Recipe(ema=1)}, "recipe.ema is 1: it must lie between 0 and 0.99999"),
        ({"kind": "homogeneous"}, "the experts of kind homogeneous are Dense, as often as wanted, not TinyConv"),
        ({"gate": Gate(network="dense")}, "gate.network is 'dense': for kind hetero it may be convolution or convo"),
        ({"losses": Losses(others=(("balence", 0.1),))}, "no loss is called 'balence': did you mean balance"),
    ],
)
def test_a_value_out_of_range_is_refused(mix: Mix, parts: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        mix(**parts)


def test_families_must_be_the_plan_s(tiny: dict[str, Family]) -> None:
    given = [(tiny[name], INTERFACES[name]) for name in TINY[::-1]]
    with pytest.raises(PlanError, match=r"the plan names TinyConv, .* but was given TinyAux"):
        assemble(Plan(experts=TINY), given)


NET = """
import torch
from torch import nn
class {name}(nn.Linear):
    pass
class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.fc = {name}(in_shape[1], out_shape[0])
        self.device = device
    def forward(self, x):
        return self.fc(x.mean((2, 3)))
"""


def test_names_that_meet_across_families_are_kept_apart(load: Load) -> None:
    # Two names map to one function name; families named Mixup or Float would shadow names of the mixture or of Python.
    sources = {"Air-Net": "Unit", "Air.Net": "Unit", "Mixup": "Gate", "Float": "Expert"}
    families = [make_family(name, NET.format(name=helper)) for name, helper in sources.items()]
    candidate = assemble(Plan(experts=tuple(sources)), [(family, Interface(low=1)) for family in families])
    functions = [node.name for node in ast.parse(candidate.source).body if _is_family(node)]  # type: ignore[attr-defined]
    assert functions == ["air_net", "air_net_2", "mixup_2", "float_2"]
    net = load(candidate.source).Net((2, 3, 4, 4), (5,), {"lr": 0.1, "momentum": 0.9}, torch.device("cpu"))
    assert net(torch.rand(2, 3, 4, 4)).shape == (2, 5)


def test_postponed_annotations_stay_with_their_family(load: Load) -> None:
    late = "from __future__ import annotations\n" + NET.format(name="Unit")
    late += "    def late(self, x: Later) -> Later:\n        return x\nclass Later:\n    pass\n"
    early = NET.format(name="Unit") + "    def early(self, x: int) -> int:\n        return x\n"
    families = [make_family("A", late), *(make_family(name, early) for name in "BCD")]
    candidate = assemble(Plan(experts=("A", "B", "C", "D")), [(family, Interface(low=1)) for family in families])
    assert candidate.canonical == canonical_hash(candidate.source)
    net = load(candidate.source).Net((1, 3, 4, 4), (5,), {}, torch.device("cpu"))
    assert net(torch.rand(1, 3, 4, 4)).shape == (1, 5)
    assert net.experts[0].late.__annotations__ == {"x": "Later", "return": "Later"}
    assert net.experts[1].early.__annotations__ == {"x": int, "return": int}


def test_a_family_named_twice_is_there_once(mix: Mix, load: Load) -> None:
    candidate = mix(experts=("TinyConv", "TinyAux", "TinyConv"), repeats=True)
    assert candidate.source.count("def tinyconv():") == 1
    assert "# Experts 1 and 3: TinyConv\n" in candidate.source
    specs = load(candidate.source).EXPERTS
    assert specs[0].network is specs[2].network is not specs[1].network


def test_the_source_of_each_family_is_named(mix: Mix, tiny: dict[str, Family]) -> None:
    assert all(tiny[name].fingerprint in mix().source for name in TINY)


def test_the_version_of_the_templates_follows_the_bytes() -> None:
    # After an intended change: raise TEMPLATE_VERSION, then run python tests/assembly/assembly_toys.py.
    recorded = json.loads((GOLDEN / "versions.json").read_text())
    assert recorded[str(TEMPLATE_VERSION)] == golden_digest()
    assert len(set(recorded.values())) == len(recorded)
    assert max(map(int, recorded)) == TEMPLATE_VERSION
    assert golden_candidate().template_version == TEMPLATE_VERSION


def test_a_file_is_written_once_and_whole(mix: Mix, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    prepare_folder(folder)
    candidate = mix()
    path, written = write_candidate(candidate, folder)
    assert (path, written) == (folder / f"{candidate.id}.py", True)
    assert path.read_text() == candidate.source
    assert write_candidate(candidate, folder) == (path, False)
    path.write_text(candidate.source[:100])
    assert write_candidate(candidate, folder) == (path, True)
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_named(mix: Mix, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write into .*file"):
        prepare_folder(tmp_path / "file")
    with pytest.raises(UsageError, match=r"cannot write into .*missing"):
        write_candidate(mix(), tmp_path / "missing")
