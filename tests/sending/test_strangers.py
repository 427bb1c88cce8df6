"""How far a queue can be filled that others use, too."""

from __future__ import annotations

from airflow_openai_batch.sending.queue.backpressure import MAX_WAIT_S, PROBE_S, Backpressure


def test_without_a_refusal_there_is_no_wall() -> None:
    assert Backpressure().is_clear(10**12)


def test_a_refusal_puts_the_wall_where_it_was_met_and_the_nearest_counts() -> None:
    wall = Backpressure()
    wall.note_refusal("a", 900, now=0.0, not_before=60.0)
    wall.note_refusal("b", 700, now=1.0, not_before=900.0)
    wall.note_refusal("c", 800, now=2.0, not_before=60.0)
    assert (wall.is_clear(699), wall.is_clear(700)) == (True, False)
    assert not wall.may_be_tried(59.0)
    assert wall.may_be_tried(60.0)  # sent together: one failure


def test_tries_that_fail_become_rare_but_never_end() -> None:
    wall, now = Backpressure(), 0.0
    waits = []
    for shard in range(8):
        wall.note_refusal(str(shard), 500, now, not_before=now + 60.0)
        waits.append(wall.until - now)
        now = wall.until
        wall.note_grant("key", str(shard + 1), 500, now)
        assert not wall.may_be_tried(now + 1.0)  # one at a time
    assert waits == [60, 120, 240, 480, 900, 900, 900, 900]
    assert MAX_WAIT_S == 900


def test_a_try_that_is_admitted_moves_the_wall_and_the_next_may_follow() -> None:
    wall = Backpressure()
    wall.note_refusal("a", 500, now=0.0, not_before=60.0)
    wall.note_grant("below", "x", 400, now=61.0)
    wall.note_admission("below")  # says nothing
    assert not wall.is_clear(500)
    wall.note_grant("try", "b", 650, now=62.0)
    wall.note_admission("another")
    assert not wall.may_be_tried(63.0)
    wall.note_admission("try")
    assert wall.is_clear(650)
    assert not wall.is_clear(651)
    assert wall.may_be_tried(63.0)


def test_a_try_of_which_nothing_is_heard_is_given_up() -> None:
    wall = Backpressure()
    wall.note_refusal("a", 500, now=0.0, not_before=60.0)
    wall.note_grant("try", "b", 500, now=60.0)
    assert not wall.may_be_tried(59.0 + PROBE_S)
    assert wall.may_be_tried(60.0 + PROBE_S)
    wall.note_grant("try", "b", 500, now=60.0 + PROBE_S)
    wall.drop_probe("b")
    assert wall.may_be_tried(61.0 + PROBE_S)
