"""The page "OpenAI batches" in a real browser, on a real Airflow with real jobs.

Set SCREENSHOTS to a folder to keep a picture of each view.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from fixtures.browser import Browser, open_browser
from fixtures.job import Job, chat_line
from fixtures.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from airflow_openai_batch.testing.server import OpenAIServer
    from demo.api import Run
    from demo.standalone import LocalAirflow

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(420),
    pytest.mark.needs_program("chromium"),
]

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1400, "height": 1000}
SHARDS = 4
SHARD_SIZE = 10
MANY = 2_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's tabs are."""

    airflow: LocalAirflow
    run: Run

    @property
    def dag_tab(self) -> str:
        return f"{self.airflow.url}/dags/{self.run.dag_id}/plugin/openai-batches-of-dag"

    @property
    def run_tab(self) -> str:
        return f"{self._run}/plugin/openai-batches-of-run"

    def task_tab(self, task_id: str, map_index: int) -> str:
        return f"{self._run}/tasks/{task_id}/mapped/{map_index}/plugin/openai-batches-of-task"

    @property
    def _run(self) -> str:
        return f"{self.airflow.url}/dags/{self.run.dag_id}/runs/{quote(self.run.run_id, safe='')}"


@pytest.fixture(scope="module")
def browser(local_airflow: LocalAirflow) -> Iterator[Browser]:
    with open_browser(local_airflow.url, Path(os.environ.get("SCREENSHOTS", ""))) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """At a desk; what the browser complains of is an error."""
    browser.page.set_viewport_size(DESK)
    browser.complaints.clear()
    yield browser.page
    browser.page.unroute_all()
    assert not browser.complaints


