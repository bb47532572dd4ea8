"""Registry of samplers."""

from itertools import combinations

import pytest

from nngen.errors import UsageError
from nngen.space import SAMPLERS, Pool, draw, find_sampler, sampler_help
from nngen.space.registry import Choice, SamplerEntry, Scores


class Backwards:
    """Toy sampler: the published order, reversed."""

    def __init__(self, pool, seed, known):
        self.pool, self.known = pool, frozenset(known)

    def stream(self, start=0):
        for position in range(start, self.pool.space):
            quartet = self.pool.quartet(self.pool.space - 1 - position)
            if quartet not in self.known:
                yield position, quartet


def first_free(pool, size, seed, scores, *, before=(), known=(), min_explore=0.25):
    """Toy sampler that uses results: the first free quartets, half of them marked as explored."""
    taken = {choice.quartet for choice in before} | set(known)
    free = [quartet for quartet in combinations(pool.families, pool.k) if quartet not in taken]
    return tuple(Choice(quartet=quartet, explored=place % 2 == 0) for place, quartet in enumerate(free[:size]))


def test_a_sampler_is_added_by_one_entry(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "backwards", SamplerEntry(summary="a toy", order=Backwards))
    assert draw("backwards", "ABCDEF", 2, 0) == (("C", "D", "E", "F"), ("B", "D", "E", "F"))
    assert draw("backwards", "ABCDEF", 1, 0, known=[("C", "D", "E", "F")]) == (("B", "D", "E", "F"),)
    assert "backwards: a toy" in sampler_help()
    with pytest.raises(UsageError, match="backwards"):
        find_sampler("x")


def test_a_sampler_that_learns_is_added_by_one_entry(monkeypatch):
    monkeypatch.setitem(SAMPLERS, "first", SamplerEntry(summary="a toy that learns", choose=first_free))
    assert find_sampler("first").choose is first_free
    assert "first: a toy" in sampler_help()
    assert "first: a toy" not in sampler_help(learns=False)
    with pytest.raises(UsageError, match="first chooses by results and has no fixed order"):
        draw("first", "ABCDEF", 2, 0)


def test_every_sampler_has_one_of_the_two_roles_and_a_summary():
    for name, entry in SAMPLERS.items():
        assert (entry.order is None) != (entry.choose is None), name
        assert entry.summary
        assert not entry.summary.endswith(".")


@pytest.mark.parametrize(("command", "learns"), [("sample", True), ("campaign run", True), ("assemble", False)])
def test_the_help_names_every_sampler(command, learns, nngen):
    shown = nngen(*command.split(), "--help").out.replace("│", " ").split()
    wanted = [name for name, entry in SAMPLERS.items() if learns or entry.order is not None]
    assert [name for name in SAMPLERS if f"{name}:" in shown] == wanted


FIXED = {
    "balanced": "families, pairs and triples used evenly at every length",
    "exhaustive": "the whole space",
    "lexicographic": "the published alphabetical order (a short sample hardly leaves the first family)",
    "random": "every quartet equally likely",
    "stratified": "families used equally often at every length (the published correction)",
}
LEARNING = {
    "adaptive": "chosen by the effects in the archive, with a share of exploration",
    "surrogate": "the top of the ranking by families trained alone, with a share of exploration",
}


@pytest.mark.parametrize("learns", [True, False])
def test_samplers_are_listed_by_what_is_asked_for(learns):
    listed = dict(part.split(": ") for part in sampler_help(learns=learns).split("; "))
    names = [name for name, entry in sorted(SAMPLERS.items()) if learns or entry.order is not None]
    assert list(listed) == names
    assert listed == listed | FIXED | (LEARNING if learns else {})
    assert learns or not listed.keys() & LEARNING.keys()
    with pytest.raises(UsageError) as refused:
        find_sampler("?", learns=learns)
    assert str(refused.value) == f"unknown sampler '?': choose one of {', '.join(names)}"
    with pytest.raises(UsageError, match="unknown sampler 'randm': did you mean random"):
        find_sampler("randm", learns=learns)
    assert [find_sampler(name, learns=learns) for name in names] == [SAMPLERS[name] for name in names]


def test_the_ranking_of_an_archive_cannot_be_drawn_from_alone():
    with pytest.raises(
        UsageError, match=r"surrogate ranks by families that an archive holds: it is for nngen campaign"
    ):
        SAMPLERS["surrogate"].choose(Pool.of("ABCDE"), 1, 0, Scores())
