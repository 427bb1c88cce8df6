"""Whether one may go there: the allow-lists of ``[openai_batch]``, and what holds where they are not set.

Where a list is set, it binds everybody, the authors of DAGs too. Where it is not, DAG code names any place, and a form
names what lies below ``input_root``, ``output_root`` or the samples, and connections that the DAG's code names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import get_current_context

from airflow_openai_batch.access.givers import Giver, find_conn_ids
from airflow_openai_batch.access.settings import (
    SECTION,
    describe_option,
    find_input_roots,
    find_output_root,
    find_samples,
    read_list,
)
from airflow_openai_batch.errors import ConfigError, NotAllowedError
from airflow_openai_batch.storage.uris import (
    PUT_IT_THERE,
    WHERE_IT_LEADS,
    find_link_out,
    is_local_uri,
    parse_uri,
)

if TYPE_CHECKING:
    from airflow_openai_batch.storage.uris import StorageUri

Role = Literal["input", "output"]
_CONN_IDS = "allowed_conn_ids"
_OWN = frozenset({".books", ".qdrant"})


def find_roots(role: Role, giver: Giver) -> list[str] | None:
    """What a value must lie below; None where it may lie anywhere."""
    listed = read_list(f"allowed_{role}_roots")
    if listed or giver is not Giver.FORM:
        return listed or None
    return find_input_roots() if role == "input" else [find_output_root()]


def check_uri(uri: str, role: Role, giver: Giver = Giver.FORM) -> None:
    """Whether a place may be read from or written to.

    :param role: ``input`` or ``output``; the list is ``allowed_input_roots`` or ``allowed_output_roots``.
    :param giver: who named it; without it, whoever triggered the run.
    :raises ConfigError: for what is no plain address.
    :raises NotAllowedError: if it is below none of the roots.
    """
    roots = find_roots(role, giver)
    if roots is None:
        if giver is Giver.RUN and ".." in re.split(r"[/\\]", uri):  # the id of a run may be ".."
            raise ConfigError(f"{uri}: leads upwards. Whatever differs from run to run must not hold '..'.")
        return
    place = parse_uri(uri.strip())
    above = [root for root in map(_parse_root, roots) if place.is_below(root)]
    if any(not _is_ours(place, root, role, giver) for root in above):
        return
    if above:
        raise NotAllowedError(
            f"{uri}: lies in a folder whose name begins with a dot; such folders are not for what a form names. "
            "Choose another output_uri."
        )
    raise NotAllowedError(f"{uri}: {_describe_refusal(uri, place, roots, role)}")


def _describe_refusal(uri: str, place: StorageUri, roots: list[str], role: Role) -> str:
    """Why, and the line that would allow it."""
    option = f"allowed_{role}_roots"
    link = find_link_out(uri, [_parse_root(root).key for root in roots if is_local_uri(root)])
    if link is not None:
        why = f"{link} is a symbolic link that leads out of {', '.join(roots)}. {PUT_IT_THERE}"
    elif read_list(option):
        why = f"not below an allowed {role} root. [{SECTION}] {option} lists {', '.join(roots)}."
    else:
        why = f"was named by whoever triggered this run, who may name {role}s below {', '.join(roots)} only."
    wanted = _suggest(uri, place) if link is None else WHERE_IT_LEADS
    if read_list(option):
        return f"{why} {describe_option(option, wanted)}"
    if role == "input":  # unlike the list, it does not bind what stands in DAG code
        return f"{why} {describe_option('input_root', wanted)}"
    return f"{why} {describe_option(option, *roots, wanted)}"


def _parse_root(root: str) -> StorageUri:
    return parse_uri(root.rstrip("/") or "/")


def _is_ours(place: StorageUri, root: StorageUri, role: Role, giver: Giver) -> bool:
    """What lies below the root under a name with a dot is no place for what a form makes; the books of a month and the
    files of Qdrant, which are executed when they are read, are none wherever the root is."""
    if giver is not Giver.FORM or role != "output":
        return False
    below = place.key[len(root.key) :].split("/")
    return any(part.startswith(".") for part in below) or not _OWN.isdisjoint(place.key.split("/"))


def _suggest(uri: str, place: StorageUri) -> str:
    """The directory of what was named, as it would stand in a list; of a sample the folder of all."""
    samples = find_samples()
    if samples is not None and place.is_below(_parse_root(samples)):
        return samples
    folder = place.key if uri.strip().endswith("/") else place.key.rpartition("/")[0]
    if place.scheme == "file":
        return folder or "/"
    authority = f"{place.connection}@{place.bucket}" if place.connection else place.bucket
    return f"{place.scheme}://{authority}/{folder}".rstrip("/")


def check_conn_id(conn_id: str, giver: Giver = Giver.FORM) -> None:
    """Whether a connection may be used.

    :param giver: who named it; without it, whoever triggered the run, who may use those that the DAG's code names.
    :raises NotAllowedError: if it is not in ``[openai_batch] allowed_conn_ids``, or, where that is unset, not allowed
        to a form.
    """
    listed = read_list(_CONN_IDS)
    if conn_id in listed or (not listed and giver is not Giver.FORM):
        return
    if listed:
        raise NotAllowedError(
            f"connection {conn_id!r}: not allowed. [{SECTION}] {_CONN_IDS} lists {', '.join(listed)}. "
            f"{describe_option(_CONN_IDS, conn_id)}"
        )
    named = _find_named()
    if conn_id in named:
        return
    others = f" Its code names {', '.join(sorted(named))}." if named else ""
    raise NotAllowedError(
        f"connection {conn_id!r}: was named by whoever triggered this run, who may name those only that the code of "
        f"the DAG names.{others} {describe_option(_CONN_IDS, *sorted(named), conn_id)}"
    )


def _find_named() -> set[str]:
    """Connections in the code of the DAG that runs."""
    try:
        context: Any = get_current_context()
    except RuntimeError:
        return set()
    return find_conn_ids(context["dag"])
