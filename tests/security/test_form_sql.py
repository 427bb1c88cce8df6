"""Whoever may trigger a DAG reads what the configuration opens to forms, and changes nothing in any database."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG

from airflow_openai_batch.errors import ConfigError, OpenAIBatchError
from airflow_openai_batch.operators.prepare import OpenAIBatchPrepareOperator
from airflow_openai_batch.operators.task.form_query import check_form_query
from airflow_openai_batch.operators.task.query import QueryError, RefusedQueryError, open_query
from fixtures.postgres import run_postgres

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

pytestmark = pytest.mark.usefixtures("openai_conn")

QUERY = "SELECT review FROM reviews"


@pytest.fixture
def shop(tmp_path: Path, define_connection: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that is open to forms as ``shop``, and not as ``staff``."""
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE reviews (review TEXT)")
        connection.execute("INSERT INTO reviews VALUES ('lovely')")
    connection.close()
    for conn_id in ("shop", "staff"):
        define_connection(conn_id, conn_type="sqlite", host=str(file))
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS", "crm, shop")
    return file


@pytest.mark.long
def test_the_form_of_the_table_dag_changes_nothing(run_dag: RunDag, shop: Path, tmp_path: Path) -> None:
    """What the review did: a table dropped, and a database written to where a vector store would unpickle it."""
    before = shop.read_bytes()
    planted = tmp_path / "storage.sqlite"

    def ask(sql: str, conn_id: str = "shop") -> str:
        conf = {
            "sql": sql,
            "sql_conn_id": conn_id,
            "output_uri": str(tmp_path / "out"),
            "prompt": "{{ review }}",
        }
        return run_dag("openai_batch_table", conf | {"preview": 1}).errors("prepare")

    assert "must be one SELECT, WITH or VALUES" in ask("DROP TABLE reviews")
    assert "must be one SELECT, WITH or VALUES" in ask(f"CREATE TABLE points (p); VACUUM INTO '{planted}'")
    assert "AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS='crm, shop, staff'." in ask(QUERY, "staff")
    assert ask(QUERY, "").startswith("sql_conn_id is empty: name the connection")
    assert ask(QUERY) == ""
    assert shop.read_bytes() == before
    assert not planted.exists()


def test_a_query_in_dag_code_is_free(run_dag: RunDag, shop: Path, tmp_path: Path) -> None:
    with DAG("authors_own", schedule=None) as authors_own:
        OpenAIBatchPrepareOperator(
            task_id="prepare",
            sql="DELETE FROM reviews RETURNING review",
            conn_id="staff",
            prompt={"name": "mood", "model": "gpt-4o-mini", "user": "{{ review }}"},
            output_uri=f"{tmp_path}/prepared",
        )
    run = run_dag(authors_own)
    assert run.state == "success", run.failures


NO_QUERIES = [
    *("", ";", "VACUUM INTO '/tmp/x'", "ATTACH '/tmp/x' AS y", "PRAGMA query_only = OFF", "EXPLAIN SELECT 1"),
    *(
        "COPY reviews TO PROGRAM 'id'",
        "SET TRANSACTION READ WRITE",
        "COMMIT",
        "BEGIN",
        "CALL f()",
        "DO $$ x $$",
    ),
    *("SELECT 1; DROP TABLE reviews", "SELECT '\\'; DROP TABLE reviews --'", "/* x */ DELETE FROM reviews"),
    *(
        "WITH a AS (SELECT 1) DELETE FROM reviews",
        "INSERT INTO reviews SELECT 1",
        "SELECT 1\0",
        "SELECT " + "(" * 50_000,
    ),
    *("TABLE reviews", "LOAD DATA INFILE 'x' INTO TABLE y", "SELECT 1 " + "x" * 100_000),
]


@pytest.mark.parametrize("sql", NO_QUERIES, ids=lambda sql: sql[:40].replace("\0", "NUL") or "empty")
def test_what_is_not_one_query_is_refused_before_anything_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS", "nowhere")
    with pytest.raises(ConfigError, match="must be one SELECT, WITH or VALUES"):
        check_form_query(sql, "nowhere")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "-- all\nselect * from x;",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "VALUES (1), (2)",
        "SELECT 1 -- x",
    ],
)
def test_queries_are_queries(monkeypatch: pytest.MonkeyPatch, sql: str) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS", "nowhere")
    check_form_query(sql, "nowhere")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("DELETE FROM x", "sql: deletes rows after its WITH. From a form"),
        ("UPDATE x SET y = 1", "sql: updates rows after its WITH. From a form"),
        ("INSERT INTO x SELECT 1", "sql: inserts rows after its WITH. From a form"),
        ("TABLE x", "sql: has no SELECT after its WITH. From a form"),
    ],
)
def test_what_follows_a_with_is_named(monkeypatch: pytest.MonkeyPatch, rest: str, message: str) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_SQL_CONN_IDS", "nowhere")
    with pytest.raises(ConfigError, match=message):
        check_form_query(f"WITH a AS (SELECT 1) {rest}", "nowhere")


