"""Which contents were seen before, and where: a hash table of 24 bytes an entry instead of Python's 130."""

from __future__ import annotations

import hashlib
from array import array

_FIRST_SLOTS = 2**12
_MOST_FULL = 0.66


class SeenContents:
    """Remembers a number for each content by 128 bits of its hash.

    Costs 36 to 73 bytes of memory a distinct content and no I/O; two contents that are different are taken for the
    same with a chance of 1 in 10^26 among a million.
    """

    def __init__(self) -> None:
        self._count = 0
        self._make_slots(_FIRST_SLOTS)

    def find_or_add(self, content: bytes, number: int) -> int | None:
        """The number that this content came with first; None where it is new, which it is no more after that.

        :param number: 0 or more.
        """
        digest = hashlib.blake2b(content, digest_size=16).digest()
        high = int.from_bytes(digest[:8], "little")
        low = int.from_bytes(digest[8:], "little")
        slot = self._find_slot(high, low)
        if self._numbers[slot] >= 0:
            return self._numbers[slot]
        self._highs[slot], self._lows[slot], self._numbers[slot] = high, low, number
        self._count += 1
        if self._count > len(self._numbers) * _MOST_FULL:
            self._grow()
        return None

    def _find_slot(self, high: int, low: int) -> int:
        mask = len(self._numbers) - 1
        slot = high & mask
        while self._numbers[slot] >= 0 and not (self._highs[slot] == high and self._lows[slot] == low):
            slot = (slot + 1) & mask
        return slot

    def _make_slots(self, slots: int) -> None:
        self._highs = array("Q", bytes(8 * slots))
        self._lows = array("Q", bytes(8 * slots))
        self._numbers = array("q", b"\xff" * (8 * slots))

    def _grow(self) -> None:
        old = self._highs, self._lows, self._numbers
        self._make_slots(2 * len(self._numbers))
        for high, low, number in zip(*old, strict=True):
            if number >= 0:
                slot = self._find_slot(high, low)
                self._highs[slot], self._lows[slot], self._numbers[slot] = high, low, number
