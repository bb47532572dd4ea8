"""The space of quartets: numbers for them, orders of them, what a sample of them covers."""

from nngen.space.coverage import Coverage, coverage
from nngen.space.pool import Pool, Quartet
from nngen.space.samplers import SAMPLERS, Sampler, draw, sampler

__all__ = ["SAMPLERS", "Coverage", "Pool", "Quartet", "Sampler", "coverage", "draw", "sampler"]
