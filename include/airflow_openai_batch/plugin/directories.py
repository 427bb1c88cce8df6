"""Job directories as they were a moment ago, for all users of this API server.

What is known is answered at once, however old; a look that is due happens in a thread and is there for the next
request. Object storage never holds up a page.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.report.snapshot import JobSnapshot, SnapshotReader
from airflow_openai_batch.server_words import clean_words

log = logging.getLogger(__name__)

MOST_DIRECTORIES = 500
"""That are remembered, more than one answer is about; 2,000 shards take 2 MB."""
LOOKS_AT_ONCE = 4
RUNNING_S = 3.0
"""Between two looks at a job that goes on."""
FINAL_S = 60.0
"""Between two looks at a job that is done and reported: somebody may repair it."""
PATIENCE_S = 0.15
"""A page waits so long for what has never been looked at, or not for `STALE_S`: a local directory is read by then."""
STALE_S = 20.0
"""Behind a balancer with several API servers each is asked now and then only."""


class Directory:
    """One job directory."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.snapshot: JobSnapshot | None = None
        self.error: str | None = None
        self._reader: SnapshotReader | None = None
        self._looked_at = 0.0
        self._took_s = 0.0

    @property
    def loaded(self) -> bool:
        return self.snapshot is not None or self.error is not None

    def is_due(self, now: float) -> bool:
        final = self.snapshot is not None and self.error is None and self.snapshot.is_final
        # a directory that takes long to read is not read all the time
        return now >= self._looked_at + max(FINAL_S if final else RUNNING_S, 2 * self._took_s)

    def is_stale(self, now: float) -> bool:
        return not self.loaded or now >= self._looked_at + STALE_S

    def look(self) -> None:
        """Blocks. What goes wrong is kept as text, beside what was seen before."""
        began = time.monotonic()
        try:
            if self._reader is None:
                # A split pushed it, which has looked at who gave it.
                self._reader = SnapshotReader(open_place(self.uri, "output", Giver.CODE))
            self.snapshot, self.error = self._reader.read(), None
        except OpenAIBatchError as error:
            self.error, self._reader = str(error)[:500], None
        except Exception as error:
            log.warning("%s cannot be read: %s", self.uri, type(error).__name__)
            log.debug("The reason:", exc_info=True)
            # Others than the storage's own errors may quote what a secrets backend said.
            said = f": {clean_words(str(error), 200)}" if isinstance(error, OSError) else ""
            self.error = f"{self.uri} cannot be read ({type(error).__name__}{said})."
            self._reader = None  # credentials may have changed
        finally:
            self._looked_at = time.monotonic()
            self._took_s = self._looked_at - began


class Directories:
    """All that were asked for lately."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Directory] = OrderedDict()
        self._looks: dict[str, Future[None]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def get(self, uris: Collection[str], *, patience_s: float = PATIENCE_S) -> dict[str, Directory]:
        """By URI, as last seen. Starts the looks that are due, and waits a moment where nothing is known yet."""
        with self._lock:
            found = {uri: self._find(uri) for uri in uris}
            now = time.monotonic()
            due = [self._looks[uri] for uri in found if uri in self._looks and found[uri].is_stale(now)]
        if due:
            wait(due, timeout=patience_s)
        return found

    def _find(self, uri: str) -> Directory:
        directory = self._known.setdefault(uri, Directory(uri))
        self._known.move_to_end(uri)
        while len(self._known) > MOST_DIRECTORIES:
            self._known.popitem(last=False)
        if uri not in self._looks and directory.is_due(time.monotonic()):
            if self._threads is None:  # not before: the process may fork
                self._threads = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="openai-batches")
            self._looks[uri] = look = self._threads.submit(directory.look)
            look.add_done_callback(lambda _: self._looks.pop(uri, None))
        return directory


DIRECTORIES = Directories()
