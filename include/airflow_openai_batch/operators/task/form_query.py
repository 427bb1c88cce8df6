"""SQL from a form: only over connections that are named for it, one query, which the database itself holds read-only.

What is looked at here gives words that a person understands before anything runs; what holds is the database's own
rule. A query may still call what its user may call (``pg_read_file`` of a superuser, for instance): the connection's
user decides what can be read.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

from airflow_openai_batch.access.settings import SECTION, describe_option, read_list
from airflow_openai_batch.errors import ConfigError, NotAllowedError

_SETTING = "allowed_sql_conn_ids"
MOST_CHARS = 100_000
MOST_VALUE_BYTES = 64 * 2**20
"""Of a value that SQLite makes, in the memory of the task: as long as a line of JSON may be."""
_IN_CODE = "Or put the query into the DAG's code, where any statement may stand."
_CHANGES = {
    "DELETE": "deletes rows",
    "INSERT": "inserts rows",
    "MERGE": "merges rows",
    "REPLACE": "replaces rows",
    "UPDATE": "updates rows",
}
_MYSQL_TRICKS = re.compile(r"/\*M?!|\b(?:outfile|dumpfile)\b", re.IGNORECASE)
"""Comments that are run, and the two ways in which a query of MySQL writes files, read-only or not."""
MYSQL_DRIVERS = frozenset({"MySQLdb", "pymysql", "mysql"})
_MULTI_STATEMENTS_OFF = 1
"""Of ``mysql_set_server_option``, for which the driver has no name."""
_SQLITE_DENIED = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"})


def check_form_query(sql: str, conn_id: str) -> None:
    """Before anything is connected to.

    :raises ConfigError: if the connection is not open to forms, or the text is not one query.
    """
    allowed = read_list(_SETTING)
    if conn_id not in allowed:
        raise NotAllowedError(
            f"connection {conn_id!r}: a form may ask only the databases that [{SECTION}] {_SETTING} lists "
            f"({', '.join(allowed) or 'none so far'}). {describe_option(_SETTING, conn_id)} "
            f"{_IN_CODE}"
        )
    if (problem := _find_problem(sql)) is not None:
        raise ConfigError(
            f"sql: {problem}. From a form it must be one SELECT, WITH or VALUES that reads. {_IN_CODE}"
        )


def _find_problem(sql: str) -> str | None:
    """A semicolon is none wherever it stands: what a parser takes for text may end a statement in the database."""
    text = sql.strip().rstrip(";").rstrip()
    if ";" in text:
        return "has a semicolon in it (write chr(59) or char(59) for one in a text)"
    if len(text) > MOST_CHARS or "\0" in text:
        return f"has more than {MOST_CHARS:,} characters, or one that is none"
    parser: Any = importlib.import_module("sqlparse")  # comes with every provider of a database
    try:
        statements = parser.parse(text)
    except (RecursionError, parser.exceptions.SQLParseError):
        return "is nested too deeply"
    first = statements[0].token_first(skip_cm=True) if len(statements) == 1 else None
    begins = re.split(r"\W", "" if first is None else first.value, maxsplit=1)[0].upper()
    kind = statements[0].get_type() if statements else ""
    if begins == "VALUES" or (begins in ("SELECT", "WITH") and kind == "SELECT"):
        return None
    if begins == "WITH":
        return f"{_CHANGES[kind]} after its WITH" if kind in _CHANGES else "has no SELECT after its WITH"
    return f"is no query (it begins with {begins[:20]!r})"


def hold_read_only(connection: Any, sql: str, conn_id: str) -> None:
    """Make the database refuse whatever changes something, for as long as this connection lives.

    :raises ConfigError: for a database that cannot be told to.
    """
    driver = find_driver(connection)
    if driver == "psycopg2":
        connection.rollback()
        connection.set_session(readonly=True, autocommit=False)
    elif driver == "psycopg":
        connection.rollback()
        connection.autocommit = False
        connection.read_only = True
    elif driver in MYSQL_DRIVERS:
        if _MYSQL_TRICKS.search(sql):
            raise ConfigError(f"sql: may not write files or hide words in comments. {_IN_CODE}")
        _hold_mysql(connection, driver)
    elif driver == "sqlite3":
        _hold_sqlite(connection)
    else:
        raise ConfigError(
            f"connection {conn_id!r}: is of a kind ({driver}) that is not known to hold a query read-only; a form may "
            f"ask PostgreSQL, MySQL and SQLite. {_IN_CODE}"
        )


def find_driver(connection: Any) -> str:
    """The package whose connection it is."""
    return type(connection).__module__.partition(".")[0]


def _hold_mysql(connection: Any, driver: str) -> None:
    """One statement at a time, in a session that only reads.

    The transaction alone would not hold: to create or drop a table ends it, and MariaDB then does so.
    """
    if driver == "MySQLdb":
        connection.set_server_option(_MULTI_STATEMENTS_OFF)
    elif driver == "mysql":
        off = [-importlib.import_module("mysql.connector.constants").ClientFlag.MULTI_STATEMENTS]
        if hasattr(type(connection), "client_flags"):
            connection.client_flags = off
        else:  # before its release 9.2 or so
            connection.set_client_flags(off)
        connection.reconnect()
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute("START TRANSACTION READ ONLY")


def _hold_sqlite(connection: Any) -> None:
    """Reading alone: no ``ATTACH``, no ``PRAGMA``, nothing that is loaded into the process."""
    import sqlite3

    allowed = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}

    def authorize(action: int, _: str | None, name: str | None, *__: str | None) -> int:
        is_function = action == sqlite3.SQLITE_FUNCTION and str(name).lower() not in _SQLITE_DENIED
        return sqlite3.SQLITE_OK if action in allowed or is_function else sqlite3.SQLITE_DENY

    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_VALUE_BYTES)
    connection.execute("PRAGMA query_only = ON")
    connection.set_authorizer(authorize)
