"""What the splitter keeps of a chunk of lines: numbers per line, and why lines were rejected."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from airflow_openai_batch.core.plan import Certainty

REQUEST, BLANK, REJECTED = 0, 1, 2
KIND_BITS = 0b0011
"""Of a line's flags: what kind of line it is. The bits above hold its certainty."""
CERTAINTY_SHIFT = 2
CERTAINTIES: tuple[Certainty, ...] = ("exact", "upper", "lower")
"""In order of growing doubt; a line's flags hold the index."""

MAX_UINT32 = 2**32 - 1

LENGTH, TOKENS, HASH, KEY, FLAGS, INPUTS = "I", "I", "q", "H", "B", "H"
"""Array type codes: 4 + 4 + 8 + 2 + 1 + 2 = 21 bytes a line."""


class Rejection(msgspec.Struct, array_like=True):
    """A line that cannot be sent."""

    index: int
    """Of the line, in its chunk."""
    code: str
    message: str
    custom_id: str | None


class ChunkTally(msgspec.Struct, array_like=True):
    """Per line of a chunk: arrays as bytes in the machine's order; they never leave it."""

    lengths: bytes
    """With the newline."""
    tokens: bytes
    hashes: bytes
    """Of the custom_id; comparable within one scan only."""
    keys: bytes
    """Index into ``names``."""
    flags: bytes
    inputs: bytes
    """Embedding inputs."""
    names: list[tuple[str, str]]
    """Model and endpoint."""
    rejections: list[Rejection]
    samples: list[tuple[int, int]]
    """Index of a line and its tokens as counted, where ``tokens`` holds a bound."""


class TallyBuilder:
    """Collects a `ChunkTally` line by line."""

    def __init__(self) -> None:
        self.lengths = array(LENGTH)
        self.tokens = array(TOKENS)
        self.hashes = array(HASH)
        self.keys = array(KEY)
        self.flags = array(FLAGS)
        self.inputs = array(INPUTS)
        self.names: dict[tuple[str, str], int] = {}
        self.rejections: list[Rejection] = []
        self.samples: list[tuple[int, int]] = []

    def add_blank(self, length: int) -> None:
        self._add(length, 0, 0, 0, BLANK, 0)

    def add_request(
        self, length: int, tokens: int, custom_id_hash: int, name: tuple[str, str], certainty: int, inputs: int
    ) -> None:
        key = self.names.setdefault(name, len(self.names))
        self._add(length, min(tokens, MAX_UINT32), custom_id_hash, key, certainty << CERTAINTY_SHIFT, inputs)

    def add_rejected(self, length: int, code: str, message: str, custom_id: str | None) -> None:
        self.rejections.append(Rejection(len(self.lengths), code, message, custom_id))
        self._add(min(length, MAX_UINT32), 0, 0, 0, REJECTED, 0)

    def set_tokens(self, index: int, tokens: int, certainty: int) -> None:
        self.tokens[index] = min(tokens, MAX_UINT32)
        self.flags[index] = certainty << CERTAINTY_SHIFT

    def reject(self, index: int, code: str, message: str, custom_id: str | None) -> None:
        self.rejections.append(Rejection(index, code, message, custom_id))
        self.flags[index] = REJECTED

    def _add(self, length: int, tokens: int, hashed: int, key: int, flags: int, inputs: int) -> None:
        self.lengths.append(length)
        self.tokens.append(tokens)
        self.hashes.append(hashed)
        self.keys.append(key)
        self.flags.append(flags)
        self.inputs.append(inputs)

    def finish(self) -> ChunkTally:
        return ChunkTally(
            lengths=self.lengths.tobytes(),
            tokens=self.tokens.tobytes(),
            hashes=self.hashes.tobytes(),
            keys=self.keys.tobytes(),
            flags=self.flags.tobytes(),
            inputs=self.inputs.tobytes(),
            names=list(self.names),
            rejections=sorted(self.rejections, key=lambda rejection: rejection.index),
            samples=self.samples,
        )


CountMode = Literal["exact", "bound"]
"""``bound``: a line's bytes stand for its tokens wherever that is enough."""
