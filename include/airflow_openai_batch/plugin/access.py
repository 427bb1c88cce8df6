"""Who may see and do what: Airflow's own answers, asked with Airflow's own functions.

Airflow mounts a plugin's app without any check, so every route here says what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_authenticated
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import HTTPException, Request, status

__all__ = ["GetUserDep", "Rights", "check_origin", "requires_authenticated"]


class Rights:
    """What one user may do, for the time of one request: each right is asked for once."""

    def __init__(self, user: Any) -> None:
        self._user = user
        self._known: dict[tuple[str, str, DagAccessEntity | None], bool] = {}
        self._details: dict[str, DagDetails] = {}

    def may_read(self, dag_id: str) -> bool:
        """The DAG itself and what its task instances say."""
        return self._may("GET", dag_id, None) and self._may("GET", dag_id, DagAccessEntity.TASK_INSTANCE)

    def may_edit(self, dag_id: str) -> bool:
        """Task instances: what Airflow asks for to clear or mark one."""
        return self._may("PUT", dag_id, DagAccessEntity.TASK_INSTANCE)

    def check_read(self, dag_id: str) -> None:
        _check(self.may_read(dag_id), f"You may not read DAG {dag_id!r}.")

    def check_edit(self, dag_id: str) -> None:
        self.check_read(dag_id)
        _check(self.may_edit(dag_id), f"You may not edit task instances of DAG {dag_id!r}.")

    def check_contents(self, dag_id: str) -> None:
        """Requests are contents: what Airflow shows to those alone who may read XCom."""
        self.check_read(dag_id)
        _check(
            self._may("GET", dag_id, DagAccessEntity.XCOM),
            f"You may not read what tasks of DAG {dag_id!r} exchange (XCom).",
        )

    def readable(self, dag_ids: Iterable[str]) -> set[str]:
        """Those of them that the user may read."""
        names = set(dag_ids)
        if hasattr(DagModel, "get_dag_id_to_team_name_mapping"):  # not on Airflow 3.1
            teams = DagModel.get_dag_id_to_team_name_mapping(list(names))
            self._details |= {name: DagDetails(id=name, team_name=teams.get(name)) for name in names}
        return {name for name in names if self.may_read(name)}

    def _may(self, method: Any, dag_id: str, entity: DagAccessEntity | None) -> bool:
        key = (method, dag_id, entity)
        if key not in self._known:
            # As `requires_access_dag` does, which on Airflow 3.1 knows no DAG but that of the address.
            self._known[key] = get_auth_manager().is_authorized_dag(
                method=method, access_entity=entity, details=self._find_details(dag_id), user=self._user
            )
        return self._known[key]

    def _find_details(self, dag_id: str) -> DagDetails:
        if dag_id not in self._details:
            self._details[dag_id] = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
        return self._details[dag_id]


def _check(allowed: bool, why: str) -> None:
    if not allowed:
        raise HTTPException(status.HTTP_403_FORBIDDEN, why)


def check_origin(request: Request) -> None:
    """Against requests that another site makes a browser send, which come with the login cookie: only JSON is taken,
    which no form can send, and only from Airflow's own pages or from what is no browser.

    :raises HTTPException: 415 or 403.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
    _check(request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none"), _OTHER_SITE)
    origin = request.headers.get("origin")
    if origin is None:
        return
    try:
        sent_from, asked = urlsplit(origin).netloc, request.url.netloc
    except ValueError:  # an address that is none
        sent_from, asked = "", ""
    own = {asked, urlsplit(conf.get("api", "base_url", fallback="") or "").netloc}
    _check(sent_from in own - {""}, _OTHER_SITE)


_OTHER_SITE = "This comes from another site than Airflow's own pages."
