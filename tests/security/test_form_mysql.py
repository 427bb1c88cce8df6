"""What a form may do to MySQL, met by a real MariaDB: nothing but read, whatever the check of the text lets through."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.task.query import QueryError, RefusedQueryError, run_query
from fixtures.mariadb import run_mariadb

pytestmark = pytest.mark.needs_program("mariadbd")

Connect = Callable[[], Any]

# PyMySQL is there for these tests. Airflow's provider brings the others, which are met where they are installed.
DRIVERS = ["pymysql"] + [
    name
    for name in ("mysql.connector", "MySQLdb")
    if importlib.util.find_spec(name.partition(".")[0]) is not None
]
FUNCTIONS = (
    "CREATE FUNCTION writes() RETURNS INT BEGIN INSERT INTO reviews VALUES ('bad'); RETURN 1; END",
    "CREATE FUNCTION opens() RETURNS INT "
    "BEGIN SET SESSION tx_read_only = 0; INSERT INTO reviews VALUES ('bad'); RETURN 1; END",
)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with run_mariadb() as address:
        own = _connect("pymysql", address)
        with own.cursor() as cursor:
            cursor.execute("CREATE TABLE reviews AS SELECT 'lovely' AS review")
            cursor.execute("CREATE TABLE old (id INT) ENGINE=MyISAM")
            cursor.execute("CREATE SEQUENCE numbers")
            for function in FUNCTIONS:
                cursor.execute(function)
        own.close()
        yield address


@pytest.fixture(params=DRIVERS)
def connect(request: pytest.FixtureRequest, address: str) -> Connect:
    return lambda: _connect(request.param, address)


@pytest.fixture
def unchanged(address: str) -> Iterator[None]:
    before = _read_state(address)
    yield
    assert _read_state(address) == before


WRITES = [
    *(
        "SELECT writes()",
        "SELECT opens()",
        "SELECT NEXTVAL(numbers)",
        "SELECT review FROM reviews FOR UPDATE",
    ),
    # Past the check of the text.
    *("DELETE FROM reviews", "DELETE FROM old", "INSERT INTO old VALUES (1)", "TRUNCATE old"),
    *("EXECUTE IMMEDIATE 'DELETE FROM old'", "SET STATEMENT tx_read_only = 0 FOR DELETE FROM old"),
    # These end a transaction, read only or not.
    *("DROP TABLE old", "CREATE TABLE new (id INT)", "ALTER TABLE old ADD text TEXT", "CREATE USER other"),
    "SELECT 1; SET SESSION TRANSACTION READ WRITE; COMMIT; DELETE FROM reviews; COMMIT",
]


@pytest.mark.parametrize("sql", WRITES)
@pytest.mark.usefixtures("unchanged")
def test_mysql_refuses_by_itself(connect: Connect, sql: str) -> None:
    with pytest.raises(RefusedQueryError, match=r"READ ONLY|error in your SQL syntax"), ask(connect, sql):
        pass


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'x' INTO OUTFILE '/tmp/x'",
        "SELECT 'x' INTO/**/dumpfile '/tmp/x'",
        *("SELECT 1 /*! INTO OUTFILE '/tmp/x' */", "SELECT 1 /*M!100000 INTO @x */"),
    ],
)
def test_what_read_only_does_not_hold_is_refused_by_its_words(connect: Connect, sql: str) -> None:
    with pytest.raises(ConfigError, match="may not write files or hide words in comments"), ask(connect, sql):
        pass


@pytest.mark.usefixtures("unchanged")
def test_mysql_answers_queries(connect: Connect) -> None:
    for sql, names in (
        ("SELECT review FROM reviews", ["review"]),
        ("WITH a AS (SELECT review FROM reviews) SELECT upper(review) AS loud FROM a", ["loud"]),
        ("VALUES (1), (2)", ["1"]),
        ("SELECT sleep(0) AS slept, @a := 5 AS five, '100%' AS percent", ["slept", "five", "percent"]),
    ):
        with ask(connect, sql) as table:
            assert table.schema.names == names


def test_only_what_passes_is_worth_another_try(connect: Connect) -> None:
    with (
        pytest.raises(RefusedQueryError, match=r"revue.*Correct the query"),
        ask(connect, "SELECT revue FROM reviews"),
    ):
        pass
    for sql in (
        "KILL CONNECTION_ID()",
        "SET STATEMENT max_statement_time = 0.05 FOR SELECT seq FROM seq_1_to_1000000000",
    ):
        with pytest.raises(QueryError, match="shop"), ask(connect, sql) as table:
            assert list(table.blocks)


def test_a_preview_does_not_read_a_table_to_its_end(connect: Connect, address: str) -> None:
    before = _count_rows_sent(address)
    with ask(connect, "SELECT seq FROM seq_1_to_300000", max_rows=5) as table:
        assert [row["seq"] for block in table.blocks for row in block.rows] == [1, 2, 3, 4, 5]
    assert _count_rows_sent(address) - before < 1_000
    with ask(connect, "SELECT seq FROM seq_1_to_10000 LIMIT 5000", max_rows=5) as table:
        assert table.schema.names == ["seq"]


def ask(connect: Connect, sql: str, max_rows: int | None = None) -> Any:
    return run_query(connect, sql, "shop", max_rows=max_rows, read_only=True)


def _connect(driver: str, address: str) -> Any:
    host, _, port = address.partition(":")
    name = {"MySQLdb": "db"}.get(driver, "database")
    return importlib.import_module(driver).connect(
        host=host, port=int(port), user="airflow", **{name: "shop"}
    )


def _count_rows_sent(address: str) -> int:
    connection = _connect("pymysql", address)
    with connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Rows_sent'")
        sent = int(cursor.fetchone()[1])
    connection.close()
    return sent


def _read_state(address: str) -> list[Any]:
    connection = _connect("pymysql", address)
    found = []
    with connection.cursor() as cursor:
        for sql in (
            "SELECT review FROM reviews",
            "SELECT * FROM old",
            "SELECT next_not_cached_value FROM numbers",
            "SHOW TABLES",
            "SELECT user FROM mysql.user",
        ):
            cursor.execute(sql)
            found.append(cursor.fetchall())
    connection.close()
    return found
