"""The files that OpenAI keeps for us: uploaded inputs and results, with their expiry."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_openai_batch.testing.refusals import ApiError

if TYPE_CHECKING:
    from airflow_openai_batch.testing.blobs import Blobs

JSON = dict[str, Any]

MIN_EXPIRY_S, MAX_EXPIRY_S = 3_600, 2_592_000
BATCH_RETENTION_S = 2_592_000.0
"""30 days for inputs and outputs of batches, where nothing else was asked."""


@dataclass(slots=True)
class StoredFile:
    """What is known of a file; the content is a blob under its id."""

    id: str
    filename: str
    purpose: str
    size: int
    created_at: float
    expires_at: float | None
    processed_at: float = 0.0
    lag: int = 0
    """Reads that still answer 404, as if the file were not there yet."""

    def to_json(self, now: float) -> JSON:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": int(self.created_at),
            "expires_at": None if self.expires_at is None else int(self.expires_at),
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed" if now >= self.processed_at else "pending",
            "status_details": None,
        }


class Files:
    """Files in the order they were made; ids stay known after deletion, for paging only."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._files: dict[str, StoredFile] = {}
        self._order: dict[str, int] = {}
        self._pins: Counter[str] = Counter()
        self._expiry: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._files)

    @property
    def alive(self) -> list[StoredFile]:
        return list(self._files.values())

    def writer(self, file_id: str) -> BinaryIO:
        """Where the content goes before `add`."""
        return self._blobs.create(file_id)

    def discard(self, file_id: str) -> None:
        """Content that was written and never added."""
        self._blobs.delete(file_id)

    def add(self, file: StoredFile) -> StoredFile:
        self._files[file.id] = file
        self._order[file.id] = len(self._order)
        if file.expires_at is not None:
            heapq.heappush(self._expiry, (file.expires_at, file.id))
        return file

    def expire(self, now: float) -> None:
        while self._expiry and self._expiry[0][0] <= now:
            _, file_id = heapq.heappop(self._expiry)
            if file_id in self._files:
                self.drop(file_id)

    def find(self, file_id: str) -> StoredFile | None:
        return self._files.get(file_id)

    def get(self, file_id: str) -> StoredFile:
        """:raises ApiError: 404, also while the file lags behind its batch."""
        file = self._files.get(file_id)
        if file is not None and file.lag > 0:
            file.lag -= 1
            file = None
        if file is None:
            raise ApiError(404, f"No such File object: {file_id}", param="id")
        return file

    def delete(self, file_id: str) -> JSON:
        self.get(file_id)
        self.drop(file_id)
        return {"id": file_id, "object": "file", "deleted": True}

    def drop(self, file_id: str) -> None:
        """Whether it is shown yet or not."""
        del self._files[file_id]
        if not self._pins[file_id]:
            self._blobs.delete(file_id)

    def open(self, file_id: str) -> BinaryIO:
        return self._blobs.open(file_id)

    def size(self, file_id: str) -> int:
        return self._blobs.size(file_id)

    def pin(self, file_id: str) -> None:
        """Keep the content although the file may be deleted: a batch is running on it."""
        self._pins[file_id] += 1

    def unpin(self, file_id: str) -> None:
        self._pins[file_id] -= 1
        if not self._pins[file_id]:
            del self._pins[file_id]
            if file_id not in self._files:
                self._blobs.delete(file_id)

    def page(
        self, *, after: str | None, limit: int, order: str, purpose: str | None
    ) -> tuple[list[StoredFile], bool]:
        """:return: the files of one page and whether there are more."""
        files = [f for f in self._files.values() if purpose is None or f.purpose == purpose]
        if order == "desc":
            files.reverse()
        if after is not None:
            if after not in self._order:
                raise ApiError(404, f"No such File object: {after}", param="after")
            mark = self._order[after]
            files = [f for f in files if (self._order[f.id] < mark) == (order == "desc") and f.id != after]
        return files[:limit], len(files) > limit


def expiry_of(policy: Any, created_at: float, *, param: str) -> float | None:
    """When a file ends, by ``expires_after``.

    :raises ApiError: 400, for a policy that OpenAI does not take.
    """
    if policy is None:
        return None
    if not isinstance(policy, dict) or policy.get("anchor") != "created_at":
        raise ApiError(
            400, f"Invalid value for '{param}.anchor': must be 'created_at'.", param=f"{param}.anchor"
        )
    seconds = policy.get("seconds")
    if not isinstance(seconds, int) or not MIN_EXPIRY_S <= seconds <= MAX_EXPIRY_S:
        raise ApiError(
            400,
            f"Invalid '{param}.seconds': must be between {MIN_EXPIRY_S} and {MAX_EXPIRY_S}.",
            code="integer_out_of_range",
            param=f"{param}.seconds",
        )
    return created_at + seconds
