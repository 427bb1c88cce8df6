"""How long whoever clicks the tab "OpenAI batches" of a run waits until something, and until its shards, are there."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from demo.processes import Child, free_port
from fixtures.browser import ARGUMENTS, PATIENCE_MS
from fixtures.programs import find_program
from fixtures.wait import wait_for_api

ROUNDS = 7
CLICK = """() => new Promise((resolve) => {
  const began = performance.now(), found = {};
  const look = () => {
    const page = document.querySelector(".openai-batches");
    if (page?.innerText && found.paint === undefined) found.paint = performance.now() - began;
    if (page?.querySelectorAll("tbody tr").length >= 50) resolve({ ...found, shards: performance.now() - began });
    else requestAnimationFrame(look);
  };
  [...document.querySelectorAll("a")].find((link) => link.textContent.trim() === "OpenAI batches").click();
  requestAnimationFrame(look);
})"""


def measure_paint(dag_id: str, run_id: str) -> list[list[str]]:
    """The table, for an API server on the database of this process; empty where there is no Chromium.

    Each round is a browser that has never been there; the first one meets a server that has not read the job, either.
    """
    program = find_program("chromium")
    if program is None:
        print("\nNo Chromium (apt-get install chromium): first paint not measured.", file=sys.stderr)
        return []
    port = free_port()
    command = [sys.executable, "-m", "airflow", "api-server", "--host", "127.0.0.1", "--port", str(port)]
    log = Path(tempfile.mkdtemp()) / "api-server.log"
    child = Child("api-server", command, env=dict(os.environ), log=log)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_api(child, url)
        rounds = list(_click_often(program, f"{url}/dags/{dag_id}/runs/{run_id}"))
    finally:
        child.stop()
    first, *others = rounds
    median = {name: statistics.median(each[name] for each in others) for name in first}
    return [
        ["tab of the run, server has not read the job", f"{first['paint']:.0f}", f"{first['shards']:.0f}"],
        [
            f"tab of the run, new browser, median of {len(others)}",
            f"{median['paint']:.0f}",
            f"{median['shards']:.0f}",
        ],
    ]


def _click_often(program: str, url: str) -> Iterator[dict[str, float]]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        for _ in range(ROUNDS):
            context = browser.new_context(locale="en-US")
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(url)
            page.get_by_role("link", name="OpenAI batches").wait_for()
            page.wait_for_load_state("networkidle")
            yield page.evaluate(CLICK)
            context.close()
        browser.close()
