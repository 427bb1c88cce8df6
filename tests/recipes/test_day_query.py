"""A day's rows from a database: the file that they come to, and what is refused."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.reviews.day_query import read_day

QUERY = "SELECT id, text FROM reviews WHERE stored_at >= '{day}' AND stored_at < '{next_day}' ORDER BY id"
DAY = date(2025, 12, 31)


@pytest.fixture
def shop(airflow_db: None, tmp_path: Path, define_connection: Callable[..., str]) -> Callable[..., None]:
    """A database of reviews, to which some may be added."""
    define_connection("shop", conn_type="sqlite", host=str(tmp_path / "shop.db"))

    def store(*reviews: tuple[int, object, str]) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS reviews (id INTEGER, text TEXT, stored_at TEXT)")
            connection.executemany("INSERT INTO reviews VALUES (?, ?, ?)", reviews)

    store((1, "Lovely.", "2025-12-31 00:00"), (2, "Of a new year.", "2026-01-01 00:00"))
    return store


def read_file(tmp_path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = (
        pq.ParquetFile(tmp_path / "rows/day=2025-12-31.parquet").read().to_pylist()
    )
    return rows


def test_the_file_has_the_rows_of_the_day_as_they_are_now(shop: Callable[..., None], tmp_path: Path) -> None:
    night = read_day(DAY, f"file://{tmp_path}", QUERY, "shop")
    assert night.source == f"file://{tmp_path}/rows/day=2025-12-31.parquet"
    assert read_file(tmp_path) == [{"id": 1, "text": "Lovely."}]
    shop((3, "Late.", "2025-12-31 09:00"))
    read_day(DAY, f"file://{tmp_path}", QUERY, "shop")
    assert [row["id"] for row in read_file(tmp_path)] == [1, 3]


def test_a_query_without_a_day_is_refused(shop: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \{day\}"):
        read_day(DAY, f"file://{tmp_path}", "SELECT * FROM reviews", "shop")
