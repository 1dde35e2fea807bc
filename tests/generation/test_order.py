"""Apportionment and permutations: every prefix is fair, any position can be asked for, and each position comes once."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings, strategies as st

from synthforge.generation.order import Apportionment, permute

WEIGHTS = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 4000).map(lambda n: n / 1000)), min_size=1, max_size=9)


def shares(weights: list[float]) -> list[Fraction]:
    exact = [Fraction(str(weight)) for weight in weights]
    return [weight / sum(exact) for weight in exact]


@settings(deadline=None)
@given(WEIGHTS, st.integers(1, 600))
def test_every_prefix_holds_each_member_within_one_of_its_share(weights: list[float], length: int) -> None:
    order, counts = Apportionment(weights), [0] * len(weights)
    for index in range(length):
        member, ordinal = order.at(index)
        assert ordinal == counts[member]
        counts[member] += 1
        for count, share in zip(counts, shares(weights), strict=True):
            assert abs(count - share * (index + 1)) < 1
    assert order.counts(length) == counts


@settings(deadline=None, max_examples=50)
@given(WEIGHTS, st.integers(10**8 - 3000, 10**8))
def test_far_positions_agree_with_counts_and_share(weights: list[float], index: int) -> None:
    order = Apportionment(weights)
    before, after = order.counts(index), order.counts(index + 1)
    member, ordinal = order.at(index)
    assert ordinal == before[member]
    assert [b - a for a, b in zip(before, after, strict=True)] == [int(m == member) for m in range(len(weights))]
    assert sum(before) == index
    assert all(abs(count - share * index) < 1 for count, share in zip(before, shares(weights), strict=True))
    assert order.index_of(member, ordinal) == index


@settings(deadline=None, max_examples=40)
@given(WEIGHTS, st.lists(st.integers(0, 20_000), min_size=1, max_size=20))
def test_order_of_asking_does_not_matter(weights: list[float], indices: list[int]) -> None:
    one, other = Apportionment(weights), Apportionment(weights)
    assert [one.at(index) for index in indices] == [other.at(index) for index in reversed(indices)][::-1]


@given(st.integers(1, 3000), st.binary(min_size=1, max_size=16))
@settings(deadline=None, max_examples=40)
def test_permute_is_a_permutation(size: int, key: bytes) -> None:
    assert sorted(permute(position, size, key) for position in range(size)) == list(range(size))


def test_checkpoints_stay_bounded_and_exact() -> None:
    class Few(Apportionment):
        BLOCK, MAX_CHECKPOINT_NUMBERS, MAX_CACHED_BLOCKS = 16, 32, 2

    weights = [997, 613, 101, 7]
    few, plain = Few(weights), Apportionment(weights)
    for index in [0, 1700, 900, 1717, 3, 5000, 1699]:
        assert few.at(index) == plain.at(index)
    assert len(few._checkpoints) <= 8
