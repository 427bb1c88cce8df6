"""Take the README's pictures of a real Airflow: ``make pictures`` (about three minutes, needs Chromium).

Two small jobs run against the emulator. The first is finished when the pictures are taken; of the second some shards
are done, some are under way and some wait for room in the queue.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageChops
from playwright.sync_api import Page

from airflow_openai_batch.testing import OpenAIServer
from demo.corpus import write_requests
from demo.standalone import ROOT, LocalAirflow, allow_forms
from fixtures.browser import open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Locator, ViewportSize

    from fixtures.browser import Browser

HERE = Path(__file__).resolve().parent
PAGE: ViewportSize = {"width": 1360, "height": 1300}
GRID: ViewportSize = {"width": 1280, "height": 700}
TOKENS_PER_SHARD = 25_000
QUEUE_LIMIT = 3 * TOKENS_PER_SHARD
QUICK_SHARDS = 2
"""So many shards of the second job are done when the pictures are taken."""
HOURS_S = (4200, 5400, 7200)
"""What the batches after these take, so that no two bars are alike."""
COLOURS = 64
MARGIN = 10
_MOVES = "n => document.querySelector(`[aria-label='Progress of shard ${n}']`)?.ariaValueNow > 0"
_RENAME = """([name, other]) => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replace(name, other);
}"""
"""The name of a temporary folder says nothing."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="docs/pictures/take.py", description=__doc__)
    parser.add_argument(
        "--to", type=Path, default=HERE, help="the folder of the pictures (default: this one)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="batches-") as folder:
        _take(Path(folder), options.to)
    return 0


def _take(folder: Path, target: Path) -> None:
    dags, requests = folder / "dags", folder / "in" / "requests.jsonl"
    for place in (dags, requests.parent):
        place.mkdir()
    shutil.copy(ROOT / "dags" / "openai_batch.py", dags)
    write_requests(requests, 1_500)
    with OpenAIServer(in_progress_s=5) as server:
        env = {"AIRFLOW_CONN_OPENAI_DEFAULT": server.airflow_connection()} | allow_forms(folder)
        with LocalAirflow(folder / "airflow", dags=dags, env=env) as airflow:
            first = airflow.trigger(
                "openai_batch", _conf(folder, "monday", max_tokens_per_shard=60_000), run_id="monday"
            )
            if airflow.wait(first, timeout_s=600) != "success":
                sys.exit(airflow.explain(first))
            for shard in range(QUICK_SHARDS, 20):
                takes_s = HOURS_S[shard % len(HOURS_S)]
                server.script(batch="completed", takes_s=takes_s, metadata={"shard": str(shard)})
            second = airflow.trigger(
                "openai_batch",
                _conf(
                    folder, "tuesday", max_tokens_per_shard=TOKENS_PER_SHARD, enqueued_token_limit=QUEUE_LIMIT
                ),
                run_id="tuesday",
            )
            _wait_until(lambda: _is_under_way(airflow.states(second)), timeout_s=600)
            waiting = [
                index
                for (task, index), state in airflow.states(second).items()
                if task == "shard.upload" and state == "deferred"
            ]
            for index in waiting:  # so that they look once more, now that the others have their batches
                airflow.clear(second, "shard.upload", index)
            _wait_until(lambda: _is_under_way(airflow.states(second)), timeout_s=600)
            server.clock.advance(2_400)
            run = f"{airflow.url}/dags/openai_batch/runs/{second.run_id}"
            with open_browser(airflow.url, Path()) as browser:
                page = _open(browser, f"{run}/plugin/openai-batches-of-run", PAGE)
                page.get_by_role("progressbar", name=f"Progress of shard {QUICK_SHARDS}").wait_for()
                page.wait_for_function(_MOVES, arg=QUICK_SHARDS)
                page.evaluate(_RENAME, [str(folder), "/data"])
                _shoot(page.locator(".openai-batches"), target / "page.png")
                page = _open(browser, f"{run}/tasks/shard.wait/mapped", GRID)
                page.get_by_role("button", name="Expand all task groups").click()
                page.get_by_text("resend_leftovers").first.wait_for()
                _shoot(page, target / "grid.png")
            airflow.mark_run(second, "failed")


def _conf(folder: Path, name: str, **more: int) -> dict[str, object]:
    return {
        "input_uri": str(folder / "in" / "requests.jsonl"),
        "output_uri": str(folder / "jobs" / name),
        "poll_interval": 2,
        **more,
    }


def _is_under_way(states: Mapping[tuple[str, int], str]) -> bool:
    """The first shards are done, and all others wait: for their batches, or for room."""
    done = sum(
        task.endswith("resend_leftovers") and state == "skipped" for (task, _), state in states.items()
    )
    busy = {"scheduled", "queued", "running", "restarting"} & set(states.values())
    return done >= QUICK_SHARDS and not busy


def _wait_until(reached: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            sys.exit("The second job did not come that far in time: run it again, on a quieter machine.")
        time.sleep(3)


def _open(browser: Browser, url: str, size: ViewportSize) -> Page:
    browser.page.set_viewport_size(size)
    browser.page.goto(url)
    return browser.page


def _shoot(what: Page | Locator, path: Path) -> None:
    (what if isinstance(what, Page) else what.page).wait_for_timeout(
        6_000
    )  # panels slide in, the grid comes last
    what.screenshot(path=path)
    with Image.open(path) as picture:
        whole = picture.convert("RGB")
    if isinstance(what, Page):
        shown = whole
    else:  # without the line of the tab above, and the blank below
        whole = whole.crop((0, MARGIN, whole.width, whole.height))
        blank = Image.new("RGB", whole.size, whole.getpixel((0, whole.height - 1)))
        _, _, _, bottom = ImageChops.difference(whole, blank).getbbox() or (0, 0, 0, whole.height)
        shown = whole.crop((0, 0, whole.width, min(whole.height, bottom + MARGIN)))
    small = shown.quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
