"""Who gets what of the page: nothing for strangers, for others what Airflow lets them see and do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

    Login = Any

pytestmark = pytest.mark.timeout(300)

PLACES = [
    "/", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/static/page.js", "/static/icon.svg",
    "/static/nothing.js", "/static/../__init__.py", "/static", "/api", "/api/jobs", "/api/shards", "/api/history",
    "/api/failed.jsonl", "/nothing",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, page_openai: OpenAIServer, airflow_db: None) -> Job:
    lines = (chat_line(f"secret/{n}", f"Secret {n}") for n in range(4))
    return Job(
        tmp_path_factory.mktemp("access"), {"max_requests_per_shard": 2, "max_failed_fraction": 1.0}
    ).write(lines)


@pytest.fixture
def found(made: Job, run_dag: RunDag, page_openai: OpenAIServer, monkeypatch: Any) -> dict[str, Any]:
    """Query of a job of two shards; one of its requests has failed."""
    monkeypatch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", page_openai.airflow_connection())
    for root in ("INPUT_ROOT", "OUTPUT_ROOT"):
        monkeypatch.setenv(f"AIRFLOW__OPENAI_BATCH__{root}", f"file://{made.folder}")
    if not (made.output / "report.json").exists():
        page_openai.script(line=400, custom_id="secret/1")
        run = run_dag("openai_batch", made.conf())
        assert run.state == "success", run.failures
        _QUERY.update(dag_id="openai_batch", run_id=run.run_id, task_id="split", map_index=-1)
    return _QUERY


_QUERY: dict[str, Any] = {}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_whoever_is_not_logged_in_gets_nothing(login: Login, method: str) -> None:
    for place in [*PLACES, "/api/cancel"]:
        answer = login(None).request(method, place)
        assert answer.status_code == 401, place
        assert answer.json() == {"detail": "Not authenticated"}


def test_the_app_describes_itself_to_nobody(login: Login) -> None:
    for place in ("/docs", "/redoc", "/openapi.json"):
        assert login("admin").get(place).status_code == 404


def test_every_route_is_behind_the_login_or_a_signature() -> None:
    """One that is added later must not be forgotten."""
    from airflow.api_fastapi.core_api.security import get_user

    from airflow_openai_batch.plugin.app import make_app

    def needs(dependant: Any) -> bool:
        return dependant.call is get_user or any(map(needs, dependant.dependencies))

    open_routes = [route.path for route in make_app().routes if not needs(route.dependant)]  # type: ignore[attr-defined]
    assert open_routes == ["/webhooks/{conn_id}"]


def test_files_come_with_a_type_that_browsers_take_and_from_their_folder_alone(login: Login) -> None:
    answer = login("viewer").get("/static/icon.svg")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("image/svg+xml")
    for path in ("../app.py", "..%2fapp.py", "%2e%2e/app.py", "/etc/passwd", "%2fetc%2fpasswd", ""):
        assert login("admin").get(f"/static/{path}").status_code == 404


@pytest.mark.parametrize("place", ["/api/jobs", "/api/shards", "/api/history", "/api/failed.jsonl"])
def test_without_rights_on_the_dag_there_is_nothing_to_read(
    login: Login, found: dict[str, Any], place: str
) -> None:
    answer = login("stranger").get(place, params=found)
    assert answer.status_code == 403
    assert "openai_batch" in answer.json()["detail"]
    assert login("viewer").get(place, params=found).status_code == 200


def test_lists_leave_out_what_one_may_not_read(login: Login, found: dict[str, Any]) -> None:
    assert login("no_instances").get("/api/jobs", params=found).status_code == 403
    for name in ("stranger", "no_instances"):
        assert login(name).get("/api/jobs").json()["total"] == 0, name
    assert login("viewer").get("/api/jobs").json()["total"] >= 1


def test_requests_are_for_those_who_may_read_what_tasks_exchange(
    login: Login, found: dict[str, Any], made: Job
) -> None:
    refused = login("no_xcom").get("/api/failed.jsonl", params=found)
    assert refused.status_code == 403
    assert "XCom" in refused.json()["detail"]
    answer = login("viewer").get("/api/failed.jsonl", params=found)
    assert answer.content == (made.output / "failed.jsonl").read_bytes() != b""
    assert answer.headers["content-disposition"].startswith('attachment; filename="failed-openai_batch-2')


def test_no_answer_holds_what_was_asked_or_answered(login: Login, found: dict[str, Any]) -> None:
    for place in ("/api/jobs", "/api/shards", "/api/history"):
        text = login("admin").get(place, params=found).text
        assert "Secret" not in text
        assert "secret/" not in text
        assert "sk-" not in text


def cancel(client: httpx.Client, found: dict[str, Any], **changes: Any) -> httpx.Response:
    return client.post("/api/cancel", json={**found, "batch_id": "batch_unknown", **changes})


def test_cancelling_needs_the_right_to_edit_task_instances(login: Login, found: dict[str, Any]) -> None:
    assert cancel(login("stranger"), found).status_code == 403
    assert cancel(login("viewer"), found).status_code == 403
    assert cancel(login("user"), found).status_code == 404
    jobs = {name: login(name).get("/api/jobs", params=found).json()["jobs"] for name in ("viewer", "user")}
    assert [jobs["viewer"][0]["may_edit"], jobs["user"][0]["may_edit"]] == [False, True]


def test_another_site_cannot_make_a_browser_cancel(login: Login, found: dict[str, Any]) -> None:
    user = login("user")
    body = '{"batch_id": "batch_unknown"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert user.post("/api/cancel", content=body, headers={"content-type": kind}).status_code == 415
    wish = {**found, "batch_id": "batch_unknown"}
    for headers in (
        {"origin": "https://elsewhere.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
    ):
        answer = user.post("/api/cancel", json=wish, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["detail"]
    own = {"origin": str(user.base_url).removesuffix("/openai-batch/"), "sec-fetch-site": "same-origin"}
    assert user.post("/api/cancel", json=wish, headers=own).status_code == 404


def test_only_batches_of_the_job_can_be_cancelled(
    login: Login, found: dict[str, Any], page_openai: OpenAIServer
) -> None:
    import openai

    client = openai.OpenAI(base_url=page_openai.base_url, api_key="sk-test")
    page_openai.script(batch="completed", takes_s=3_600)
    file = client.files.create(file=("x.jsonl", f"{chat_line('a')}\n".encode()), purpose="batch")
    metadata = {"shard": "0", "send": "1", "job_key": "0" * 64}
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
    )
    answer = cancel(login("admin"), found, batch_id=batch.id)
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"{batch.id} does not belong to this job."
    assert client.batches.retrieve(batch.id).status in ("validating", "in_progress")
    own = login("admin").get("/api/shards", params=found).json()["shards"][0]
    done = cancel(login("admin"), found, batch_id=own["batch_id"])
    assert done.status_code == 409
    assert done.json()["detail"] == f"{own['batch_id']} is completed already."
    client.batches.cancel(batch.id)
    client.close()


def test_a_bad_request_is_told_in_a_sentence(login: Login) -> None:
    answer = login("admin").get("/api/shards", params={"dag_id": "openai_batch"})
    assert answer.status_code == 422
    assert answer.json() == {"detail": "run_id: Field required; task_id: Field required"}


def test_loading_the_plugin_brings_nothing_of_the_api_server() -> None:
    """Airflow loads it in every worker, too."""
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys; from airflow.plugins_manager import AirflowPlugin; before = set(sys.modules)\n"
        "from airflow_openai_batch.plugin import OpenAIBatchPlugin; plugin = OpenAIBatchPlugin()\n"
        "assert plugin.react_apps\n"
        "new = set(sys.modules) - before\n"
        "print(sorted(n for n in new if n.split('.')[0] in {'fastapi', 'openai', 'sqlalchemy', 'msgspec', 'fsspec'}"
        " or n.startswith('airflow.api_fastapi')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=root / "include", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_airflow_reports_no_trouble_with_the_plugin(api_server: str, login: Login) -> None:
    headers = {"Authorization": login("admin").headers["Authorization"]}
    answer = httpx.get(
        f"{api_server}/api/v2/plugins/importErrors", headers=headers, trust_env=False, timeout=30
    )
    assert answer.json()["import_errors"] == []
