"""Search for the best mixtures, against the full listing."""

import numpy as np

from nngen.surrogate import ranking
from nngen.surrogate.ranking import rank_mixtures
from nngen.surrogate.scores import all_mixtures, score_mixtures
from nngen.surrogate.search import top_mixtures


def test_the_search_finds_the_best_of_the_full_listing(script):
    experts = script.made_up(12, 300, 4)
    mixtures = all_mixtures(12)
    full = score_mixtures(experts, mixtures)["mean_probabilities"]
    found = top_mixtures(experts, beam=40)
    assert len(np.unique(found, axis=0)) == 40 and (np.diff(found, axis=1) > 0).all()
    assert sorted(map(tuple, found.tolist())) == list(map(tuple, found.tolist()))
    values = score_mixtures(experts, found)["mean_probabilities"]
    assert np.sort(values)[::-1][:10].tolist() == np.sort(full)[::-1][:10].tolist()


def test_a_small_pool_is_found_whole(script):
    assert top_mixtures(script.made_up(6, 50, 3)).tolist() == all_mixtures(6).tolist()


def test_a_large_pool_is_searched_and_what_was_trained_is_scored_too(script, monkeypatch):
    experts = script.made_up(8, 120, 3)
    monkeypatch.setattr(ranking, "MOST_LISTED", 50)
    monkeypatch.setattr(ranking, "top_mixtures", lambda experts, device: top_mixtures(experts, beam=10))
    best = rank_mixtures(experts, {})
    assert (len(best.mixtures), best.space) == (10, 70)
    worst = next(
        row for row in map(tuple, all_mixtures(8).tolist()) if row not in set(map(tuple, best.mixtures.tolist()))
    )
    found = rank_mixtures(experts, {worst: [0.5]})
    assert len(found.mixtures) == 11 and worst in set(map(tuple, found.mixtures.tolist()))
