"""Late rows of a day whose cells have types: they are asked as they would have been with the others, and once."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

DAG_ID = "reviews_sentiment_nightly"
PROMPT = (
    "{{ stored_at.strftime('%d.%m.%Y') }} {{ took }} {{ '%.1f' % price }} {{ source }} "
    "{{ stars or '' }}: {{ text }}"
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("stored_at", pa.timestamp("us", "UTC")),
        ("took", pa.duration("s")),
        ("price", pa.decimal128(10, 2)),
        ("source", pa.binary()),
        ("stars", pa.float64()),
    ]
)


def write_parquet(file: Path, count: int) -> None:
    rows = [
        {
            "text": f"Lovely, number {number}",
            "stored_at": dt.datetime(2025, 6, number, 10, 0, number, tzinfo=dt.UTC),
            "took": dt.timedelta(hours=number),
            "price": Decimal(number),
            "source": b"shop",
            "stars": [5.0, float("nan"), float("nan"), float("inf"), float("-inf"), 4.5][number % 6],
        }
        for number in range(1, count + 1)
    ]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file)


def write_workbook(file: Path, count: int) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(SCHEMA.names)
    for number in range(1, count + 1):
        day = dt.datetime(2025, 6, number, 10, 0, number)
        sheet.append([f"Lovely, number {number}", day, dt.timedelta(hours=30), number / 4, "shop", number])
    book.save(file)


@pytest.mark.usefixtures("openai_conn")
@pytest.mark.parametrize("write", [write_parquet, write_workbook])
def test_late_rows_keep_their_types_and_are_asked_as_the_others_and_once(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any, write: Any
) -> None:
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("{{ text }}", PROMPT))
    file = tmp_path / f"2025-06-20.{'parquet' if write is write_parquet else 'xlsx'}"
    form = {
        "reviews": str(tmp_path / file.name.replace("2025-06-20", "{day}")),
        "day": "2025-06-20",
        "output_uri": f"file://{tmp_path}/nights",
        "poll_interval": 0.1,
        "mode": "batch",
    }
    for count in (1, 4, 5):
        write(file, count)
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        table = pq.ParquetFile(tmp_path / "nights/table/day=2025-06-20/reviews.parquet").read().to_pylist()
        assert [row["answer_status"] for row in table] == ["ok"] * count
        assert sum(openai_server.books.good.values()) == count, "each row is paid once"
