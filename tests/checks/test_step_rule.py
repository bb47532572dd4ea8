"""The rules that run a net, on contexts made by hand: their messages, and what they leave for those after them."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nngen.checks import dynamic
from nngen.checks.context import CheckContext, StepRecord
from nngen.checks.dynamic import dynamic_check, dynamic_rules
from nngen.checks.rule import CheckFailed
from nngen.checks.rules.dynamic import step as step_module
from nngen.checks.rules.sample_nets import mixture_source, net_source, routed_source
from nngen.checks.static import static_rules
from nngen.seeds import derive
from nngen.types import Outcome, Shape, Verdict

SHAPE = Shape(1, 4, 4)
RULES = {rule.name: rule for rule in dynamic_rules()}
PRM = {"lr": 0.1, "momentum": 0.9}


def context(**parts: object) -> CheckContext:
    fields = {"path": Path("candidate.py"), "shape": SHAPE, "classes": 3, "device": torch.device("cpu")}
    return CheckContext(**fields | {"hyperparameters": PRM} | parts)  # type: ignore[arg-type]


def refused(rule: str, made: CheckContext) -> tuple[Outcome, str]:
    with pytest.raises(CheckFailed) as failed:
        RULES[rule].check(made)
    assert failed.value.verdict.rule == rule
    return failed.value.verdict.outcome, failed.value.verdict.message


def test_rules_come_in_the_order_in_which_they_rely_on_each_other() -> None:
    dynamic_names = ["import", "interface", "build", "shape", "finite", "step", "gradient"]
    for rules, names in ((dynamic_rules(), dynamic_names), (static_rules(), ["syntax", "forbidden", "contract"])):
        assert list(rules) == sorted(rules, key=lambda rule: rule.order)
        # There is room between them for the rules of a file that is added.
        orders = {rule.name: rule.order for rule in rules if rule.name in names}
        assert list(orders.items()) == [(name, place) for place, name in zip(range(10, 80, 10), names, strict=False)]


def test_the_rules_are_loaded_with_their_module() -> None:
    spec = importlib.util.spec_from_file_location("dynamic_again", dynamic.__file__)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.dynamic_rules.cache_info().currsize == 1


class Net(nn.Module):
    """A net of two layers, of which the second may be frozen; each step adds a number to the first."""

    def __init__(self, add: float = 1.0, inputs: int = 16) -> None:
        super().__init__()
        self.head, self.still = nn.Linear(inputs, 3), nn.Linear(1, 1)
        self.still.requires_grad_(False)
        self.add, self.batches, self.set_ups = add, [], 0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))

    def train_setup(self, prm: object) -> None:
        assert prm == PRM and prm is not PRM
        self.set_ups += 1

    def learn(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        assert self.training
        self.batches.append(batches)
        for images, labels in batches:
            nn.functional.cross_entropy(self(images), labels).backward()
        with torch.no_grad():
            self.head.bias += self.add


def test_learn_gets_two_batches_of_which_the_second_is_drawn() -> None:
    made = context(net=Net(), question=b"\1\2")
    before = [tensor.clone() for tensor in made.net.parameters()]
    RULES["step"].check(made)
    ((first, second),) = made.net.batches

    def drawn(name: str, question: bytes) -> tuple[Tensor, Tensor]:
        seed = int.from_bytes(question, "little")
        images, labels = (
            torch.Generator().manual_seed(derive(seed, "bench", kind, name)) for kind in ("images", "labels")
        )
        return torch.randn(4, 1, 4, 4, generator=images), torch.randint(3, (4,), generator=labels)

    for batch, expected in ((first, drawn("first", b"")), (second, drawn("second", b"\1\2"))):
        assert all(map(torch.equal, batch, expected))
    assert made.step == StepRecord(changed={"the net": True}, gradient={"the net": True})
    assert made.net.set_ups == 0
    assert not made.net.head.weight._post_accumulate_grad_hooks
    after = list(made.net.parameters())

    def digest(tensors: list[Tensor]) -> bytes:
        found = hashlib.blake2b(b"\1\2", digest_size=2)
        found.update(b"".join(tensor.detach().numpy().tobytes() for tensor in tensors))
        return found.digest()

    assert made.digests == (digest(before), digest(after))


def test_a_digest_reads_the_first_values_of_each_parameter_and_answers_a_question_alone() -> None:
    net = nn.Module()
    net.values = nn.Parameter(torch.zeros(2, 2049))
    first = step_module._digest(net, b"question")
    assert len(first) == 8 and step_module._digest(net, b"") == b""
    assert step_module._digest(net, b"questions") != first
    for place, same in (((1, 2047), True), ((1, 2046), False), ((0, 0), False)):
        with torch.no_grad():
            net.values.zero_()
            net.values[place] = 1.0
        assert (step_module._digest(net, b"question") == first) is same


class Halves(nn.Module):
    """A net of two parameters, whose gradients are multiples of one."""

    def __init__(self, factors: tuple[float, float]) -> None:
        super().__init__()
        self.factors = factors
        self.one, self.other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def learn(self, _: object) -> None:
        for parameter, factor in zip((self.one, self.other), self.factors, strict=True):
            (parameter * factor).sum().backward()
        with torch.no_grad():
            self.one += 1


@pytest.mark.parametrize(
    ("factors", "received"), [((1.0, 0.0), True), ((0.0, 1.0), True), ((-1.0, 1.0), True), ((0.0, 0.0), False)]
)
def test_a_group_received_a_gradient_if_any_of_its_parameters_did(factors: tuple[float, float], received: bool) -> None:
    made = context(net=Halves(factors))
    RULES["step"].check(made)
    assert made.step == StepRecord(changed={"the net": True}, gradient={"the net": received})


@pytest.mark.parametrize(
    ("net", "verdict"),
    [
        (Net(add=0.0), (Outcome.NO_GRADIENT, "learn changed no parameter: does it step its optimizer?")),
        (
            Net(add=float("inf")),
            (
                Outcome.NON_FINITE,
                "parameter head.bias is not finite after a small batch or two: lower lr, or clip the gradient",
            ),
        ),
        (
            Net(inputs=15),
            (
                Outcome.CRASHED,
                "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x16 and 15x3), while learn(train_data) ran"
                " on two batches of 4",
            ),
        ),
    ],
)
def test_a_step_that_fails_has_a_verdict(net: Net, verdict: tuple[Outcome, str]) -> None:
    assert refused("step", context(net=net)) == verdict


class Routed(nn.Module):
    """A mixture whose gate chooses one expert for all images; ``learn`` counts what it is called with."""

    def __init__(self, experts: int = 4, choice: int = 2, error_at: int = 0) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(16, 3) for _ in range(experts))
        self.gate = nn.Linear(1, experts)
        self.gate.register_buffer("count", torch.ones(()))
        self.gate.other = nn.Parameter(torch.arange(float(experts + 1)))
        with torch.no_grad():
            self.gate.bias.zero_()[choice] = 9.0
        self.log: list[object] = []
        self.error_at = error_at

    def train_setup(self, prm: object) -> None:
        assert prm == PRM and prm is not PRM
        self.log.append("set up")

    def learn(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        if len(self.log) == self.error_at > 0:
            raise ValueError("no more")
        best = int(self.gate.bias.argmax())
        self.log.append((best, len(batches)))
        for images, labels in batches:
            scores = self.experts[best](images.flatten(1)) * self.gate.bias[best]
            nn.functional.cross_entropy(scores, labels).backward()
        with torch.no_grad():
            for expert in self.experts:
                expert.weight -= 0.1 * (0 if expert.weight.grad is None else 1)
            self.gate.bias += 0.01


def test_the_gate_is_turned_until_each_expert_has_a_gradient() -> None:
    made = context(net=Routed())
    RULES["step"].check(made)
    turned = [(2, 2), "set up", (3, 1), "set up", (0, 1), "set up", (1, 1)]
    assert made.net.log == turned
    names = [*(f"expert {place} (Linear)" for place in range(4)), "the gate"]
    assert made.step == StepRecord(changed=dict.fromkeys(names, True), gradient=dict.fromkeys(names, True))
    assert made.net.gate.other.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]  # of another length
    assert made.digests == (b"", b"")


def test_a_mixture_whose_experts_all_have_a_gradient_is_not_turned() -> None:
    made = context(net=Routed(experts=1, choice=0))
    RULES["step"].check(made)
    assert made.net.log == [(0, 2)]
    two = context(net=Routed(experts=2, choice=0))
    RULES["step"].check(two)
    assert two.net.log == [(0, 2), "set up", (1, 1)]


def test_an_error_after_a_turn_names_one_batch() -> None:
    outcome, message = refused("step", context(net=Routed(error_at=2)))
    assert (outcome, message) == (Outcome.CRASHED, "ValueError: no more, while learn(train_data) ran on a batch of 4")


def part(changed: bool, gradient: bool) -> CheckContext:
    made = context(net=Net())
    made.step = StepRecord(changed={"the net": changed}, gradient={"the net": gradient})
    return made


def test_a_part_without_a_gradient_or_a_change_is_named() -> None:
    RULES["gradient"].check(part(True, True))
    no = Outcome.NO_GRADIENT
    lost = "the net received no gradient: its output does not reach the loss"
    still = "the net received a gradient but was not changed: give its parameters to the optimizer"
    assert refused("gradient", part(True, False)) == (no, lost)
    assert refused("gradient", part(False, False)) == (no, lost)
    assert refused("gradient", part(False, True)) == (no, still)
    frozen = part(True, True)
    frozen.net.requires_grad_(False)
    assert refused("gradient", frozen) == (no, "the net has no trainable parameter")


@pytest.mark.parametrize(
    ("outputs", "verdict"),
    [
        (torch.zeros(4, 3), None),
        (torch.zeros(4, 3, dtype=torch.float16), None),
        (
            torch.zeros(4, 3, dtype=torch.int64),
            (
                Outcome.SHAPE,
                "forward returned torch.int64; these are not logits: return a floating-point tensor",
            ),
        ),
        (
            torch.tensor([[0.0, 0.0, float("-inf")]] + [[0.0] * 3] * 3),
            (Outcome.NON_FINITE, "logits on random images are not finite before any training"),
        ),
        (
            torch.zeros(5, 3),
            (
                Outcome.CRASHED,
                "ValueError: Expected input batch_size (5) to match target batch_size (4)., while the loss was"
                " computed",
            ),
        ),
    ],
)
def test_logits_are_finite_numbers(outputs: Tensor, verdict: tuple[Outcome, str] | None) -> None:
    made = context(outputs=outputs.requires_grad_(outputs.is_floating_point()))
    if verdict is None:
        RULES["finite"].check(made)
    else:
        assert refused("finite", made) == verdict


def test_either_logits_or_a_loss_that_is_not_finite_is_refused() -> None:
    labels = context().labels("train")
    others = (labels + 1) % 3
    unused, far = torch.zeros(4, 3), torch.zeros(4, 3)
    unused[range(4), others] = float("-inf")  # its loss is that of the other classes
    far[range(4), labels], far[range(4), others] = -3e38, 3e38  # each is finite, their difference is not
    verdict = (Outcome.NON_FINITE, "logits on random images are not finite before any training")
    for outputs in (unused, far):
        assert refused("finite", context(outputs=outputs)) == verdict


def test_the_rule_of_shapes_draws_its_second_batch_by_the_question() -> None:
    net = Net()
    made = context(net=net, ask=lambda: b"\5")
    RULES["shape"].check(made)
    assert (made.question, net.training) == (b"\5", False)
    assert torch.equal(made.outputs, net(made.images("train")))
    assert made.outputs.requires_grad and not made.drawn.requires_grad
    assert torch.equal(made.drawn, net(made.images("eval", 3, drawn=True))) and len(made.drawn) == 3


def test_a_check_hands_its_context_on_once_all_rules_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "candidate.py"
    events: list[object] = []

    def check(source: str, **more: object) -> Verdict:
        path.write_text(source)
        events.clear()
        return dynamic_check(
            path,
            shape=SHAPE,
            classes=10,
            imported=lambda: events.append("imported"),
            ask=lambda: events.append("asked") or b"\1\2\3",  # type: ignore[arg-type, func-returns-value]
            answer=events.append,
            **more,  # type: ignore[arg-type]
        )

    assert check(net_source(init="assert prm['lr'] == 0.5, prm['batch']"), hyperparameters={"lr": 0.5}).valid
    *before, made = events
    assert before == ["imported", "asked"] and isinstance(made, CheckContext)
    assert (made.path, made.shape, made.classes, made.device) == (path, SHAPE, 10, torch.device("cpu"))
    known = {"batch": 4, "epoch": 1, "transform": "norm_4", "lr": 0.5, "momentum": 0.9, "dropout": 0.2, "pretrained": 0}
    assert made.hyperparameters == known
    assert [len(digest) for digest in made.digests] == [3, 3] and made.digests[0] != made.digests[1]
    assert check(net_source(forward="return 3")).rule == "shape"
    assert events == ["imported"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            net_source(init="prm['a'] = 1; prm['b'] = 2; prm.pop('lr')", setup="pass"),
            "Net.__init__ changed prm: lr, a, b; LEMUR records prm as it is then, so work on a copy, dict(prm)",
        ),
        (
            net_source(setup="prm.update({f'k{n}': n for n in range(6)})"),
            "Net.train_setup changed prm: k0, k1, k2, k3, k4; LEMUR records prm as it is then, so work on a copy,"
            " dict(prm)",
        ),
        (
            net_source(setup="prm['x' * 101] = 1"),
            f"Net.train_setup changed prm: {'x' * 99}…; LEMUR records prm as it is then, so work on a copy, dict(prm)",
        ),
    ],
)
def test_a_changed_prm_is_named(source: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "candidate.py"
    path.write_text(source)
    assert dynamic_check(path, shape=SHAPE, classes=10).message == message


def test_the_sample_nets_put_statements_where_they_say() -> None:
    lines = net_source(init="INIT", setup="SETUP", loss="LOSS", forward="FORWARD").splitlines()
    assert [lines.index(f"{' ' * indent}{word}") + 1 for word, indent in (("INIT", 8), ("SETUP", 8))] == [11, 17]
    assert [lines.index(f"{' ' * indent}{word}") + 1 for word, indent in (("LOSS", 12), ("FORWARD", 8))] == [23, 28]
    for source, experts in ((mixture_source(), 2), (routed_source(), 8)):
        space: dict[str, Callable[..., nn.Module]] = {}
        exec(source, space)
        net = space["Net"]((1, 1, 4, 4), (10,), dict(PRM), "cpu")
        assert (len(net.experts), net.gate[1].out_features) == (experts, experts)
        assert net(torch.zeros(2, 1, 4, 4)).shape == (2, 10)
