"""The line in a task's log on where its shard stands: a step of a normal run does not read like a recovery."""

from __future__ import annotations

from airflow_openai_batch.job.folding import fold_events
from airflow_openai_batch.job.ledger import Event
from airflow_openai_batch.job.shard_state import Content
from airflow_openai_batch.sending.machine import describe_stand

WHOLE = Content(requests=10, input_tokens=100, bytes=1_000, sha256="sha")
UPLOADED = Event(kind="uploaded", send=1, at=100.0, file_id="file-1", file_sha256="sha")
CREATED = Event(kind="created", send=1, at=103.0, batch_id="batch_1")


def test_only_a_task_that_had_reached_its_goal_is_resumed() -> None:
    state = fold_events(WHOLE, [UPLOADED, CREATED])
    assert describe_stand(state, 105.0, resumed=False) == "next step after created (batch_1, 2 s ago)"
    assert (
        describe_stand(state, 105.0, resumed=True)
        == "resumed from created (batch_1, 2 s ago), nothing sent again"
    )


def test_what_is_uploaded_is_named_by_its_file() -> None:
    assert describe_stand(fold_events(WHOLE, [UPLOADED]), 105.0, resumed=False) == (
        "next step after uploaded (file-1)"
    )
