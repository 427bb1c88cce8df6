"""The demo's way to Airflow's REST API: a database that was locked is no end, another fault is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.api import AirflowApi, AirflowApiError

LOCKED = (
    500,
    {"detail": {"reason": "Database error", "message": "Serious error when handling your request."}},
)
BROKEN = (500, {"detail": "Internal Server Error"})


@pytest.fixture
def answers() -> list[tuple[int, object]]:
    """What the server answers to the next calls, in turn."""
    return []


@pytest.fixture
def airflow(answers: list[tuple[int, object]]) -> Iterator[AirflowApi]:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send(*((201, {"access_token": "any"}) if self.path == "/auth/token" else answers.pop(0)))

        def send(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", f"{len(data)}")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = AirflowApi(f"http://127.0.0.1:{server.server_port}")
        yield api
        api.close()
        server.shutdown()


def test_a_call_that_met_a_locked_database_is_made_again(
    airflow: AirflowApi, answers: list[tuple[int, object]]
) -> None:
    answers += [LOCKED, (200, {"done": True})]
    assert airflow.request("POST", "/api/v2/anything", json={}).json() == {"done": True}


def test_another_fault_of_airflow_is_told_at_once(
    airflow: AirflowApi, answers: list[tuple[int, object]]
) -> None:
    answers += [BROKEN, (200, {"done": True})]
    with pytest.raises(AirflowApiError, match="500"):
        airflow.request("POST", "/api/v2/anything", json={})
    assert len(answers) == 1