@pytest.fixture(scope="module")
def running(
    finished: Place,
    local_airflow: LocalAirflow,
    shared_openai_server: OpenAIServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    """Four batches in progress, which take an hour each; after `finished`, whose batches must not."""
    server = shared_openai_server
    server.configure(in_progress_s=3600)
    lines = (chat_line(f"page/{n}", f"Page {n}: fine.") for n in range(SHARDS * SHARD_SIZE))
    job = Job(tmp_path_factory.mktemp("running"), {"max_requests_per_shard": SHARD_SIZE, "poll_interval": 1})
    run = local_airflow.trigger("openai_batch_one_task", job.write(lines).conf())

    def in_progress() -> int:
        batches = [batch for batch in server.batches() if batch["metadata"].get("run_id") == run.run_id]
        return sum(batch["status"] == "in_progress" for batch in batches)

    wait_until("all are in progress", in_progress, SHARDS, timeout_s=240)
    yield Place(local_airflow, run)
    server.configure(in_progress_s=0)
    local_airflow.mark_run(run, "failed")


@pytest.fixture(scope="module")
def finished(
    local_airflow: LocalAirflow, shared_openai_server: OpenAIServer, tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """The second of two runs, with one request that failed."""
    lines = [chat_line(f"ready/{n}", f"Ready {n}: fine.") for n in range(6)]
    params = {"max_requests_per_shard": 2, "max_failed_fraction": 1.0}
    shared_openai_server.script(line=400, custom_id="ready/1", times=None)
    runs = []
    for name in ("one", "two"):
        job = Job(tmp_path_factory.mktemp(name), params).write(lines)
        runs.append(local_airflow.trigger("openai_batch", job.conf()))
    for run in runs:
        assert local_airflow.wait(run, timeout_s=240) == "success", local_airflow.explain(run)
    return Place(local_airflow, run)


@pytest.fixture(scope="module")
def planned(local_airflow: LocalAirflow, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A plan of 2,000 shards that a run has made and nothing has sent."""
    lines = (chat_line(f"many/{n}", f"Many {n}: fine.") for n in range(MANY))
    job = Job(tmp_path_factory.mktemp("many"), {"max_requests_per_shard": 1, "dry_run": True}).write(lines)
    run = local_airflow.trigger("openai_batch", job.conf())
    assert local_airflow.wait(run, timeout_s=240) == "success", local_airflow.explain(run)
    return Place(local_airflow, run)


def row_of(page: Page, place: Place) -> Locator:
    return page.get_by_role("row").filter(has_text=place.run.run_id)


def progress(place: Locator) -> float:
    return float(place.get_by_role("progressbar").first.get_attribute("aria-valuenow") or 0)


def test_who_has_no_job_is_told_how_to_get_one(
    browser: Browser, page: Page, local_airflow: LocalAirflow
) -> None:
    local_airflow.wait_for_dag("openai_batch_table")  # the page of a DAG that is not read yet stays empty
    page.goto(f"{local_airflow.url}/dags/openai_batch_table/plugin/openai-batches-of-dag")
    page.get_by_text("No OpenAI job in this DAG yet.").wait_for()
    browser.shoot("empty-dag")


def test_the_menu_leads_to_all_jobs_and_a_running_one_moves_by_itself(
    browser: Browser,
    page: Page,
    local_airflow: LocalAirflow,
    shared_openai_server: OpenAIServer,
    running: Place,
    finished: Place,
) -> None:
    page.goto(local_airflow.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="OpenAI batches").click()
    row = row_of(page, running)
    row.get_by_role("progressbar").wait_for()
    row.get_by_text(f"{SHARDS} running").wait_for()
    assert row_of(page, finished).get_by_text("6 of 6 requests finished").count() == 1
    page.get_by_text("gpt-4o-mini", exact=True).wait_for()
    page.get_by_text(re.compile(r"tokens in flight")).first.wait_for()
    browser.shoot("jobs")
    page.evaluate("window.stayed = true")
    before = progress(row)
    shared_openai_server.clock.advance(1800)
    wait_until("the bar moves", lambda: progress(row) > before, timeout_s=60)
    assert page.evaluate("window.stayed"), "without a reload"


def test_a_job_opens_and_closes_by_keyboard_alone(browser: Browser, page: Page, running: Place) -> None:
    page.goto(f"{running.airflow.url}/plugin/openai-batches")
    row = row_of(page, running)
    row.get_by_role("progressbar").wait_for()
    row.get_by_role("link").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Shards").wait_for()
    assert page.evaluate("document.activeElement.id") == "oab-job", "what is new is read out"
    page.get_by_role("button", name="all 4").wait_for()
    chip = page.get_by_role("button", name="running 4")
    for _ in range(30):
        page.keyboard.press("Tab")
        if chip.evaluate("chip => chip === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**shards=running**")
    assert chip.get_attribute("aria-pressed") == "true"
    page.get_by_role("progressbar", name=f"Progress of shard {SHARDS - 1}").wait_for()
    assert page.get_by_role("row").count() == 1 + SHARDS
    browser.shoot("job")
    page.keyboard.press("Escape")
    row.get_by_role("progressbar").wait_for()
    assert "job=" not in page.url
    focused = page.evaluate("document.activeElement.closest('tr').innerText")
    assert running.run.run_id in focused


def test_the_tab_of_a_run_shows_its_job_alone(
    browser: Browser, page: Page, running: Place, finished: Place
) -> None:
    page.goto(finished.run_tab)
    page.get_by_role("article").get_by_text(finished.run.run_id).wait_for()
    page.get_by_role("row").nth(3).wait_for()
    assert page.get_by_role("row").count() == 1 + 3
    assert page.get_by_text("1 row without a good answer").count() == 1
    assert page.get_by_text(running.run.run_id).count() == 0
    browser.shoot("run")
    result = page.get_by_role("button", name="Copy result URI").first
    assert (result.get_attribute("title") or "").endswith("/results/part-00000.parquet")
    openai = page.get_by_role("link", name="Batch of shard 0 at OpenAI")
    assert (openai.get_attribute("href") or "").startswith("https://platform.openai.com/batches/batch_")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download failed.jsonl").click()
    (failed,) = download.value.path().read_text().splitlines()
    assert json.loads(failed)["custom_id"] == "ready/1"
    page.get_by_role("link", name="Task of shard 0").click()
    page.wait_for_url("**/tasks/**")


def test_the_tab_of_a_task_shows_its_shard(browser: Browser, page: Page, running: Place) -> None:
    page.goto(running.task_tab("shard", 2))
    page.get_by_role("heading", name="Shard of this task").wait_for()
    page.get_by_role("progressbar", name="Progress of shard 3").wait_for(
        state="detached"
    )  # all are there at first
    page.get_by_role("progressbar", name="Progress of shard 2").wait_for()
    assert page.get_by_role("row").count() == 1 + 1
    browser.shoot("task")
    page.get_by_role("button", name="all 4").click()
    page.get_by_role("progressbar", name="Progress of shard 3").wait_for()


def test_the_tab_of_a_dag_shows_cost_and_failures_of_its_runs(
    browser: Browser, page: Page, finished: Place, running: Place
) -> None:
    page.goto(finished.dag_tab)
    page.get_by_role("heading", name=re.compile(r"Last \d runs")).wait_for()
    row_of(page, finished).first.wait_for()
    assert row_of(page, running).count() == 0
    browser.shoot("dag")
    page.get_by_text("As a table").click()
    cells = row_of(page, finished).first.get_by_role("cell").all_inner_texts()
    assert cells[-3:] == ["5", "1", "0"], "good, bad, rejected"


def test_a_batch_is_cancelled_after_a_question(
    browser: Browser, page: Page, running: Place, shared_openai_server: OpenAIServer
) -> None:
    def statuses() -> set[str]:
        batches = shared_openai_server.batches()
        return {b["status"] for b in batches if b["metadata"].get("run_id") == running.run.run_id}

    page.goto(running.run_tab)
    button = page.get_by_role("button", name="Cancel batch of shard 1")
    button.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("heading", name="Cancel the batch of shard 1?").wait_for()
    browser.shoot("cancel")
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert button.evaluate("button => button === document.activeElement")
    assert statuses() == {"in_progress"}
    button.click()
    dialog.get_by_role("button", name="Cancel batch").click()
    page.get_by_text(re.compile("is being cancelled")).wait_for()
    assert statuses() & {"cancelling", "cancelled"}


def test_two_thousand_shards_come_by_the_hundred(browser: Browser, page: Page, planned: Place) -> None:
    page.goto(planned.run_tab)
    page.get_by_text("1 to 100 of 2,000").wait_for()
    assert page.get_by_role("row").count() == 1 + 100
    browser.shoot("many")
    page.get_by_role("button", name="Next").click()
    page.get_by_text("101 to 200 of 2,000").wait_for()
    page.get_by_role("progressbar", name="Progress of shard 100").wait_for()
    page.go_back()
    page.get_by_role("progressbar", name="Progress of shard 99").wait_for()


@pytest.mark.parametrize("view", ["jobs", "run", "task", "dag", "many"])
def test_nothing_runs_off_a_phone(
    browser: Browser, page: Page, running: Place, finished: Place, planned: Place, view: str
) -> None:
    places = {
        "jobs": f"{running.airflow.url}/plugin/openai-batches",
        "run": running.run_tab,
        "task": running.task_tab("shard", 2),
        "dag": finished.dag_tab,
        "many": planned.run_tab,
    }
    page.set_viewport_size(PHONE)
    page.goto(places[view])
    page.get_by_role("progressbar").first.wait_for()
    browser.shoot(f"phone-{view}")
    too_wide = "element => element.scrollWidth - element.clientWidth"
    assert page.locator(".openai-batches").evaluate(too_wide) == 0
    assert page.locator("html").evaluate(too_wide) == 0


def test_dark_follows_airflow(browser: Browser, page: Page, running: Place) -> None:
    page.goto(running.run_tab)
    heading = page.locator(".openai-batches h2").first
    heading.wait_for()
    colour = "element => getComputedStyle(element).color"
    light = heading.evaluate(colour)
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    heading.wait_for()
    page.get_by_role("progressbar").first.wait_for()
    browser.shoot("dark")
    assert heading.evaluate(colour) != light
    page.evaluate("localStorage.setItem('theme', 'light')")


def test_what_fails_is_said_quietly_and_passes(browser: Browser, page: Page, running: Place) -> None:
    page.goto(f"{running.airflow.url}/plugin/openai-batches")
    row_of(page, running).get_by_role("progressbar").wait_for()
    page.route("**/openai-batch/api/**", lambda route: route.abort())
    page.get_by_text(re.compile("Airflow cannot be reached")).wait_for()
    assert row_of(page, running).count() == 1, "what was there stays"
    page.unroute_all()
    page.get_by_text(re.compile("Airflow cannot be reached")).wait_for(state="hidden")
    browser.complaints.clear()  # the browser's own, of what was aborted

    cookies = page.context.cookies()
    page.context.clear_cookies()
    page.get_by_role("link", name="Log in again").wait_for()
    browser.shoot("logged-out")
    page.context.add_cookies(cookies)  # type: ignore[arg-type]
    browser.complaints.clear()
