"""Three nights of reviews through the nightly DAG, and what is left of them for people."""

from __future__ import annotations

import contextlib
import csv
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.reviews.day_words import Words
from airflow_openai_batch.recipes.reviews.nights import Night, find_night
from airflow_openai_batch.recipes.reviews.trend import NightFigures, describe_trend
from fixtures.nights import make_day_form, read_day_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag
    from fixtures.object_store import ObjectStore

DAG_ID = "reviews_sentiment_nightly"
PROMPT = "sentiment.yaml"
NIGHTS = ("2025-06-02", "2025-06-03", "2025-06-04")
BEFORE_SUNRISE = "T02:00:00+00:00"
"""Four o'clock in Berlin in June: the end of the interval of the day before."""


@pytest.fixture
def run_night(run_dag: RunDag, tmp_path: Path) -> Any:
    """Run the night that begins on a day, as a scheduler would at its end."""

    def run(night: str, **conf: Any) -> FinishedRun:
        following = datetime.fromisoformat(night + BEFORE_SUNRISE)
        return run_dag(
            DAG_ID,
            {"output_uri": f"file://{tmp_path}/nights", "poll_interval": 0.1, "mode": "batch", **conf},
            logical_date=following.replace(day=following.day + 1),
        )

    return run


def sentiments_of(tmp_path: Path, day: str) -> dict[str, str | None]:
    rows = pq.ParquetFile(tmp_path / "nights" / "table" / f"day={day}" / "reviews.parquet").read().to_pylist()
    return {row["review_id"]: row["sentiment"] for row in rows}


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_three_nights_in_a_row_of_which_one_fails_and_is_cleared(
    run_night: Any, openai_server: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_night(NIGHTS[0])
    assert first.state == "success", first.failures
    (event,) = [event for event in first.asset_events() if event["uri"] == "reviews_sentiment"]
    assert event["extra"]["words"] == {"Positive": 5, "Neutral": 2, "Negative": 3}

    rule = openai_server.script(line=400, contains="defective", times=None)
    second = run_night(NIGHTS[1])
    assert second.state == "failed"
    assert "1 of 8 rows are not ok" in second.errors("ask.publish")
    assert second.states[("report", -1)] == "success", "the table is there"
    assert second.states[("announce", -1)] == "upstream_failed"
    assert second.asset_events() == []

    openai_server.unscript(rule)
    third = run_night(NIGHTS[2])
    assert third.state == "success", third.failures
    trend = (tmp_path / "nights" / "days" / NIGHTS[2] / "report.md").read_text()
    assert "| 2025-06-03 | 8 | 1 (12.5%) |" in trend, "a night that failed is part of the trend"
    assert trend.index("| 2025-06-02 | 9 |") < trend.index("| 2025-06-04 | 10 |")

    billed = openai_server.books.billed["batch"]
    cleared = run_night(NIGHTS[1], max_failed_fraction=0.2)
    assert cleared.state == "success", cleared.failures
    assert openai_server.books.billed["batch"] == billed, "what was answered is not asked again"
    found = sentiments_of(tmp_path, NIGHTS[1])
    assert found["R-1014"] is None, "a row without a text"
    assert found["R-1013"] is None, "the row that was refused"
    assert found["R-1015"] == "Positive"
    whole = pyarrow.dataset.dataset(tmp_path / "nights" / "table", partitioning="hive").to_table()
    assert sorted(set(whole["day"].to_pylist())) == list(NIGHTS)
    assert len(whole) == 29

    assert "repair=true" in second.errors("ask.publish")
    repaired = run_night(NIGHTS[1], repair=True)
    assert repaired.state == "success", repaired.failures
    assert openai_server.books.billed["batch"] == billed + 1, "only the row that was refused is asked again"
    assert sentiments_of(tmp_path, NIGHTS[1])["R-1013"] is not None


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_a_night_without_a_file_or_without_rows_is_skipped(
    run_night: Any, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    run = run_night("2025-06-11", day="2025-06-11")
    assert run.state == "success"
    assert set(run.states.values()) == {"skipped"}
    (tmp_path / "2025-06-12.csv").write_text("review_id,product,stars,text\n")
    run = run_night("2025-06-12", reviews=f"{tmp_path}/{{day}}.csv")
    assert run.state == "success"
    assert run.states[("report", -1)] == "skipped"
    assert openai_server.files() == []


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_a_run_by_hand_with_an_untouched_form_takes_the_newest_day_and_shows_three_answers(
    run_dag: RunDag, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = {"output_uri": str(tmp_path / "nights")}
    with caplog.at_level("INFO", "airflow_openai_batch.recipes"):
        run = run_dag(DAG_ID, conf, logical_date=None)
    assert run.state == "success", run.failures
    assert run.xcom("find_night", key="day") == NIGHTS[2]
    shown = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Row ")]
    assert shown == ["Row 1: Positive", "Row 2: Positive", "Row 3: Negative"]
    assert run_dag("reviews_sentiment_followup", conf, logical_date=None).state == "success"
    with (tmp_path / "nights" / "followup" / f"{NIGHTS[2]}.csv").open(
        encoding="utf-8-sig", newline=""
    ) as file:
        assert [row["review_id"] for row in csv.DictReader(file)] == ["R-1022", "R-1023", "R-1026"]
    counts = json.loads((tmp_path / "nights" / "days" / NIGHTS[2] / "report.json").read_text())
    assert counts["rows"] == 10


LATE = """review_id,product,stars,text
7,Mug,1,"Broken, a waste of money"
8,Mug,5,Lovely and reliable
9,Lamp,,"  "
"""
CORRECTED = LATE.replace("Lovely and reliable", "Not lovely at all: defective").replace("7,Mug,1", "7,Jug,2")
CORRECTED += '10,Lamp,4,Works well and helpful\n11,Mug,1,"Broken, a waste of money"\n'


@pytest.mark.usefixtures("openai_conn")
def test_late_and_corrected_rows_alone_are_asked_and_the_table_is_that_of_the_file_as_it_is_now(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    file = tmp_path / "2025-06-20.csv"
    file.write_text(LATE)
    form = make_day_form(tmp_path, "csv", max_rejected_fraction=0.5)
    run = run_dag(DAG_ID, form)
    assert run.state == "success", run.failures
    assert openai_server.books.billed["batch"] == 2
    file.write_text(CORRECTED)
    run = run_dag(DAG_ID, form)
    assert run.state == "success", run.failures
    assert openai_server.books.billed["batch"] == 2 + 2, "the corrected text and the late one"
    table = tmp_path / "nights" / "table" / "day=2025-06-20" / "reviews.parquet"
    rows = pq.ParquetFile(table).read().to_pylist()
    assert [(row["review_id"], row["product"], row["stars"], row["sentiment"]) for row in rows] == [
        ("7", "Jug", "2", "Negative"),
        ("8", "Mug", "5", "Negative"),
        ("9", "Lamp", None, None),
        ("10", "Lamp", "4", "Positive"),
        ("11", "Mug", "1", "Negative"),
    ]
    assert [row["answer_status"] for row in rows] == ["ok", "ok", "rejected", "ok", "ok"]
    counts = json.loads((tmp_path / "nights" / "days" / "2025-06-20" / "report.json").read_text())
    assert counts["words"] == {"Positive": 1, "Neutral": 0, "Negative": 3}
    assert counts["cost_usd"] == pytest.approx(sum(row["answer_cost_usd"] or 0 for row in rows), rel=0.5)


@pytest.mark.usefixtures("openai_conn")
def test_a_late_row_is_the_same_whatever_type_the_rest_of_the_file_gives_its_numbers_and_objects(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, copied_dag: Any
) -> None:
    prompt = ("{{ text }}", "{{ stars or '' }} {{ title or '' }} {{ shop or '' }}: {{ text }}")
    dag = copied_dag(DAG_ID, PROMPT, prompt)
    form = make_day_form(tmp_path, "jsonl")
    rows: list[dict[str, Any]] = [
        {"id": 1, "stars": 5, "text": "Lovely jug.", "title": "Jug", "shop": {"town": "Ulm"}},
        {"id": 2, "stars": 4.5, "text": "It broke.", "shop": {"street": "Am See"}},
    ]
    for late in ([], [(3, 3), (4, 2.5)], [(5, 1)]):
        rows += [{"id": number, "stars": stars, "text": "Late.", "shop": {}} for number, stars in late]
        (tmp_path / "2025-06-20.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run = run_dag(dag, form)
        assert run.state == "success", run.failures
        table = read_day_table(tmp_path)
        assert [(row["id"], row["answer_status"]) for row in table] == [(row["id"], "ok") for row in rows]
        assert sum(openai_server.books.good.values()) == len(rows), "each row is paid once"


@pytest.mark.usefixtures("openai_conn")
def test_the_table_is_that_of_the_file_as_it_is_now_also_where_nothing_in_it_is_new_to_the_prompt(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    file = tmp_path / "2025-06-20.csv"
    form = make_day_form(tmp_path, "csv")
    file.write_text("id,product,text\n1,Mug,Lovely\n2,Mug,It broke\n3,Mug,Fine\n")
    assert run_dag(DAG_ID, form).state == "success"
    file.write_text("id,product,text\n3,Jug,Fine\n1,Mug,Lovely\n")
    run = run_dag(DAG_ID, form)
    assert run.state == "success", run.failures
    table = read_day_table(tmp_path)
    assert [(row["id"], row["product"], row["answer_status"]) for row in table] == [
        ("3", "Jug", "ok"),
        ("1", "Mug", "ok"),
    ]
    assert run.xcom("report")["rows"] == 2
    assert sum(openai_server.books.good.values()) == 3


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_rows_of_a_database_that_come_late_are_asked_when_the_day_is_run_again(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    tmp_path: Path,
    copied_dag: Any,
    define_connection: Callable[..., str],
) -> None:
    define_connection("shop", conn_type="sqlite", host=str(tmp_path / "shop.db"))

    def store(*reviews: tuple[int, str, str]) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as shop, shop:
            shop.execute("CREATE TABLE IF NOT EXISTS reviews (id INTEGER, text TEXT, stored_at TEXT)")
            shop.executemany("INSERT INTO reviews VALUES (?, ?, ?)", reviews)

    store((1, "Lovely jug.", "2025-06-20 09:00"), (2, "It broke.", "2025-06-20 10:00"))
    store((3, "Of another day.", "2025-06-21 00:00"))
    query = "SELECT id, text FROM reviews WHERE stored_at >= '{day}' AND stored_at < '{next_day}'"
    dag = copied_dag(
        DAG_ID, PROMPT, code=[('SQL, SQL_CONN_ID = "", ""', f'SQL, SQL_CONN_ID = "{query}", "shop"')]
    )
    form = {"day": "2025-06-20", "output_uri": f"file://{tmp_path}/nights", "poll_interval": 0.1}
    run = run_dag(dag, form)
    assert run.state == "success", run.failures
    assert sum(openai_server.books.good.values()) == 2
    store((4, "It came late.", "2025-06-20 11:00"))
    run = run_dag(dag, form)
    assert run.state == "success", run.failures
    assert sum(openai_server.books.good.values()) == 2 + 1
    table = read_day_table(tmp_path)
    assert [(row["id"], row["answer_status"]) for row in table] == [(1, "ok"), (2, "ok"), (4, "ok")]


@pytest.mark.long
@pytest.mark.usefixtures("openai_conn")
def test_what_failed_before_the_file_grew_stays_red_until_it_is_repaired_and_a_restart_asks_the_day_anew(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    file = tmp_path / "2025-06-20.csv"
    file.write_text(LATE)
    form = make_day_form(tmp_path, "csv", max_rejected_fraction=0.5)
    rule = openai_server.script(line="content_filter", contains="waste of money", times=None)
    assert run_dag(DAG_ID, form).state == "failed"
    file.write_text(CORRECTED)
    run = run_dag(DAG_ID, form)
    assert run.state == "failed"
    assert "2 rows of 5, asked before, have no good answer" in run.errors("report")
    assert run.errors("ask.publish") == "", "what was asked this time is good"
    openai_server.unscript(rule)
    run = run_dag(DAG_ID, {**form, "repair": True})
    assert run.state == "success", run.failures
    good = sum(openai_server.books.good.values())
    file.touch()
    run = run_dag(DAG_ID, form)
    assert run.state == "success", run.failures
    assert sum(openai_server.books.good.values()) == good == 4, "nothing is new"
    run = run_dag(DAG_ID, {**form, "on_existing": "restart"})
    assert run.state == "success", run.failures
    assert sum(openai_server.books.good.values()) == good + 3, "the day is asked anew as a whole"


@pytest.mark.usefixtures("openai_conn")
def test_words_are_those_of_the_prompt(run_dag: RunDag, tmp_path: Path, copied_dag: Any) -> None:
    """As its author would: the prompt changed, and nothing else."""
    dag = copied_dag(DAG_ID, "sentiment.yaml", ("[Positive, Neutral, Negative]", "[Bug, Question, Praise]"))
    run = run_dag(dag, {"output_uri": f"file://{tmp_path}/nights", "poll_interval": 0.1, "mode": "batch"})
    assert run.state == "success", run.failures
    (report,) = (tmp_path / "nights" / "days").glob("*/report.json")
    words = json.loads(report.read_text())["words"]
    assert list(words) == ["Bug", "Question", "Praise"]
    assert sum(words.values()) == 10
    followup = run_dag(
        "reviews_sentiment_followup", {"output_uri": f"file://{tmp_path}/nights", "word": "Bugg"}
    )
    assert "there are Bug, Question, Praise" in followup.errors("write", map_index=0)
    followup = run_dag(
        "reviews_sentiment_followup", {"output_uri": f"file://{tmp_path}/nights", "word": "Bug"}
    )
    assert followup.state == "success", followup.failures
    assert followup.xcom("write", map_index=0)["rows"] == words["Bug"]


NOON = datetime(2025, 6, 10, 10, tzinfo=UTC)
EVENING = datetime(2025, 6, 2, 22, 30, tzinfo=UTC)
"""Already the third in Berlin."""


@pytest.mark.parametrize(
    ("run_type", "interval_start", "run_after", "expected"),
    [
        ("scheduled", EVENING, NOON, "2025-06-03"),
        ("backfill", EVENING, NOON, "2025-06-03"),
        ("scheduled", None, EVENING, "2025-06-03"),
        ("scheduled", NOON, NOON, None),
        ("manual", NOON, NOON, "2025-06-04"),
        ("manual", None, EVENING, "2025-06-03"),
        ("manual", None, datetime(2025, 6, 1, tzinfo=UTC), None),
    ],
)
def test_which_day_a_run_is_about(
    tmp_path: Path, run_type: str, interval_start: datetime | None, run_after: datetime, expected: str | None
) -> None:
    for day in (*NIGHTS, "2025-99-99"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "a.csv").touch()
    night = find_night(
        f"{tmp_path}/{{day}}/*.csv",
        str(tmp_path / "out"),
        run_type=run_type,
        run_after=run_after,
        interval_start=interval_start,
        timezone="Europe/Berlin",
    )
    assert (None if night is None else str(night.day)) == expected


@pytest.mark.long
def test_the_files_may_lie_in_an_object_store(s3: ObjectStore, tmp_path: Path) -> None:
    for day in NIGHTS:
        s3.put(f"in/{day}/reviews.csv", b"text\n")
    where: dict[str, Any] = {"interval_start": None, "timezone": "UTC", "run_after": NOON}
    pattern = s3.uri("in/{day}/*.csv")
    newest = find_night(pattern, str(tmp_path), run_type="manual", **where)
    assert newest is not None
    assert newest.source == s3.uri(f"in/{NIGHTS[2]}/*.csv")
    assert find_night(pattern, str(tmp_path), run_type="scheduled", **where) is None


def test_a_night_that_an_earlier_release_began_goes_on() -> None:
    began = {"day": "2025-06-02", "source": "/in/2025-06-02.csv", "root": "/out", "prepared": "/out/p"}
    assert Night.from_xcom(began).source == "/in/2025-06-02.csv"
    asked = {**Night.from_xcom(began).to_xcom(), "source": "/out/days/2025-06-02/late/1-002/rows.jsonl"}
    assert Night.from_xcom(asked).source == "/in/2025-06-02.csv"


def test_a_pattern_without_a_day_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no \{day\}"):
        find_night(
            "reviews.csv",
            str(tmp_path),
            run_type="manual",
            run_after=NOON,
            interval_start=None,
            timezone="UTC",
        )


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("Positive", "Positive"),
        (" **negative.**\n", "Negative"),
        ("NEUTRAL", "Neutral"),
        ("Rather good", "Other"),
        ("c++", "C++"),
    ],
)
def test_a_word_is_known_however_it_is_dressed(answer: str, word: str) -> None:
    assert Words(("Positive", "Negative", "Neutral", "C++")).read(answer) == word


def test_words_of_a_prompt_without_a_list_count_as_they_come() -> None:
    words = Words()
    assert [words.read(answer) for answer in ("Bug", "bug.", "**Praise**")] == ["Bug", "Bug", "Praise"]
    assert {words.read(f"word {n}") for n in range(100)} == {f"word {n}" for n in range(48)} | {"Other"}


def test_the_trend_points_at_what_is_steep() -> None:
    def night(bad: int, cost_usd: float | None) -> NightFigures:
        return NightFigures(day="2025-06-02", requests=1_000, bad=bad, cost_usd=cost_usd)

    assert describe_trend([night(1, 0.1)]) == []
    calm = describe_trend([night(2, 0.1), night(2, 0.1), night(3, 0.1)])
    assert not any(sentence.startswith("Look") for sentence in calm)
    failures, cost = describe_trend([night(2, 0.1), night(2, None), night(5, 0.3)])
    assert failures.startswith("Look: 0.5% of the requests")
    assert cost.startswith("Look: 0.3000 USD for 1,000")
