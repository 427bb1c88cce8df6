"""The rows of a query through any of Airflow's database connections, in portions where the driver can."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_openai_batch.core.errors import ConfigError, OpenAIBatchError, UnreadableInputError
from airflow_openai_batch.core.row_sources.query_rows import read_query_rows
from airflow_openai_batch.core.row_sources.spool import spool_table
from airflow_openai_batch.core.server_words import clean_words, describe_error, remember_connection
from airflow_openai_batch.operators.form_query import hold_read_only

if TYPE_CHECKING:
    from airflow_openai_batch.core.row_sources.table import RowTable


class QueryError(UnreadableInputError):
    """The database, or the way to it, said no; the message is its own."""


@contextlib.contextmanager
def open_query(
    sql: str, conn_id: str, parameters: Any = None, *, max_rows: int | None = None, read_only: bool = False
) -> Iterator[RowTable]:
    """Run a query once and give its rows as a table.

    PostgreSQL and MySQL hand the rows out in portions; of other databases it depends on the driver. The rows go
    through a temporary file on the worker's disk, see `spool_table`.

    :param max_rows: that are wanted.
    :param read_only: the database refuses whatever changes something; see `form_query`.
    :raises ConfigError: if the connection does not exist or is none of a database.
    :raises QueryError: for what the database says.
    """
    hook = _find_hook(conn_id)
    notices: list[str] = []
    with contextlib.ExitStack() as stack:
        with _explained(conn_id):
            connection = stack.enter_context(contextlib.closing(hook.get_conn()))
            if read_only:
                hold_read_only(connection, sql, conn_id)
            cursor = stack.enter_context(contextlib.closing(_open_cursor(connection)))
            cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)

        def fetch(rows: int) -> Any:
            with _explained(conn_id):
                return cursor.fetchmany(rows)

        def describe() -> list[str]:
            if cursor.description is None:
                raise ConfigError(
                    f"connection {conn_id!r}: the statement returns no rows. It must be a query."
                )
            return [str(column[0]) for column in cursor.description]

        blocks = read_query_rows(fetch, describe, notices)
        with spool_table(blocks, notices, max_rows=max_rows) as table:
            yield table


def _find_hook(conn_id: str) -> Any:
    try:
        connection: Any = BaseHook.get_connection(conn_id)
        remember_connection(connection.password, connection.extra_dejson)
        hook = connection.get_hook()
    except AirflowNotFoundException:
        raise ConfigError(
            f"connection {conn_id!r}: does not exist. Create it, or set AIRFLOW_CONN_{conn_id.upper()} on the workers."
        ) from None
    except Exception as error:  # an unknown type, or its provider is not installed
        raise ConfigError(f"connection {conn_id!r}: cannot be used ({describe_error(error)}).") from None
    if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
        raise ConfigError(f"connection {conn_id!r}: is none of a database that takes SQL.")
    return hook


def _open_cursor(connection: Any) -> Any:
    """One that does not fetch the whole result at once, where that has to be asked for.

    psycopg: a cursor with a name is on the server's side. MySQLdb and PyMySQL: ``SSCursor``.
    """
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg", "psycopg2"):
        return connection.cursor("airflow_openai_batch")
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(importlib.import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


class _explained:
    """Drivers bring error classes of their own; what they say names tables and columns, and is what a person needs.

    :raises QueryError: with the first line of it.
    """

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, OpenAIBatchError):
            said = clean_words(str(error).strip().partition("\n")[0])
            raise QueryError(f"connection {self._conn_id!r}: {type(error).__name__}: {said}") from None
