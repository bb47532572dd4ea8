"""Weights of networks with unusual states: what is kept gives the predictions of the trial again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nngen.checks.rules.sample_nets import net_source
from nngen.errors import DataError
from nngen.training.inference import KeptWeights
from nngen.training.state.checkpoints import TrialFolder
from nngen.training.state.trained_model import TrainedModel

EXTRA = """
class Counter(nn.Module):
    calls = 0
    def get_extra_state(self):
        return {"calls": self.calls}
    def set_extra_state(self, state):
        self.calls = state["calls"]
    def forward(self, x):
        self.calls += 1
        return x

"""
NETS = {
    "a sparse buffer": net_source(
        init="self.register_buffer('graph', 2 * torch.eye(10).to_sparse())",
        forward="return torch.sparse.mm(self.graph, self.head(x).T).T",
    ),
    "an extra state": net_source(init="self.counter = Counter()", forward="return self.head(self.counter(x))").replace(
        "class Net", EXTRA + "class Net"
    ),
    "a buffer of the first forward pass": net_source(
        forward="if not hasattr(self, 'scale'): self.register_buffer('scale', x.detach().std(0))\n"
        "        return self.head(x / (1 + self.scale))"
    ),
    "a layer of the first forward pass": net_source(
        init="self.late = None",
        forward="if self.late is None: self.late = nn.Linear(10, 10)\n        return self.late(self.head(x))",
    ),
    "a train method that returns nothing": net_source() + "    def train(self, mode=True): super().train(mode)\n",
    "a method to of its own": net_source() + "    def to(self, device): super().to(device)\n",
}


@pytest.mark.parametrize("name", NETS)
def test_kept_weights_predict_as_the_trial_did(name, engine, job, digits, tmp_path):
    folder = TrialFolder(path=tmp_path / "trial-1", keep=True, note=lambda _: None)
    trial = engine.train(replace(job(NETS[name], epochs=2, lr=0.01, batch=512), folder=folder))
    assert trial.verdict.valid, trial.verdict.message
    model = TrainedModel(NETS[name], KeptWeights.read(folder.path))
    with torch.no_grad():
        outputs = model(torch.from_numpy(np.array(digits.validation_images)))
    assert outputs.argmax(1).numpy().astype("<u2").tobytes() == trial.validation_predictions


def test_weights_of_another_net_are_one_line(engine, job, tmp_path):
    folder = TrialFolder(path=tmp_path / "trial-1", keep=True, note=lambda _: None)
    engine.train(replace(job(net_source(), batch=512), folder=folder))
    other = net_source(init="self.more = nn.Linear(2, 2)")
    with pytest.raises(DataError, match=r"Missing key\(s\) in state_dict: .more.weight") as caught:
        TrainedModel(other, KeptWeights.read(folder.path))
    assert "\n" not in str(caught.value)
