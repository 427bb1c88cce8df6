"""The emulator as a server in this process: a thread for uvicorn, one for the work of large batches."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import uvicorn

from airflow_openai_batch.testing.app import build_app
from airflow_openai_batch.testing.blobs import DiskBlobs
from airflow_openai_batch.testing.clock import Clock
from airflow_openai_batch.testing.connection import airflow_connection
from airflow_openai_batch.testing.control import Control
from airflow_openai_batch.testing.emulator import Emulator
from airflow_openai_batch.testing.requests import CountTokens, estimate_tokens
from airflow_openai_batch.testing.settings import Settings
from airflow_openai_batch.testing.webhooks import WebhookSender

if TYPE_CHECKING:
    from airflow_openai_batch.testing.books import Books
    from airflow_openai_batch.testing.replies.answers import Answer

_INLINE_BYTES = 1_000_000
"""Files up to this are answered in the call that finds them due; larger ones in the background."""
_LINES_AT_A_TIME = 200
"""Answered while the lock is held: about 10 ms."""


class OpenAIServer:
    """OpenAI's API on a port of this machine.

    ::

        with OpenAIServer(in_progress_s=60) as server:
            server.script(batch="expired", done=7, total=10)
            client = openai.OpenAI(base_url=server.base_url, api_key="any")
            ...
            server.clock.advance(60)
            assert server.books.billed["batch"] == 7

    :param port: 0 takes a free one.
    :param data_dir: where files lie; a temporary directory by default, removed at the end.
    :param speed: emulator seconds per real second; 0 stands still until ``server.clock.advance(seconds)``.
    :param clock: instead of ``speed``, a clock of one's own.
    :param count_tokens: input tokens of a request body, for the queue and the usage.
    :param changes: any of `Settings`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data_dir: Path | None = None,
        clock: Clock | None = None,
        speed: float = 1.0,
        count_tokens: CountTokens = estimate_tokens,
        settings: Settings | None = None,
        detailed_books: bool = True,
        **changes: Any,
    ) -> None:
        self.host = host
        self.port = port
        self.clock = clock if clock is not None else Clock(speed=speed)
        self._temporary = tempfile.TemporaryDirectory(prefix="openai-emulator-") if data_dir is None else None
        self.emulator = Emulator(
            settings=settings if settings is not None else Settings(**changes),
            clock=self.clock,
            blobs=DiskBlobs(data_dir if data_dir is not None else Path(self._temporary.name)),  # type: ignore[union-attr]
            count_tokens=count_tokens,
            detailed_books=detailed_books,
            inline_bytes=_INLINE_BYTES,
        )
        self.lock = threading.RLock()
        self.webhooks = WebhookSender(self.emulator, self.lock)
        self._work_waits = threading.Event()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._uvicorn: uvicorn.Server | None = None

    # -- running -------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen; returns when calls are answered."""
        app = build_app(
            self.emulator, self.lock, self._work_waits.set, Control(self.emulator, self.lock).routes()
        )
        listener = socket.create_server((self.host, self.port), backlog=1024)
        # asyncio sets this only on sockets that name their protocol; without it each reply takes 40 ms more
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(
            app,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_config=None,  # logging belongs to the test or the program
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._uvicorn = uvicorn.Server(config)
        self._stopping = False
        self._threads = [
            threading.Thread(
                target=self._uvicorn.run, args=([listener],), name="openai-emulator", daemon=True
            ),
            threading.Thread(target=self._work, name="openai-emulator-work", daemon=True),
            threading.Thread(target=self.webhooks.run, name="openai-emulator-webhooks", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        while not self._uvicorn.started:
            if not self._threads[0].is_alive():
                raise RuntimeError(f"The emulator could not start on {self.host}:{self.port}.")
            time.sleep(0.005)
        return self

    def stop(self) -> None:
        """Stop listening and forget everything."""
        self._stopping = True
        self._work_waits.set()
        self.webhooks.stop()
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True
        for thread in self._threads:
            thread.join(timeout=10)
        with self.lock:
            self.emulator.batches.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _work(self) -> None:
        while not self._stopping:
            self._work_waits.wait()
            self._work_waits.clear()
            more = True
            while more and not self._stopping:
                with self.lock:
                    more = self.emulator.batches.work(_LINES_AT_A_TIME)
                time.sleep(0.0002)  # locks are not fair: let a waiting call have its turn

    # -- what tests use ------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The root, with the control API under ``/emulator``."""
        return f"http://{self.host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI client is given."""
        return f"{self.url}{self.emulator.settings.rules.path}"

    def airflow_connection(self, key: str = "sk-emulator", **extra: Any) -> str:
        """The value of an environment variable ``AIRFLOW_CONN_<ID>`` that leads here."""
        return airflow_connection(self.base_url, key, **extra)

    @property
    def books(self) -> Books:
        return self.emulator.books

    @property
    def answer(self) -> Answer | None:
        """A function ``body -> str`` that writes the answers, or gives a dict as the whole body of one; or none."""
        return self.emulator.answer

    @answer.setter
    def answer(self, answer: Answer | None) -> None:
        self.emulator.answer = answer

    def script(self, **fault: Any) -> str:
        """Let something go wrong; see `faults` for all that can. Returns the rule's id."""
        with self.lock:
            return self.emulator.script.add(fault)

    def unscript(self, rule_id: str | None = None) -> None:
        """Take back one rule, or all."""
        with self.lock:
            self.emulator.script.remove(rule_id)

    def hits(self, rule_id: str) -> int:
        """How often a rule has struck."""
        return next((rule.hits for rule in self.emulator.script.rules if rule.id == rule_id), 0)

    def configure(self, **changes: Any) -> None:
        """Change settings from now on."""
        with self.lock:
            self.emulator.configure(**changes)

    def occupy_queue(self, model: str, tokens: int = 0, requests: int = 0) -> None:
        """Let strangers put so much into the queue; negative numbers take it out."""
        with self.lock:
            self.emulator.occupy_queue(model, tokens, requests)

    def kept_batches(self, job_key: str) -> list[str]:
        """Batches of a job_key that were neither refused nor cancelled."""
        with self.lock:
            return self.emulator.kept_batches(job_key)

    def files(self) -> list[dict[str, Any]]:
        """All files that are alive, uploaded and made."""
        with self.lock:
            return self.emulator.list_files()["data"]  # type: ignore[no-any-return]

    def batches(self) -> list[dict[str, Any]]:
        """All batches, oldest first, whatever lists show."""
        with self.lock:
            self.emulator.batches.settle()
            return [self.emulator.get_batch(batch.id) for batch in list(self.emulator.batches)]

    def reset(self) -> None:
        """Start anew: files, batches, script, books, settings."""
        with self.lock:
            self.emulator.reset()
