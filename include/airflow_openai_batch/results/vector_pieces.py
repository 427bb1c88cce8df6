"""Embeddings that came in pieces: the next send asks for the missing inputs alone, and landing puts all together.

What a send carried is read from its leftover file, not worked out from the answers before it: these may have been
fetched anew since, and earlier releases sent all inputs again. A vector stands at each place of the input that it was
sent for, by the bytes of that input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from airflow_openai_batch.job.request_line import READ_ERRORS, read_fields
from airflow_openai_batch.openai_api.answer_parts import MISSING_PARTS, ResponseContent, Usage
from airflow_openai_batch.openai_api.answer_vectors import describe_missing
from airflow_openai_batch.results.outcome import Outcome, OutcomeRules, Rank, judge_answer

if TYPE_CHECKING:
    from airflow_openai_batch.openai_api.answer_parts import Vector

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_inputs(line: bytes) -> list[bytes] | None:
    """The JSON of each input of a request line; None where it is no list of inputs."""
    try:
        return [bytes(raw) for raw in _decode_list(read_fields(line).body.input)]
    except READ_ERRORS:
        return None


def cut_to_missing(line: bytes, outcome: Outcome | None) -> bytes:
    """The request for those of its inputs whose vectors have not come; as it is where none came."""
    inputs = read_inputs(line) if outcome is not None and lacks_some(outcome) else None
    vectors = find_vectors(outcome)
    if inputs is None or len(inputs) != len(vectors):
        return line
    missing = [each for each, vector in zip(inputs, vectors, strict=True) if vector is None]
    request = _decode_object(line)
    body = _decode_object(request["body"]) | {"input": msgspec.Raw(b"[" + b",".join(missing) + b"]")}
    return msgspec.json.encode(request | {"body": msgspec.Raw(msgspec.json.encode(body))})


def find_vectors(outcome: Outcome | None) -> list[Vector | None]:
    """None at the places of inputs whose vectors did not come; empty where none came."""
    return (outcome.answer.embeddings or []) if outcome is not None and outcome.answer is not None else []


def count_vectors(outcome: Outcome) -> int:
    return sum(vector is not None for vector in find_vectors(outcome))


def lacks_some(outcome: Outcome) -> bool:
    """Whether some vectors came, and others did not."""
    return any(vector is None for vector in find_vectors(outcome))


class VectorPieces:
    """The vectors of one request, answer by answer.

    :param line: the request as it stands in the input.
    """

    def __init__(self, line: bytes, rules: OutcomeRules) -> None:
        self.inputs = read_inputs(line) or []
        self._rules = rules
        self._placed: list[Vector | None] = [None] * len(self.inputs)
        self._answers: list[ResponseContent] = []
        self.sends: tuple[int, ...] = ()
        """Whose answers have brought something; indexes into the sends."""

    def add(self, send: int, outcome: Outcome, carried: list[bytes] | None) -> Outcome:
        """What the request has come to with this answer, too.

        :param outcome: of the inputs that this send carried.
        :param carried: these inputs; None where that is not known.
        """
        vectors = find_vectors(outcome)
        whole = len(vectors) == len(self.inputs) and outcome.rank is Rank.GOOD
        if whole or not vectors or outcome.answer is None:
            return outcome  # one without vectors is not good
        if self._fits(outcome.answer, vectors, carried) and self._place(carried or [], vectors):
            self._answers.append(outcome.answer)
            self.sends = (*self.sends, send)
        return self._judge(outcome, self._answers or [outcome.answer])

    def _fits(
        self, answer: ResponseContent, vectors: list[Vector | None], carried: list[bytes] | None
    ) -> bool:
        """Vectors of another model or size are nothing to compare with those that came before."""
        if carried is None or len(carried) != len(vectors):
            return False
        return not self._answers or _describe_kind(answer) == _describe_kind(self._answers[0])

    def _place(self, carried: list[bytes], vectors: list[Vector | None]) -> bool:
        """Returns whether a place was filled that was empty."""
        came = {each: vector for each, vector in zip(carried, vectors, strict=True) if vector is not None}
        filled = False
        for index, each in enumerate(self.inputs):
            if self._placed[index] is None and each in came:
                self._placed[index] = came[each]
                filled = True
        return filled

    def _judge(self, last: Outcome, billed: list[ResponseContent]) -> Outcome:
        missing = [index for index, vector in enumerate(self._placed) if vector is None]
        answer = ResponseContent(
            embeddings=list(self._placed) if self._answers else None,
            model=billed[0].model,
            usage=_add_up([each.usage for each in billed]),
            service_tier=billed[0].service_tier,
            has_text=False,
        )
        if missing:
            answer.defect = MISSING_PARTS
            answer.defect_message = describe_missing("vectors", len(self._placed), missing)
        judged = judge_answer(answer, "text", None, self._rules)
        judged.status_code, judged.request_id = last.status_code, last.request_id
        judged.body = last.body if len(billed) == 1 else None  # no single one has all
        return judged


def _describe_kind(answer: ResponseContent) -> tuple[str | None, int]:
    return answer.model, next(len(vector) for vector in answer.embeddings or () if vector is not None)


def _add_up(usages: list[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    return Usage(*(_sum(getattr(usage, name) for usage in known) for name in Usage.__struct_fields__))


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
