"""Exact block designs of quartets, each in an order with even counts at every prefix.

A 2-(v, 4, m) design contains every pair of v families exactly m times, a 3-design every triple.

- v divisible by 4, but for 8 and 16: a resolvable design. One class of v/4 disjoint quartets is shifted through a
  group, so each class uses every family once. With v = 4 mod 12 every pair occurs once
  (v = 28: a Steiner system S(2, 4, 28), 63 quartets in 9 classes), else three times.
- v = 29: five orbits of the affine maps x -> ax + b. The first alone, 2^i * {1, 12, 17, 28} + s,
  is a 2-(29, 4, 3) design of 203 quartets; all five are a 3-(29, 4, 2) design of 1,827.
  Each orbit is cut into runs of 29 quartets which use every family four times and in
  which two families never differ by more than one.

The constants were found by search; ``eval/find_designs.py`` finds them again, and
``tests/space/test_designs.py`` counts every pair and triple.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

Block: TypeAlias = tuple[int, ...]

STARTERS: dict[int, tuple[Block, ...]] = {
    12: ((0, 1, 3, 7), (2, 4, 9, 10), (5, 6, 8, 11)),
    20: ((0, 1, 13, 17), (2, 5, 14, 16), (3, 7, 11, 12), (4, 10, 18, 19), (6, 8, 9, 15)),
    24: ((0, 11, 20, 22), (1, 2, 19, 23), (3, 9, 16, 18), (4, 8, 13, 21), (5, 12, 15, 17), (6, 7, 10, 14)),
    32: (
        (0, 13, 19, 26),
        (1, 15, 22, 25),
        (2, 4, 6, 8),
        (3, 9, 18, 23),
        (5, 16, 17, 21),
        (7, 10, 29, 30),
        (11, 12, 20, 28),
        (14, 24, 27, 31),
    ),
    36: (
        (0, 8, 26, 32),
        (1, 12, 14, 29),
        (2, 15, 27, 35),
        (3, 9, 13, 28),
        (4, 7, 11, 30),
        (5, 6, 17, 22),
        (10, 16, 24, 31),
        (18, 19, 21, 23),
        (20, 25, 33, 34),
    ),
}
"""By v: one class over the integers modulo v - 1 and a fixed point (written v - 1), with even differences."""

STEINER: dict[int, tuple[tuple[int, ...], int, tuple[Block, ...]]] = {
    28: ((3, 3, 3), 1, ((3, 6, 9, 19), (12, 16, 23, 25))),
    40: ((39,), 13, ((1, 5, 8, 25), (2, 3, 11, 36), (4, 6, 22, 33))),
}
"""Cyclic factors of a group of v - 1 elements, an element h of order 3, and quartets; with their
shifts by h and 2h and with {v - 1, 0, h, 2h} they are one class, which the group carries into the rest.
An element of the group is written as a number, the last factor counting fastest."""

FIRST_CLASS: dict[int, int] = {28: 1, 32: 3, 36: 10, 40: 3}
"""By v: the class at which the order begins, chosen so that the first v quartets can be independent and even."""

RUNS: tuple[tuple[str, str], ...] = (
    (
        "6bmo 1chs gjnq 0257 8adf 9epr 34kl 9hiq 08en 12am 67fr 3bck 5djs 4gop beil aijr 49km 78gs 01cd 26lp "
        "3fno 5hpq 7bhl 59fj 3ims 04ae 26cg 1knr 8doq",
        "00 01 02 03 06 04 05",
    ),
    (
        "hijk 1oqs 468a lnpr defg 23cm 579b 04bm 9dhl 7fns 2ejq 08go 5ckr 3aip 16kp 05jo 67lm 2afn 38di bcqr "
        "49es 12gh 369c beor 4ins 05af jklm 18dp 7ghq 3als 0ejo 6fgp 27ch 89mn 5dkr 4biq 18gn 14hk abcd pqrs "
        "25il 9ejo 07fm 036q 26do 8irs 19hp 45jk aceg 37bf lmno 13qs 9bdf 4567 02pr 8cgk aeim hjln",
        "01 05 04 03 00 06 02 16 13 15 11 10 12 14",
    ),
    (
        "1beo 5ahr mnpq 23cd 07ls 69fi 48gk gjps 29jq 6aim 4578 03kn cflo 1bhr 0der 34bp 8ahj cdmn 56fg ikoq "
        "29el 157s 68ce 0agq fhln 12rs 49jo 3dkp 7bim 18cq 4bls 0adn efhi 2gkr 39jm 56op 27eo 09as 5cdk bfnr "
        "4ipq 38hm 16gl 17jp 3dir 7akq 9gls 45ef 8cjn 06bh 24mo 56dr 07cj 38bg 1eiq 29ah fkns lmop",
        "15 02 00 11 12 14 03 13 04 10 05 06 01 16",
    ),
    (
        "39in 08hk 247s deop 15fj 6clq bgmr 1air 06ag 49fk 7blp 28hm 5ejs cdno 37dq acnp 89qr 04fj 3eis 1gmo "
        "26hl 5bkp 129a egln 4hms 057r 68df 3ioq bcjk 68jl bdoq 14ps 27gm 9fhn 3cir 05ek 0abs ginp 2efr 9akl "
        "13hj 45cd 68mo 7bmq 03ck 9dpq aeos 125r 78fg 46hj ilnq 5cfm abnr 27di 38ej 0kls 1469 ghop",
        "15 00 06 04 05 13 14 02 16 12 10 01 03 11",
    ),
    (
        "01op 5eir 9bjl 2ack 6fms 4dhq 37gn 8apr himn 178e 9coq 03bl 6fjs 25dg 4kqr 7amo 8chl 045s dfnp 19bj "
        "36ik 24eg 1267 egoq 59ip 8akm bdln 3cjs 0fhr 13df 08iq acmo 46np eklr 25gj 79hs 0beq 58jm adps 46ln "
        "237r bhio 19ck fglm aghn 5bci jkpq 34rs 89ef 067d 128o 13km 09gp 4bho 2adl 57fq 6cjs einr",
        "02 12 11 16 03 01 05 04 15 14 13 06 00 10",
    ),
)
"""For v = 29, per orbit: one or two runs of 29 quartets, families written 0 to 9 and a to s, and the order of
all its runs: each is written as two digits, run r multiplied by 16^p (16 is a multiplier of order 7)."""


def opening(v: int) -> tuple[Block, ...]:
    """Return the exact design at the start of an order of v families; empty where none is stored."""
    if v in STARTERS:
        classes = _shifted((v - 1,), STARTERS[v])
    elif v in STEINER:
        moduli, h, quartets = STEINER[v]
        # {0, h, 2h} is the subgroup of order 3: moved by it, the quartets and the fixed block use every family once.
        third = (0, h, _add(h, h, moduli))
        moved = [tuple(_add(x, step, moduli) for x in block) for step in third for block in quartets]
        classes = _shifted(moduli, ((v - 1, *third), *moved))
    elif v == 29:
        return tuple(_affine())
    else:
        return ()
    # Shifts that map a class onto itself repeat its blocks: each is kept once, where it comes first.
    order = tuple(dict.fromkeys(block for blocks in classes for block in blocks))
    first = FIRST_CLASS.get(v, 0) * v // 4
    return order[first:] + order[:first]


def _shifted(moduli: tuple[int, ...], quartets: tuple[Block, ...]) -> Iterator[list[Block]]:
    """Shift a class through the group; the fixed point, which is not an element of it, stays."""
    order = math.prod(moduli)
    for step in range(order):
        yield [
            tuple(sorted(point if point == order else _add(point, step, moduli) for point in block))
            for block in quartets
        ]


def _add(x: int, y: int, moduli: tuple[int, ...]) -> int:
    """Add two elements of a product of cyclic groups, written as mixed-radix numbers: digit by digit, no carry."""
    total, place = 0, 1
    for modulus in reversed(moduli):
        total += (x + y) % modulus * place
        x, y, place = x // modulus, y // modulus, place * modulus
    return total


def _affine() -> Iterator[Block]:
    """Yield the five orbits for v = 29, run by run."""
    for text, order in RUNS:
        quartets = [[int(letter, 36) for letter in word] for word in text.split()]
        for step in order.split():
            # Multiplying by a power of 16 maps the orbit onto itself, so one run of 29 quartets stands for seven.
            first, factor = 29 * int(step[0]), pow(16, int(step[1]), 29)
            for block in quartets[first : first + 29]:
                yield tuple(sorted(point * factor % 29 for point in block))
