"""Steps under the worker's bfloat16 autocast use the current weights."""

import pytest
import torch
from torch import nn

from nngen.training import worker


def test_a_step_is_computed_with_the_weights_that_the_last_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_on_card", lambda _: True)
    net, images = nn.Linear(4, 2), torch.ones(3, 4)
    with worker._precision("cpu"):
        before = net(images)
        assert before.dtype == torch.bfloat16
        with torch.no_grad():
            net.weight.add_(1.0)
        after = net(images)
    torch.testing.assert_close(after.float(), before.float() + 4, rtol=0.05, atol=0.05)
