"""Rule ``interface``: ``Net`` is a module, and every hyperparameter that the file names has a value."""

from __future__ import annotations

from nngen.checks.candidate_net import check_interface
from nngen.checks.context import CheckContext
from nngen.checks.rule import DynamicRule, Invalid
from nngen.checks.rules.sample_nets import net_source
from nngen.types import Outcome

_NET = "import torch.nn as nn\nclass Net(nn.Module): ...\n"


class InterfaceRule(DynamicRule):
    """Refuses a module whose two names are of the wrong kind, or that needs a hyperparameter without a value."""

    name = "interface"
    order = 20
    VALID = (net_source(), net_source().replace("{'lr', 'momentum'}", "['lr', 'momentum', 'dropout']"))
    INVALID = (
        Invalid(source="x = 1\n", message="class Net is missing", outcome=Outcome.CONTRACT),
        Invalid(source="Net = 3\n", message="Net is not a subclass of torch.nn.Module", outcome=Outcome.CONTRACT),
        Invalid(source=_NET, message="supported_hyperparameters", outcome=Outcome.CONTRACT),
        Invalid(
            source=_NET + "def supported_hyperparameters():\n    return 3\n",
            message="names of hyperparameters",
            outcome=Outcome.CONTRACT,
        ),
        Invalid(
            source=_NET + "def supported_hyperparameters():\n    return {'lr', 'patch_size'}\n",
            message="patch_size has no value: give one with --prm patch_size=",
            outcome=Outcome.CONTRACT,
        ),
    )

    def check(self, context: CheckContext) -> None:
        assert context.module is not None
        check_interface(context.module, context.path, context.hyperparameters)
