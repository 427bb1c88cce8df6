"""A day's rows from a database, put into a file: so what came late is found as it is in files."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from airflow_openai_batch.access.givers import Giver, find_giver_of
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.operators.task.form_query import check_form_query
from airflow_openai_batch.operators.task.query import open_query
from airflow_openai_batch.recipes.reviews.nights import PLACEHOLDER, Night
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from datetime import date

    from airflow_openai_batch.storage.location import Location

NEXT_DAY = "{next_day}"

log = logging.getLogger(__name__)


def read_day(day: date, root: str, sql: str, conn_id: str) -> Night:
    """Ask for the rows of a day and write them into a file below ``root``, which takes the place of an earlier one.

    :param sql: a query with ``{day}`` where ``2025-06-02`` stands, and perhaps ``{next_day}``.
    :raises ConfigError: for a query without a day, or one that may not be asked.
    :raises InputError: if the database refuses it, or a row has a value that has no plain form.
    """
    if PLACEHOLDER not in sql:
        raise ConfigError(
            f"The query holds no {PLACEHOLDER}, so every night would ask about the same rows again."
        )
    from_form = Giver.FORM in (find_giver_of(sql), find_giver_of(conn_id))
    filled = sql.replace(PLACEHOLDER, str(day)).replace(NEXT_DAY, str(day + timedelta(days=1)))
    if from_form:
        check_form_query(filled, conn_id)
    else:
        check_conn_id(conn_id, Giver.CODE)
    night = Night(day=day, source=f"{root}/rows/day={day}.parquet", root=root)
    place = night.open_root().child(f"rows/day={day}.parquet")
    rows = _write_rows(place, filled, conn_id, read_only=from_form)
    log.info("The night of %s: %s from %s, in %s", day, number_of(rows, "row"), conn_id, place.uri)
    return night


def _write_rows(place: Location, sql: str, conn_id: str, *, read_only: bool) -> int:
    rows = 0
    with (
        open_query(sql, conn_id, read_only=read_only) as table,
        place.open_write() as file,
        pq.ParquetWriter(file, table.schema) as writer,
    ):
        for block in table.blocks:
            for at, problem in block.problems.items():
                raise InputError(
                    f"connection {conn_id!r}: row {rows + at:,} (from 0) cannot be written: {problem}. Convert the "
                    "column in the query, or leave it out."
                )
            writer.write_batch(block.batch)
            rows += block.batch.num_rows
    return rows
