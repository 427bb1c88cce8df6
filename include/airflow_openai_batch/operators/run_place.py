"""What a run's directory is called where ``{run_id}`` stands in an output_uri."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from airflow_openai_batch.core import job
from airflow_openai_batch.core.errors import JobError
from airflow_openai_batch.locations import resolve_location

PLACEHOLDER = "{run_id}"
MOST_CHARS = 180
"""Of a name: file systems take 255 bytes, and names are made longer while a file is written."""
_MARK_DIGITS = 10
_MARKED = re.compile(rf".*-[0-9a-f]{{{_MARK_DIGITS}}}", re.DOTALL)


def make_path_safe(run_id: str) -> str:
    """``manual__2026-01-31T08:00:00+00:00`` as ``manual__2026-01-31T08-00-00-00-00-`` and ten digits of its hash.

    Two run ids never become one name: where the name is not the id itself, a hash tells it from its like, and an id
    that ends as such a name does gets one, too.
    """
    clean = _clean(run_id)[:MOST_CHARS]
    if clean == run_id and clean.strip(".") and not _MARKED.fullmatch(clean):
        return clean
    mark = hashlib.sha256(run_id.encode(errors="surrogatepass")).hexdigest()[:_MARK_DIGITS]
    return f"{clean.strip('.') or 'run'}-{mark}"


def place_of_run(pattern: str, run_id: str, dag_id: str, check: Callable[[str], None]) -> str:
    """The URI with the run's name in the place of ``{run_id}``.

    :param check: whether one may go there; asked before anything is read.

    Releases before 0.2 did not tell apart run ids that look alike. Where a plan of this very run lies in a directory
    that is called as they did it, the run stays there: what it has paid for lies there.
    """
    name, old = make_path_safe(run_id), _clean(run_id)
    place = pattern.replace(PLACEHOLDER, name)
    check(place)
    if place == pattern or name == old:
        return place
    before, _, after = pattern.partition(PLACEHOLDER)
    root = f"{before}{old}{after.partition('/')[0]}".replace(PLACEHOLDER, old)
    former = pattern.replace(PLACEHOLDER, old)
    for uri in dict.fromkeys((former, root, f"{root}/job")):
        check(uri)
        if _is_planned_by(uri, f"{dag_id}/{run_id}"):
            return former
    return place


def _clean(run_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id)


def _is_planned_by(uri: str, run_key: str) -> bool:
    try:
        plan = job.read_plan(resolve_location(uri))
    except (JobError, OSError):  # whoever uses it will be told
        return False
    return plan is not None and plan.created_by in ("", run_key)  # the oldest did not note it
