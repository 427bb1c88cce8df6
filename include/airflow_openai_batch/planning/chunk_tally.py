"""What the splitter keeps of a chunk of lines: numbers per line, and why lines were rejected."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from airflow_openai_batch.job.plan import CERTAINTIES

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import Certainty
    from airflow_openai_batch.requests.plain_bodies import PlainBody
    from airflow_openai_batch.requests.request import Request
    from airflow_openai_batch.requests.tokens.parts import Measure

CountMode = Literal["exact", "bound"]
"""``bound``: a line's bytes stand for its tokens wherever that is enough."""

REQUEST, BLANK, REJECTED = 0, 1, 2
KIND_BITS = 0b0011
"""Of a line's flags: what kind of line it is. The bits above hold its certainty."""
CERTAINTY_SHIFT = 2
"""A line's flags hold the index in `CERTAINTIES`."""

LENGTH, TOKENS, HASH, KEY, FLAGS, INPUTS = "I", "I", "q", "H", "B", "H"
"""Array type codes: 4 + 4 + 8 + 2 + 1 + 2 = 21 bytes a line."""

_MAX_UINT32 = 2**32 - 1


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
    """Without the newline."""
    tokens: bytes
    hashes: bytes
    """Of the custom_id; comparable within one scan only."""
    keys: bytes
    """Index into ``names``."""
    flags: bytes
    inputs: bytes
    """Embedding inputs; of pictures what stands for them."""
    names: list[tuple[str, str]]
    """Model and endpoint."""
    rejections: list[Rejection]
    samples: list[tuple[int, int]]
    """Index of a line and its tokens as billed, where ``tokens`` holds a bound or counts images as text."""
    outputs: list[OutputSum] = []
    """One per name."""
    images: int = 0
    """Requests with images in them."""


class TallyBuilder:
    """Collects a `ChunkTally`. Lines begin as requests whose bytes stand for their tokens."""

    def __init__(self, lengths: Sequence[int]) -> None:
        count = len(lengths)
        self.lengths = array(LENGTH, lengths)
        self.tokens = array(TOKENS, self.lengths)
        self.hashes = array(HASH, bytes(8 * count))
        self.keys = array(KEY, bytes(2 * count))
        self.flags = bytearray([CERTAINTIES.index("upper") << CERTAINTY_SHIFT]) * count
        self.inputs = array(INPUTS, bytes(2 * count))
        self.names: dict[tuple[str, str], int] = {}
        self.rejections: list[Rejection] = []
        self.samples: list[tuple[int, int]] = []
        self.outputs: list[OutputSum] = []
        self.images = 0

    def name_key(self, model: str, endpoint: str) -> int:
        key = self.names.setdefault((model, endpoint), len(self.names))
        if key == len(self.outputs):
            self.outputs.append(OutputSum())
        return key

    def output_of(self, model: str, endpoint: str) -> OutputSum:
        return self.outputs[self.name_key(model, endpoint)]

    def set_blank(self, index: int) -> None:
        self.flags[index] = BLANK

    def set_tokens(self, index: int, tokens: int, certainty: Certainty) -> None:
        self.tokens[index] = min(tokens, _MAX_UINT32)
        self.flags[index] = CERTAINTIES.index(certainty) << CERTAINTY_SHIFT

    def reject(self, index: int, code: str, message: str, custom_id: str | None) -> None:
        self.rejections.append(Rejection(index, code, message, custom_id))
        self.flags[index] = REJECTED

    def finish(self) -> ChunkTally:
        self.rejections.sort(key=lambda rejection: rejection.index)
        return ChunkTally(
            lengths=self.lengths.tobytes(),
            tokens=self.tokens.tobytes(),
            hashes=self.hashes.tobytes(),
            keys=self.keys.tobytes(),
            flags=bytes(self.flags),
            inputs=self.inputs.tobytes(),
            names=list(self.names),
            rejections=self.rejections,
            samples=self.samples,
            outputs=self.outputs,
            images=self.images,
        )


class OutputSum(msgspec.Struct, array_like=True, gc=False):
    """Over requests of one model and endpoint."""

    tokens: int = 0
    """Of those that have a bound."""
    unbounded: int = 0
    """Those that have none."""
    choices: int = 0
    """Answers that those without a bound ask for."""
    dearer: int = 0
    """Those that ask for a service tier above the standard price."""

    def add(self, bodies: Sequence[PlainBody | Measure]) -> None:
        allowed = [body.output_tokens for body in bodies]
        if None in allowed:
            without = [body for body, tokens in zip(bodies, allowed, strict=True) if tokens is None]
            self.unbounded += len(without)
            self.choices += sum(body.choices for body in without)
        self.tokens += sum(tokens for tokens in allowed if tokens is not None)
        self.dearer += sum(body.is_dearer for body in bodies)

    def drop(self, request: Request) -> None:
        """Take a request out again that turned out not to be one."""
        self.dearer -= request.body.is_dearer
        tokens = request.body.output_tokens
        if tokens is None:
            self.unbounded -= 1
            self.choices -= request.body.choices
        else:
            self.tokens -= tokens

    def merge(self, other: OutputSum) -> None:
        self.tokens += other.tokens
        self.unbounded += other.unbounded
        self.choices += other.choices
        self.dearer += other.dearer
