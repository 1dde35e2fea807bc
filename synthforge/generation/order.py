"""The order of classes and prompts: fair apportionment by weights, and keyed permutations.

Both are pure functions of their arguments with random access: position in, member out.
Apportionment is earliest deadline first (Tijdeman 1980, "The chairman assignment problem", Discrete Mathematics 32;
Steiner and Yeomans 1993, "Level schedules for mixed-model, just-in-time processes", Management Science 39).
Permutations are Feistel networks with cycle walking (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import heapq
import math
import threading
from collections.abc import Sequence
from fractions import Fraction


class Apportionment:
    """An endless order of members in which every prefix holds each of them within one of its share of the weights.

    Members of equal weight take turns inside a group. Groups are scheduled by earliest deadline first, among those that
    are not ahead of their share; this keeps every deviation below one. The order repeats after the sum of the reduced
    integer weights. It is simulated in blocks, from a bounded number of checkpoints, so memory is constant. Reaching
    far into a long period costs a microsecond or two a step, once. With equal weights everything is closed form.

    Weights whose integer form sums to more than `MAX_PERIOD` (long decimals) are rounded to that resolution. This
    changes a share by less than one part in ten million, and no position takes longer than some seconds to reach.
    """

    BLOCK = 1024
    MAX_PERIOD = 2**24
    MAX_CHECKPOINT_NUMBERS = 2**20
    MAX_CACHED_BLOCKS = 64

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        integers = [int(weight * scale) for weight in exact]
        common = math.gcd(*integers)
        if (total := sum(integers) // common) > self.MAX_PERIOD:
            integers = [max(1, round(Fraction(weight, common) * self.MAX_PERIOD / total)) for weight in integers]
            common = math.gcd(*integers)
        distinct = sorted({weight // common for weight in integers}, reverse=True)
        self._members = [[i for i, weight in enumerate(integers) if weight // common == value] for value in distinct]
        totals = [value * len(members) for value, members in zip(distinct, self._members, strict=True)]
        shrink = math.gcd(*totals)
        self._shares = [total // shrink for total in totals]
        self._period = sum(self._shares)
        self._place = {member: (group, turn) for group, members in enumerate(self._members) for turn, member in enumerate(members)}
        self._lock = threading.Lock()
        self._stride = 1
        self._checkpoints: list[list[int]] = [[0] * len(totals)]
        self._block = functools.lru_cache(self.MAX_CACHED_BLOCKS)(self._block_of)

    def at(self, index: int) -> tuple[int, int]:
        """The member at a position, and how often it occurs before that position."""
        cycle, offset = divmod(index, self._period)
        group, within = self._block(offset // self.BLOCK)[offset % self.BLOCK]
        position = cycle * self._shares[group] + within
        members = self._members[group]
        return members[position % len(members)], position // len(members)

    def counts(self, length: int) -> list[int]:
        """How often each member occurs among the first `length` positions."""
        cycle, offset = divmod(length, self._period)
        totals = [cycle * share + count for share, count in zip(self._shares, self._counts_within(offset), strict=True)]
        sizes = [len(members) for members in self._members]
        return [(totals[group] + sizes[group] - 1 - turn) // sizes[group] for _, (group, turn) in sorted(self._place.items())]

    def index_of(self, member: int, ordinal: int) -> int:
        """The position of a member's occurrence number `ordinal`, counted from 0."""
        group, turn = self._place[member]
        position = ordinal * len(self._members[group]) + turn
        if len(self._shares) == 1:  # without a search, whose every step counts all members
            return position
        low = position * self._period // self._shares[group]  # the earliest and the last slot that its share allows
        high = -(-(position + 1) * self._period // self._shares[group])
        # The first position up to which it occurs `ordinal` + 1 times.
        return bisect.bisect_left(range(high + 1), ordinal + 1, lo=low, key=lambda index: self.counts(index + 1)[member])

    def _counts_within(self, offset: int) -> list[int]:
        block, rest = divmod(offset, self.BLOCK)
        with self._lock:
            counts = list(self._state_at(block))
        for group, _ in self._block(block)[:rest] if rest else ():
            counts[group] += 1
        return counts

    def _block_of(self, number: int) -> list[tuple[int, int]]:
        """For each position of a block, its group and how often that group occurs before it."""
        with self._lock:
            return self._simulate(number, self._state_at(number))[0]

    def _state_at(self, number: int) -> list[int]:
        """How often each group occurs before a block, simulated from the nearest checkpoint."""
        start = min(number // self._stride, len(self._checkpoints) - 1)
        state = self._checkpoints[start]
        for block in range(start * self._stride, number):
            state = self._simulate(block, state)[1]
            if block + 1 == len(self._checkpoints) * self._stride:
                self._checkpoints.append(state)
                if len(self._checkpoints) > max(8, self.MAX_CHECKPOINT_NUMBERS // len(self._shares)):
                    self._checkpoints = self._checkpoints[::2]
                    self._stride *= 2
        return state

    def _simulate(self, number: int, state: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
        """Schedule one block: job n of a group of share p may start in slot n/p and must end before (n+1)/p."""
        counts, order = list(state), []
        waiting = [(count * self._period // share, group) for group, (count, share) in enumerate(zip(counts, self._shares, strict=True))]
        heapq.heapify(waiting)
        ready: list[tuple[int, int]] = []
        first = number * self.BLOCK
        for slot in range(first, min(first + self.BLOCK, self._period)):
            while waiting and waiting[0][0] <= slot:
                group = heapq.heappop(waiting)[1]
                heapq.heappush(ready, (-(-(counts[group] + 1) * self._period // self._shares[group]), group))
            group = heapq.heappop(ready)[1]
            order.append((group, counts[group]))
            counts[group] += 1
            heapq.heappush(waiting, (counts[group] * self._period // self._shares[group], group))
        return order, counts


def permute(position: int, size: int, key: bytes) -> int:
    """Where a keyed permutation of `range(size)` sends `position`. Values outside the range are permuted again."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for turn in range(4):
            digest = hashlib.blake2b(
                right.to_bytes(half // 8 + 1, "little") + bytes([turn]), key=key, digest_size=min(64, half // 8 + 1)
            ).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        position = left << half | right
        if position < size:
            return position