def test_no_connection_is_open_to_forms_by_default() -> None:
    with pytest.raises(ConfigError, match=r"\(none so far\).*  allowed_sql_conn_ids = shop  "):
        check_form_query(QUERY, "shop")


@pytest.mark.parametrize(
    "sql",
    [
        *(
            "DROP TABLE reviews",
            "DELETE FROM reviews RETURNING review",
            "VACUUM INTO '{}/x'",
            "ATTACH '{}/x' AS y",
        ),
        *("PRAGMA query_only = OFF", "SELECT * FROM pragma_database_list", "SELECT load_extension('{}/x')"),
        *("CREATE TEMP TABLE x (y)", "BEGIN"),
    ],
)
def test_sqlite_refuses_by_itself(airflow_db: None, shop: Path, tmp_path: Path, sql: str) -> None:
    """Past the check of the text."""
    before = shop.read_bytes()
    with pytest.raises(OpenAIBatchError), open_query(sql.format(tmp_path), "shop", read_only=True):
        pass
    assert shop.read_bytes() == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("sql", ["SELECT zeroblob(1000000000)", "SELECT hex(randomblob(200000000))"])
def test_sqlite_makes_no_value_that_fills_the_memory(airflow_db: None, shop: Path, sql: str) -> None:
    with pytest.raises(OpenAIBatchError, match="too big"), open_query(sql, "shop", read_only=True) as table:
        assert table.schema.names


def test_nor_do_many_rows_of_large_values(airflow_db: None, shop: Path) -> None:
    sql = (
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300) "
        "SELECT zeroblob(CASE WHEN x > 150 THEN 16000000 END) z FROM n"
    )
    tracemalloc.start()
    with open_query(sql, "shop", max_rows=160, read_only=True) as table:
        assert sum(block.batch.num_rows for block in table.blocks) == 160
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 400_000_000


def test_sqlite_answers_queries(airflow_db: None, shop: Path) -> None:
    recursive = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT upper(i) FROM n"
    )
    for sql in (
        QUERY,
        recursive,
        "SELECT count(*), max(review) FROM reviews r WHERE review LIKE 'l%'",
        "VALUES (1)",
    ):
        with open_query(sql, "shop", read_only=True) as table:
            assert table.schema.names


@pytest.mark.needs_program("initdb")
def test_postgres_refuses_by_itself(airflow_db: None, define_connection: Callable[..., str]) -> None:
    with run_postgres() as address:
        host, _, port = address.partition(":")
        define_connection(
            "pg", conn_type="postgres", host=host, port=int(port), login="airflow", schema="airflow"
        )
        with _connect(address) as own:
            own.execute("CREATE TABLE reviews AS SELECT 'lovely' AS review")
            own.execute("CREATE SEQUENCE numbers")
        for sql in (
            "WITH gone AS (DELETE FROM reviews RETURNING *) SELECT * FROM gone",
            "SELECT nextval('numbers')",
            "SELECT set_config('transaction_read_only', 'off', false)",
            "SELECT 1; COMMIT; DROP TABLE reviews",
        ):
            with pytest.raises(OpenAIBatchError), open_query(sql, "pg", read_only=True):
                pass
        with open_query("SELECT review FROM reviews", "pg", read_only=True) as table:
            assert table.schema.names == ["review"]
        with pytest.raises(RefusedQueryError, match="UndefinedColumn"), open_query("SELECT revue", "pg"):
            pass
        cut_off = "SELECT pg_terminate_backend(pg_backend_pid())"
        with pytest.raises(QueryError, match="terminating connection"), open_query(cut_off, "pg"):
            pass


def _connect(address: str) -> Any:
    import psycopg

    host, _, port = address.partition(":")
    return psycopg.connect(host=host, port=int(port), user="airflow", dbname="airflow", autocommit=True)
