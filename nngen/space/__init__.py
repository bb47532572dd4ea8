"""The space of quartets: a pool's quartets by number, samplers that order them, and audits of a sample."""

from nngen.space.adaptive import ask  # registers the adaptive sampler
from nngen.space.coverage import Coverage, coverage
from nngen.space.pool import Pool, Quartet
from nngen.space.registry import SAMPLERS, Sampler, find_sampler, sampler_help
from nngen.space.samplers import draw, sampler  # registers the samplers with a fixed order

__all__ = [
    "SAMPLERS",
    "Coverage",
    "Pool",
    "Quartet",
    "Sampler",
    "ask",
    "coverage",
    "draw",
    "find_sampler",
    "sampler",
    "sampler_help",
]
