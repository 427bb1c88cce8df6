"""The work of a batch: answer its lines and write the output and error files."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import msgspec

from airflow_openai_batch.testing.refusals import MESSAGES

if TYPE_CHECKING:
    from airflow_openai_batch.testing.faults import LineFault

JSON = dict[str, Any]
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Reply:
    """What one request got."""

    status: int
    body: JSON
    tokens: tuple[int, int] = (0, 0)
    """Input and output."""
    fault: LineFault | None = None


class Respond(Protocol):
    """Answers one line of a batch and enters it into the books."""

    def __call__(self, body: Any, position: int, custom_id: str, input_tokens: int) -> Reply: ...


@dataclass(slots=True, kw_only=True)
class BatchLanding:
    """Runs the first ``due`` lines of a shuffled order; the others are said to have ``unfinished_code``.

    :ivar offsets: of the lines, one more than there are.
    :ivar tokens: of the lines, input only.
    :ivar unfinished_code: none leaves unfinished lines out of both files.
    """

    batch_id: str
    source: BinaryIO
    offsets: array[int]
    tokens: array[int]
    due: int
    unfinished_code: str | None
    respond: Respond
    output: BinaryIO
    errors: BinaryIO
    seed: str
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    output_lines: int = 0
    error_lines: int = 0
    lost: int = 0
    """Good answers that the output file leaves out."""
    done: bool = False
    _order: Iterator[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        order = array("l", range(len(self.offsets) - 1))
        random.Random(self.seed).shuffle(order)  # noqa: S311
        self._order = enumerate(order)

    @property
    def size_bytes(self) -> int:
        return self.offsets[-1]

    def step(self, lines: int) -> bool:
        """Answer so many lines; true when all is written."""
        for _ in range(lines):
            turn = next(self._order, None)
            if turn is None:
                self._finish()
                return True
            self._land(*turn)
        return self.done

    def close(self) -> None:
        for file in (self.source, self.output, self.errors):
            file.close()

    def _finish(self) -> None:
        self.close()
        self.done = True

    def _land(self, turn: int, position: int) -> None:
        request = self._read(position)
        custom_id = request["custom_id"]
        if turn >= self.due:
            if self.unfinished_code is not None:
                self._write_error(position, custom_id, self.unfinished_code)
            return
        reply = self.respond(request["body"], position, custom_id, self.tokens[position])
        fault = reply.fault.line if reply.fault is not None else None
        if isinstance(fault, str) and fault in ("request_timeout", "batch_expired", "batch_cancelled"):
            self.failed += 1
            self._write_error(position, custom_id, fault)
            return
        self.input_tokens += reply.tokens[0]
        self.output_tokens += reply.tokens[1]
        good = reply.status == 200
        self.completed += good
        self.failed += not good
        if fault == "missing":
            self.lost += good
            return
        line = self._line(position, custom_id, reply, fault)
        if good:
            self.output.write(line)
            self.output_lines += 1
        else:
            self.errors.write(line)
            self.error_lines += 1
        if fault == "duplicate":
            (self.output if good else self.errors).write(line)

    def _read(self, position: int) -> Any:
        start, end = self.offsets[position], self.offsets[position + 1]
        self.source.seek(start)
        return msgspec.json.decode(self.source.read(end - start))

    def _line(self, position: int, custom_id: str, reply: Reply, fault: int | str | None) -> bytes:
        body: Any = reply.body
        if fault == "string_body":
            body = _encode(body).decode()
        name = f"{self.batch_id[6:]}{position:06x}"
        response = {"status_code": reply.status, "request_id": f"req_{name}", "body": body}
        line = {"id": f"batch_req_{name}", "custom_id": custom_id, "response": response, "error": None}
        if fault == "unparsable":
            return _encode(line).replace(b'"object":"', b'"object":""', 1) + b"\n"
        return _encode(line) + b"\n"

    def _write_error(self, position: int, custom_id: str, code: str) -> None:
        line = {
            "id": f"batch_req_{self.batch_id[6:]}{position:06x}",
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": MESSAGES[code]},
        }
        self.errors.write(_encode(line) + b"\n")
        self.error_lines += 1
