"""The script: rules waiting for what they match, and how often each has struck."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from airflow_openai_batch.testing.faults import BatchFault, Fault, HttpFault, LineFault, parse_fault

_F = TypeVar("_F", BatchFault, LineFault, HttpFault)


@dataclass(slots=True)
class Rule:
    """A fault with what is left of it."""

    id: str
    fault: Fault
    seen: int = 0
    """Matching calls, struck or not."""
    hits: int = 0
    per_line: Counter[bytes] = field(default_factory=Counter)

    @property
    def spent(self) -> bool:
        times = self.fault.times
        return not isinstance(self.fault, LineFault) and times is not None and self.hits >= times

    def to_json(self) -> dict[str, Any]:
        fault = self.fault
        fields = {name: getattr(fault, name) for name in fault.__struct_fields__}
        return {"id": self.id, "hits": self.hits, "spent": self.spent, "fault": fields}


class Script:
    """Rules in the order given; the first that matches and is not spent strikes.

    :param seed: of faults that hit a share.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._rules: list[Rule] = []
        self._made = 0

    def add(self, fields: dict[str, Any]) -> str:
        """:return: the rule's id. :raises ValueError: if the fields are no fault."""
        self._made += 1
        rule = Rule(f"rule-{self._made}", parse_fault(fields))
        self._rules.append(rule)
        return rule.id

    def remove(self, rule_id: str | None = None) -> None:
        """Take back one rule, or all."""
        self._rules = [rule for rule in self._rules if rule_id is not None and rule.id != rule_id]

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules)

    def strike_batch(self, nth: int, metadata: Mapping[str, str], endpoint: str) -> BatchFault | None:
        """The fault of a batch that is being created."""
        for rule, fault in self._live(BatchFault):
            if _matches_batch(fault, nth, metadata, endpoint) and self._drawn(rule, str(nth)):
                rule.hits += 1
                return fault
        return None

    def strike_line(
        self,
        raw: bytes,
        digest: bytes,
        *,
        scope: str,
        position: int,
        custom_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        flex: bool = False,
    ) -> LineFault | None:
        """The fault of a request that is being answered.

        :param raw: the request's JSON.
        :param digest: of it; it tells requests apart.
        :param position: 0-based place in the batch's file, or number of the real-time call.
        :param flex: it is a call through flex.
        """
        for rule, fault in self._live(LineFault):
            if fault.scope not in ("both", scope) or (fault.line == "no_capacity" and not flex):
                continue
            if not _matches_line(fault, raw, position, custom_id, metadata or {}):
                continue
            if fault.share < 1 and not self._drawn(rule, digest.hex()):
                continue
            if fault.times is not None:
                if rule.per_line[digest] >= fault.times:
                    continue
                rule.per_line[digest] += 1
            rule.hits += 1
            return fault
        return None

    @property
    def has_line_faults(self) -> bool:
        return any(isinstance(rule.fault, LineFault) for rule in self._rules)

    def strike_http(self, method: str, path: str) -> HttpFault | None:
        """The fault of an HTTP call that has just arrived."""
        for rule, fault in self._live(HttpFault):
            if not _matches_route(fault.http, method, path):
                continue
            rule.seen += 1
            if rule.seen <= fault.skip or not self._drawn(rule, str(rule.seen)):
                continue
            rule.hits += 1
            return fault
        return None

    def _live(self, kind: type[_F]) -> Iterator[tuple[Rule, _F]]:
        for rule in self._rules:
            if isinstance(rule.fault, kind) and not rule.spent:
                yield rule, rule.fault

    def _drawn(self, rule: Rule, what: str) -> bool:
        share = rule.fault.share
        if share >= 1:
            return True
        digest = hashlib.blake2b(f"{self._seed}|{rule.id}|{what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < share


def _matches_batch(fault: BatchFault, nth: int, metadata: Mapping[str, str], endpoint: str) -> bool:
    if fault.nth is not None and fault.nth != nth:
        return False
    if fault.endpoint is not None and fault.endpoint != endpoint:
        return False
    wanted = dict(fault.metadata or {})
    for name in ("job_key", "shard", "send"):
        value = getattr(fault, name)
        if value is not None:
            wanted[name] = str(value)
    return all(metadata.get(name) == value for name, value in wanted.items())


def _matches_line(
    fault: LineFault, raw: bytes, position: int, custom_id: str | None, metadata: Mapping[str, str]
) -> bool:
    if fault.custom_id is not None and not _is_among(custom_id, fault.custom_id):
        return False
    if fault.position is not None and not _is_among(position, fault.position):
        return False
    if fault.every is not None and position % fault.every:
        return False
    if fault.contains is not None and fault.contains.encode() not in raw:
        return False
    if fault.job_key is not None and metadata.get("job_key") != fault.job_key:
        return False
    return fault.shard is None or metadata.get("shard") == str(fault.shard)


def _is_among(value: object, wanted: object) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def _matches_route(pattern: str, method: str, path: str) -> bool:
    wanted_method, _, wanted_path = pattern.rpartition(" ")
    if wanted_method and wanted_method.upper() != method:
        return False
    parts = re.split(r"(\*\*|\*)", _without_version(wanted_path))
    regex = "".join({"**": ".+", "*": "[^/]+"}.get(part, re.escape(part)) for part in parts)
    return re.fullmatch(regex, _without_version(path)) is not None


def _without_version(path: str) -> str:
    path = "/" + path.strip("/")
    return path.removeprefix("/v1") or "/"
