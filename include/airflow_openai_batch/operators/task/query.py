"""The rows of a query through any of Airflow's database connections, in portions where the driver can."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_openai_batch.errors import ConfigError, InputError, OpenAIBatchError, UnreadableInputError
from airflow_openai_batch.operators.task.form_query import MYSQL_DRIVERS, find_driver, hold_read_only
from airflow_openai_batch.operators.task.query_errors import comes_again
from airflow_openai_batch.server_words import clean_words, describe_error, remember_connection
from airflow_openai_batch.tables.reading.read_query import gather_rows, read_query_rows
from airflow_openai_batch.tables.reading.spool import spool_table

if TYPE_CHECKING:
    from airflow_openai_batch.tables.reading.row_table import RowTable


class QueryError(UnreadableInputError):
    """The database, or the way to it, said no for the time being; the message is its own."""


class RefusedQueryError(InputError):
    """The database said no to this query, and would again; the message is its own."""


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
    :raises RefusedQueryError: for what the database says to the query.
    :raises QueryError: for what it says of other things, and for the way to it.
    """
    connect = _find_hook(conn_id).get_conn
    with run_query(connect, sql, conn_id, parameters, max_rows=max_rows, read_only=read_only) as table:
        yield table


@contextlib.contextmanager
def run_query(
    connect: Callable[[], Any],
    sql: str,
    conn_id: str,
    parameters: Any = None,
    *,
    max_rows: int | None = None,
    read_only: bool = False,
) -> Iterator[RowTable]:
    """As `open_query`, over a connection of one of Python's drivers (PEP 249).

    :param connect: makes it; it is closed with the block.
    """
    notices: list[str] = []
    with contextlib.ExitStack() as stack:
        with _explained(conn_id, connecting=True):
            connection = connect()
        stack.callback(_close, connection)
        with _explained(conn_id):
            if read_only:
                hold_read_only(connection, sql, conn_id)
            if max_rows is not None:
                _limit_rows(connection, max_rows)
            cursor = _open_cursor(connection)
            stack.callback(_close, cursor)
            cursor.execute(sql) if parameters is None else cursor.execute(sql, parameters)

        # In this process neither the way to a row costs anything, nor a value before it is fetched.
        is_here = find_driver(connection) == "sqlite3"

        def fetch(rows: int) -> Any:
            with _explained(conn_id):
                return gather_rows(cursor.fetchone, rows) if is_here else cursor.fetchmany(rows)

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
    driver = find_driver(connection)
    if driver in ("psycopg", "psycopg2"):
        return connection.cursor("airflow_openai_batch")
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(importlib.import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


def _limit_rows(connection: Any, max_rows: int) -> None:
    """Let MySQL send no more than is wanted: its drivers can leave a result only by reading it to the end."""
    if find_driver(connection) not in MYSQL_DRIVERS:
        return
    # What merely speaks its protocol may not know the setting.
    with contextlib.suppress(Exception), contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"SET SESSION sql_select_limit = {max_rows:d}")


def _close(part: Any) -> None:
    """A cursor with rows left, or one whose connection is lost, may complain; its rows have been read by then."""
    with contextlib.suppress(Exception):
        part.close()


class _explained:
    """Drivers bring error classes of their own; what they say names tables and columns, and is what a person needs.

    :raises QueryError: with the first line of it.
    :raises RefusedQueryError: likewise, where another try would meet it again.
    """

    def __init__(self, conn_id: str, *, connecting: bool = False) -> None:
        self._conn_id = conn_id
        self._connecting = connecting

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, OpenAIBatchError):
            return
        said = clean_words(str(error).strip().partition("\n")[0])
        message = f"connection {self._conn_id!r}: {type(error).__name__}: {said}"
        if self._connecting or not comes_again(error):
            raise QueryError(message) from None
        raise RefusedQueryError(
            f"{message.rstrip('.')}. Correct the query, or what its user may read."
        ) from None
