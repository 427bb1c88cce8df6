"""Airflow's pages in a real browser, as a person sees the DAG, its form and a finished run.

Set SCREENSHOTS to a folder to keep a picture of each page.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest

from airflow_openai_batch.dag_params import make_params
from demo.api import Run
from fixtures.browser import open_browser
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from demo.standalone import LocalAirflow

pytestmark = [
    pytest.mark.system,
    pytest.mark.long,
    pytest.mark.timeout(420),
    pytest.mark.needs_program("chromium"),
]

PATIENCE_MS = 30_000
"""The UI's own pages take seconds on a busy machine."""

Shoot = Callable[[str], None]


@pytest.fixture(scope="module")
def page(local_airflow: LocalAirflow) -> Iterator[Page]:
    """A browser that is logged in."""
    with open_browser(local_airflow.url, Path()) as browser:
        browser.page.set_viewport_size({"width": 1400, "height": 1000})
        browser.page.set_default_timeout(PATIENCE_MS)
        yield browser.page


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Shoot:
    """Take a picture of what the browser shows."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)

    def take(name: str) -> None:
        page.wait_for_timeout(1000)  # panels slide in
        page.screenshot(path=folder / f"{name}.png")

    return take


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Three shards of two requests."""
    lines = (chat_line(f"seen/{n}", f"Seen {n}: lovely.") for n in range(6))
    return Job(tmp_path_factory.mktemp("seen"), {"max_requests_per_shard": 2}).write(lines)


@pytest.fixture(scope="module")
def finished(local_airflow: LocalAirflow, job: Job) -> Run:
    run = local_airflow.trigger("openai_batch", job.conf())
    assert local_airflow.wait(run, timeout_s=120) == "success", local_airflow.explain(run)
    return run


def open_until_seen(page: Page, url: str, what: Locator) -> None:
    """As a person does, who loads a page of Airflow's again that stays half empty on a busy machine."""
    from playwright.sync_api import TimeoutError as PatienceError

    page.goto(url)
    try:
        what.wait_for()
    except PatienceError:
        page.reload()
        what.wait_for()


def test_the_dag_explains_itself(page: Page, local_airflow: LocalAirflow, shoot: Shoot) -> None:
    page.goto(f"{local_airflow.url}/dags/openai_batch")
    page.get_by_role("button", name="Dag Docs").click()
    documentation = page.get_by_role("dialog")
    documentation.get_by_role("heading", name="A JSONL of OpenAI requests, of any size").wait_for()
    shoot("documentation")
    assert documentation.get_by_role("table").get_by_role("cell").all_inner_texts() == [
        "split →",
        "upload → create → wait → download → resend_leftovers",
        "→ publish",
    ]


def test_a_run_is_started_from_the_form_with_an_input_alone(
    page: Page, local_airflow: LocalAirflow, job: Job, shoot: Shoot
) -> None:
    page.goto(f"{local_airflow.url}/dags/openai_batch")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    field = form.locator("[name=element_input_uri]")
    field.wait_for()
    shoot("form")
    for name, param in make_params().items():
        assert form.locator(f"[name=element_{name}]").count() == 1, name
        assert form.get_by_text(param.description or name).count() == 1, name
        title = re.compile(rf"^{re.escape(param.schema['title'])}\s*\*?$")  # a star where it must be given
        assert form.get_by_text(title).count() == 1, name
    start = form.get_by_role("button", name="Trigger")
    assert start.is_disabled(), "without an input there is nothing to start"
    for section in ("Shards", "Results", "Sending"):
        form.get_by_text(section, exact=True).click()
        shoot(f"form-{section.lower()}")
    form.get_by_text("Run Parameters", exact=True).click()
    field.fill(f"{job.input}\n")
    start.click()
    page.wait_for_url("**/dags/openai_batch/runs/**")
    run = Run("openai_batch", unquote(page.url.rpartition("/")[2]))
    assert local_airflow.wait(run, timeout_s=120) == "success", local_airflow.explain(run)


def test_the_pages_of_a_finished_run(
    page: Page, local_airflow: LocalAirflow, finished: Run, shoot: Shoot
) -> None:
    run_page = f"{local_airflow.url}/dags/openai_batch/runs/{quote(finished.run_id)}"
    expand = page.get_by_role("button", name="Expand all task groups")
    open_until_seen(page, run_page, expand)
    expand.click()
    page.get_by_role("link", name="resend_leftovers [ ]").wait_for()
    shoot("grid")
    page.get_by_role("button", name="Show Graph").click()
    page.locator(".react-flow__node").filter(has_text="resend_leftovers").last.wait_for()
    shoot("graph")
    page.get_by_role("button", name="Show Grid").click()

    page.goto(
        f"{run_page}/tasks/shard.download/mapped"
    )  # names are given by workers, which `wait` needs none of
    for shard in range(3):
        page.get_by_text(f"shard {shard} · 2 requests · ").first.wait_for()
    shoot("mapped")


def test_a_task_leads_to_its_log_and_to_its_batch(
    page: Page, local_airflow: LocalAirflow, finished: Run, shoot: Shoot
) -> None:
    task = f"{local_airflow.url}/dags/openai_batch/runs/{quote(finished.run_id)}/tasks"
    page.goto(f"{task}/shard.download/mapped/1")
    page.get_by_text("Landed 2 requests: 2 ok.").wait_for()
    shoot("log")
    page.goto(f"{task}/shard.download/mapped/1/details")
    button = page.locator("a[href*='platform.openai.com']")
    button.wait_for()
    shoot("details")
    assert button.inner_text() == "OpenAI batch"
    batch_id = (button.get_attribute("href") or "").removeprefix("https://platform.openai.com/batches/")
    page.goto(f"{task}/publish")
    page.get_by_text(batch_id).wait_for()
    shoot("report")


def test_the_results_are_an_asset(
    page: Page, local_airflow: LocalAirflow, finished: Run, job: Job, shoot: Shoot
) -> None:
    deadline = time.monotonic() + 60
    while not local_airflow.get("/api/v2/assets", name_pattern=f"{job.output}")["assets"]:
        assert time.monotonic() < deadline, "Airflow's scheduler takes up new assets every few seconds"
        time.sleep(0.5)
    page.goto(f"{local_airflow.url}/assets")
    shoot("assets")
    page.get_by_role("link", name=f"file://{job.output}", exact=True).click()
    page.get_by_text("openai_batch_results").first.wait_for()
    page.get_by_text("1 Asset Event").first.wait_for()
    shoot("asset")
