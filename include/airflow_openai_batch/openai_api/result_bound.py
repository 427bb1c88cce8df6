"""How much of a result file or a video is taken: whoever answers in a server's place may stream without an end."""

from __future__ import annotations

from airflow_openai_batch.errors import TooLargeError

MAX_RESULT_BYTES = 64 * 2**30
"""50,000 answers of 1.3 MB: as a picture in each has, and far beyond any text."""


class ResultBound:
    """Counts what arrives of one file.

    :param max_result_bytes: of any file.
    :param most_bytes: that there is room for here, where that is less.
    """

    def __init__(self, name: str, max_result_bytes: int, most_bytes: int | None = None) -> None:
        self._name = name
        self._here = most_bytes is not None and most_bytes < max_result_bytes
        self._limit = most_bytes if most_bytes is not None and self._here else max_result_bytes
        self.arrived = 0
        """Bytes."""

    def count(self, chunk: bytes) -> None:
        """Call it before the chunk is written.

        :raises TooLargeError: if that is too much.
        """
        self.arrived += len(chunk)
        if self.arrived <= self._limit:
            return
        what = f"{self._name} has more than {self._limit:,} bytes, the limit"
        raise TooLargeError(
            f"{what} here."
            if self._here
            else f"{what} of what is taken of one file; nothing of it was kept. Where it really is that large, set "
            "[openai_batch] max_result_bytes higher, on all components, and clear the task: nothing is paid again. "
            "Otherwise ask whoever runs the server, or a proxy before it, what it sends."
        )
