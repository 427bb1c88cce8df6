"""The `openai` client without HTTP, on an `Emulator`: what `BatchClient` asks of it, and how calls go wrong.

The real `BatchClient` works on top, with its retries, its translation of errors and its checks of downloads.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import openai

from airflow_openai_batch.openai_api.client_errors import STREAM_ERRORS
from airflow_openai_batch.testing.interference import keep_lines, route_of
from airflow_openai_batch.testing.refusals import STATUS_CODES, ApiError, message_for

if TYPE_CHECKING:
    from airflow_openai_batch.testing.emulator import Emulator
    from airflow_openai_batch.testing.faults import HttpFault
    from simulation.purse import Purse
    from simulation.world import Process

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 600.0
"""Of the client, where a call asks for no other."""


class SimulatedOpenAI:
    """Stands for ``openai.OpenAI`` in one process."""

    def __init__(self, emulator: Emulator, process: Process, purse: Purse) -> None:
        self._emulator = emulator
        self._purse = purse
        self._process = process
        self._world = process.world
        self.told: dict[str, str] = {}
        """Of the batch that is created next."""
        self.files = SimpleNamespace(
            with_raw_response=SimpleNamespace(
                create=self._upload,
                delete=self._delete_file,
                list=self._list_files,
                retrieve=self._get_file,
            ),
            with_streaming_response=SimpleNamespace(content=self._stream),
        )
        self.batches = SimpleNamespace(
            with_raw_response=SimpleNamespace(
                create=self._create, retrieve=self._retrieve, list=self._list, cancel=self._cancel
            )
        )

    def with_options(self, **_: Any) -> SimulatedOpenAI:
        return self

    def close(self) -> None:
        """Nothing is held open."""

    def _upload(
        self, *, file: tuple[str, Any, str], purpose: str, timeout: float, expires_after: Any = None
    ) -> Any:
        name, stream, _ = file

        def act() -> dict[str, Any]:
            try:
                data = stream.read()
            except Exception as error:  # what the client makes of a body that cannot be read
                raise _cut_off("reading the body") from error
            return self._emulator.upload(data, filename=name, purpose=purpose, expires_after=expires_after)

        return _shown(self._call("POST", "/v1/files", act, timeout))

    def _delete_file(self, file_id: str, **_: Any) -> Any:
        return _shown(
            self._call("DELETE", f"/v1/files/{file_id}", lambda: self._emulator.delete_file(file_id))
        )

    def _get_file(self, file_id: str, **_: Any) -> Any:
        return _shown(self._call("GET", f"/v1/files/{file_id}", lambda: self._emulator.get_file(file_id)))

    def _list_files(self, *, limit: int = 10_000, after: Any = None, purpose: Any = None, **_: Any) -> Any:
        page = self._call(
            "GET",
            "/v1/files",
            lambda: self._emulator.list_files(limit=limit, after=_given(after), purpose=_given(purpose)),
        )
        return _shown(page)

    def _create(self, *, timeout: float = DEFAULT_TIMEOUT_S, **params: Any) -> Any:
        def act() -> dict[str, Any]:
            self._purse.check_batch(self._emulator, self.told)
            created = self._emulator.create_batch(params, self.told)
            self._world.looked_at[created.get("job", created)["id"]] = self._process.listed_at
            self._world.stir()
            return created

        return _shown(self._call("POST", "/v1/batches", act, timeout))

    def _retrieve(self, batch_id: str, **_: Any) -> Any:
        return _shown(
            self._call("GET", f"/v1/batches/{batch_id}", lambda: self._emulator.get_batch(batch_id))
        )

    def _list(self, *, limit: int = 20, after: Any = None, **_: Any) -> Any:
        def act() -> dict[str, Any]:
            forgets = fault is not None and fault.forget_after
            asked_after = None if forgets else _given(after)
            if _given(after) is None:
                self._process.listed_at = self._world.now()
            return self._emulator.list_batches(limit=limit, after=asked_after)

        fault = self._meet("GET", "/v1/batches")
        return _shown(self._answer("GET", "/v1/batches", act, fault))

    def _cancel(self, batch_id: str, **_: Any) -> Any:
        def act() -> dict[str, Any]:
            cancelled = self._emulator.cancel_batch(batch_id)
            self._world.stir()
            return cancelled

        return _shown(self._call("POST", f"/v1/batches/{batch_id}/cancel", act))

    def call_model(self, endpoint: str, body: Any, on_answer: Callable[[], None]) -> dict[str, Any]:
        """One real-time request. ``on_answer`` is called when it is paid for, whoever hears of it."""

        def act() -> dict[str, Any]:
            answer, _ = self._emulator.call(endpoint, body)
            on_answer()
            return answer

        return self._call("POST", endpoint, act)

    @contextlib.contextmanager
    def _stream(self, file_id: str, **_: Any) -> Iterator[Any]:
        path = f"/v1/files/{file_id}/content"
        fault = self._meet("GET", path)
        content = self._answer("GET", path, lambda: self._emulator.read_content(file_id), fault)
        if fault is not None and fault.page is not None:
            content = fault.page.encode()
        if fault is not None and fault.keep_lines is not None:
            content = keep_lines(content, fault.keep_lines)
        headers = {"content-length": str(len(content))}
        cut = None if fault is None else fault.truncate_bytes

        def iter_bytes(_: int) -> Iterator[bytes]:
            yield content[:cut]
            if cut is not None and cut < len(content):
                raise STREAM_ERRORS[0]("the connection was cut")

        yield SimpleNamespace(headers=headers, iter_bytes=iter_bytes)

    def _call(self, method: str, path: str, act: Callable[[], T], timeout: float = DEFAULT_TIMEOUT_S) -> T:
        return self._answer(method, path, act, self._meet(method, path), timeout)

    def _meet(self, method: str, path: str) -> HttpFault | None:
        """What happens on the way to OpenAI.

        :raises openai.OpenAIError: if the call does not come to have an effect.
        """
        route = route_of(method, path)
        self._process.point(f"before {route}")
        self._world.sleep(self._world.chance.uniform(0.05, 1.0))
        self._process.check_alive()
        spell = self._world.find_spell()
        if spell is not None:
            self._note(method, path, f"{spell.status} {spell.code}")
            raise _refused(spell.status, spell.code)
        fault = self._emulator.script.strike_http(method, path)
        if fault is not None and fault.drop == "before":
            self._note(method, path, "CUT before it had an effect")
            raise _cut_off(route)
        if fault is not None and fault.status is not None:
            self._note(method, path, f"ANSWERED {fault.status}")
            code = fault.code or STATUS_CODES.get(fault.status)
            raise _refused(fault.status, code, fault.retry_after_s, fault.message or "")
        return fault

    def _answer(
        self,
        method: str,
        path: str,
        act: Callable[[], T],
        fault: HttpFault | None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> T:
        slow_s = 0.0 if fault is None else fault.delay_s
        self._world.sleep(min(slow_s, timeout) / 2)
        self._process.check_alive()
        try:
            answer = act()
        except ApiError as error:
            self._note(method, path, f"{error.status}")
            raise _refused(error.status, error.code, message=error.message, param=error.param) from None
        self._note(method, path, "ok" if not isinstance(answer, dict) else _sum_up(answer))
        self._world.sleep(min(slow_s, timeout) / 2)
        self._process.point(f"after {route_of(method, path)}")
        if slow_s > timeout:
            self._note(method, path, f"TIMED OUT after {timeout:g} s; it had its effect")
            raise openai.APITimeoutError(request=None)  # type: ignore[arg-type]
        if fault is not None and fault.drop == "after":
            self._note(method, path, "CUT: the reply is lost")
            raise _cut_off(path)
        return answer

    def _note(self, method: str, path: str, what: str) -> None:
        self._world.note(self._process.name, f"{method} {path}: {what}")


def _shown(body: dict[str, Any]) -> Any:
    return SimpleNamespace(content=json.dumps(body).encode(), headers={})


def _given(value: Any) -> Any:
    return None if value is openai.omit else value


def _sum_up(answer: dict[str, Any]) -> str:
    if "data" in answer:
        found = (f"{item['id'][:12]} {item.get('status')}" for item in answer["data"])
        return ", ".join(found) or "an empty list"
    return f"{answer.get('id', '')[:12]} {answer.get('status', '')}"


def _cut_off(what: str) -> openai.APIConnectionError:
    return openai.APIConnectionError(message=what, request=None)  # type: ignore[arg-type]


def _refused(
    status: int,
    code: str | None,
    retry_after_s: float | None = None,
    message: str = "",
    param: str | None = None,
) -> openai.APIStatusError:
    text = message or message_for(status, code)
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    response: Any = SimpleNamespace(request=None, status_code=status, headers=headers)
    return openai.APIStatusError(
        text, response=response, body={"message": text, "code": code, "param": param}
    )
