"""At most two sends in real time of one account at once on a machine, and eight through flex, whatever processes they
run in.

The rates of an account are shared by all who use it: twenty mapped tasks with five requests each in the air would
only take turns at being refused.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from airflow_openai_batch.errors import OpenAIBatchError
from airflow_openai_batch.storage.this_machine import find_lock_folder, take_first_free

SLOTS = 2
"""One send leaves the account idle while it writes; three get in each other's way."""
FLEX_SLOTS = 8
"""An answer takes minutes, in which others need not wait; and what is in real time waits for none of them."""
BUSY_RETRY_S = 10.0


class RealtimeBusyError(OpenAIBatchError):
    """All places are taken: nothing was sent, and no attempt is used up. Look again in ``retry_after_s``."""

    permanent = False

    def __init__(self, message: str, retry_after_s: float = BUSY_RETRY_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@contextlib.contextmanager
def take_slot(base_url: str, api_key: str, *, flex: bool = False) -> Iterator[None]:
    """Hold one of the account's places; it does not wait for one.

    The files are named by a hash, so that they tell nothing of the key.

    :raises RealtimeBusyError: if none is free.
    """
    account = hashlib.sha256(f"{base_url}|{api_key}{'|flex' if flex else ''}".encode()).hexdigest()[:20]
    slots = FLEX_SLOTS if flex else SLOTS
    folder = find_lock_folder()
    places = [folder / f"{account}.{number}.lock" for number in range(slots)]
    with contextlib.ExitStack() as held:
        if not take_first_free(places, held):
            raise RealtimeBusyError(
                f"{slots} {'flex' if flex else 'real-time'} sends with this connection's account are running on this "
                f"machine already; looking again in {BUSY_RETRY_S:.0f} s."
            )
        yield
