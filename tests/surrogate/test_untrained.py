"""Scores of networks before training: known values on toy nets, and measurements in workers."""

import hashlib
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_lemur import source
from torch import nn

from nngen.assembly.assemble import assemble
from nngen.plan import Plan
from nngen.surrogate.experts import UNTRAINED, with_untrained
from nngen.surrogate.ranking import rank_mixtures
from nngen.surrogate.scores import all_mixtures, score_mixtures
from nngen.surrogate.untrained import gradient_norm, swap, synflow
from nngen.types import Family, Interface


def linear(*rows):
    """Make a linear layer without bias from its weights."""
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.GELU(), nn.LeakyReLU()])
def test_patterns_of_activations_that_differ_are_counted(activation):
    net = nn.Sequential(linear([1.0], [-1.0], [2.0], [0.0]), activation)
    # Positive for the first and third image, for the second and fourth, for the first and third again, for none.
    assert swap(net, torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])) == 3


def test_patterns_of_every_layer_count_once():
    net = nn.Sequential(linear([1.0], [-1.0]), nn.ReLU(), linear([1.0, 0.0], [1.0, 1.0]), nn.ReLU())
    assert swap(net, torch.tensor([[1.0], [-1.0]])) == 3


def test_the_flow_of_a_linear_net_is_its_layers_times_its_output():
    net = nn.Sequential(linear([1.0, -2.0]), nn.ReLU(), linear([-3.0]))
    assert synflow(net, (2,)) == pytest.approx(math.log10(2 * 3 * (1 + 2)))
    deep = nn.Sequential(*(linear([-1e5]) for _ in range(20)))
    assert synflow(deep, (1,)) == pytest.approx(100 + math.log10(20))


def test_normalisations_let_the_flow_through():
    net = nn.Sequential(nn.Flatten(), linear([1.0, -2.0]), nn.BatchNorm1d(1))
    # The scale of the normalisation has a flow of its own, its shift none, because it is zero.
    assert synflow(net, (2,)) == pytest.approx(math.log10(2 * 3), abs=1e-5)


def test_the_norm_of_a_known_gradient():
    net = linear([0.0, 0.0], [0.0, 0.0])
    found = gradient_norm(net, torch.tensor([[3.0, 4.0]]), torch.tensor([0]))
    assert found == pytest.approx(math.sqrt(2 * 0.25 * 25))
    assert gradient_norm(net, torch.tensor([[3.0, 4.0]]), torch.tensor([0])) == pytest.approx(found)


@pytest.mark.long
def test_families_are_measured_in_workers_and_once(script, cache, monkeypatch):
    def candidate(width):
        text = source(width)
        family = Family(name="Alpha", source=text, fingerprint=hashlib.sha256(text.encode()).hexdigest(), best=None)
        return assemble(Plan(experts=()).alone("Alpha"), [(family, Interface(low=4))])

    known = {"narrow": candidate(8), "wide": candidate(32), "broken": replace(candidate(8), source="import nowhere\n")}
    archive = SimpleNamespace(candidate=known.__getitem__)
    experts = replace(script.made_up(4, 40, 3), candidates=("narrow", "wide", "narrow", "broken"))
    found = with_untrained(archive, experts)
    assert tuple(found.untrained) == tuple(UNTRAINED)
    for values in found.untrained.values():
        assert np.isfinite(values[:3]).all() and math.isnan(values[3]) and values[0] == values[2]
    assert found.untrained["synflow"][1] > found.untrained["synflow"][0]
    assert found.untrained["swap"][1] > found.untrained["swap"][0]
    monkeypatch.setattr("nngen.surrogate.experts.JobRunner.collect", None)
    again = with_untrained(archive, experts)
    assert all(np.array_equal(again.untrained[name], found.untrained[name], equal_nan=True) for name in UNTRAINED)
    scores = score_mixtures(replace(found, families=tuple("ABCD")), np.array([[0, 1, 2, 3]]))
    assert set(UNTRAINED) <= scores.keys() and math.isnan(scores["swap"][0])


def test_scores_before_training_are_ranked_like_others(script):
    experts = script.made_up(6, 200, 4)
    values = {name: np.arange(6.0) for name in UNTRAINED}
    found = rank_mixtures(replace(experts, untrained=values), {})
    assert found.order("swap")[0] == len(all_mixtures(6)) - 1
    assert rank_mixtures(experts, {}).scores.keys().isdisjoint(UNTRAINED)
