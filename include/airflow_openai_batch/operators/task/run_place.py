"""What a run's directory is called where ``{run_id}`` stands in an output_uri."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.access.locations import absolute_uri, resolve_location
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.job.open_plan import open_plan

if TYPE_CHECKING:
    from airflow_openai_batch.access.givers import Giver

PLACEHOLDER = "{run_id}"
DAG_PLACEHOLDER = "{dag_id}"
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


def place_of_run(pattern: str, ti: Any, giver: Giver) -> str:
    """The URI with the run's name in the place of ``{run_id}``, and the DAG's in that of ``{dag_id}``.

    :param ti: the task instance that runs.
    :param giver: who named the place; whether they may go there is asked before anything is read.

    Releases before 0.2 did not tell apart run ids that look alike, and put jobs of all DAGs side by side. Where a plan
    of this very run lies in a directory that is called as they did it, the run stays there: what it has paid for lies
    there.
    """
    run_id, dag_id = str(ti.run_id), str(ti.dag_id)
    check = functools.partial(check_uri, role="output", giver=giver)
    name, old = make_path_safe(run_id), _clean(run_id)
    filled = pattern.replace(DAG_PLACEHOLDER, make_path_safe(dag_id))
    place = filled.replace(PLACEHOLDER, name)
    check(place)
    if place == filled:
        return place
    for each in dict.fromkeys((filled, pattern.replace(f"{DAG_PLACEHOLDER}/", ""))):
        former = each.replace(PLACEHOLDER, old)
        if former != place and _is_former(each, old, f"{dag_id}/{run_id}", check):
            return former
    return place


def find_shared_place(pattern: str, ti: Any) -> str:
    """What all runs of a DAG share of their place, absolute; empty where that is nothing."""
    shared = pattern.partition(PLACEHOLDER)[0].strip().rstrip("/")
    return absolute_uri(shared.replace(DAG_PLACEHOLDER, make_path_safe(ti.dag_id))) if shared else ""


def _is_former(pattern: str, old: str, run_key: str, check: Callable[[str], None]) -> bool:
    """Whether an earlier release put a job of this run there."""
    before, _, after = pattern.partition(PLACEHOLDER)
    root = f"{before}{old}{after.partition('/')[0]}".replace(PLACEHOLDER, old)
    for uri in dict.fromkeys((pattern.replace(PLACEHOLDER, old), root, f"{root}/job")):
        try:
            check(uri)
        except ConfigError:  # it was no place for this run before either
            continue
        if _is_planned_by(uri, run_key):
            return True
    return False


def _clean(run_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", run_id)


def _is_planned_by(uri: str, run_key: str) -> bool:
    try:
        plan = open_plan(resolve_location(uri))
    except (JobError, OSError):  # whoever uses it will be told
        return False
    return plan is not None and plan.head.created_by in ("", run_key)  # the oldest did not note it
