"""Warning of files that seed the generators themselves."""

import pytest

from nngen.checks.source import own_seeds


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.manual_seed(0)\n",
        "import numpy as np\nnp.random.seed(0)\n",
        "import random as r\nr.seed(3)\n",
        "from torch import manual_seed\nmanual_seed(1)\n",
        "import torch\ntry:\n    torch.cuda.manual_seed_all(0)\nexcept* ValueError:\n    pass\n",
    ],
)
def test_the_first_line_that_seeds_is_named(source: str) -> None:
    line = 2 + ("try" in source)
    assert own_seeds(source) == f"line {line} seeds the generators, which nngen seeds again before it trains"


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ng = torch.Generator().manual_seed(0)\n",
        "self.seed(3)\n",
        "import random\nrandom.random()\n",
        "x = (",
    ],
)
def test_other_files_are_not_warned_of(source: str) -> None:
    assert own_seeds(source) == ""
