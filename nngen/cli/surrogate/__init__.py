"""``nngen experts`` and ``nngen surrogate``: families trained alone, their mixtures ranked, and gates over them."""

from nngen.cli.surrogate.campaigns import experts
from nngen.cli.surrogate.gates import surrogate  # the app with all its commands: gates adds the last one

__all__ = ["experts", "surrogate"]
