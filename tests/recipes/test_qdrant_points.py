"""Points read and written in pages, what a person may filter by, and what is said when the store says no."""

from __future__ import annotations

import gc
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.qdrant.qdrant_errors import StoreError
from airflow_openai_batch.recipes.qdrant.qdrant_filters import leave_out, make_filter
from airflow_openai_batch.recipes.qdrant.qdrant_points import PointStore

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "key-of-the-cellar"


@pytest.fixture
def store(form_roots: Path) -> PointStore:
    """Ten points: numbered, of two kinds, from two days, the last without a day."""
    store = PointStore(collection="things", name="things")
    with store.open() as points:
        points.create(None)
        points.write(
            list(range(10)),
            [
                {"kind": "ab"[n % 2], "size": n / 2, "deep": {"n": n}}
                | ({} if n == 9 else {"day": f"2026-01-{n + 1:02d}T00:00:00Z"})
                for n in range(10)
            ],
        )
    return store


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ({}, range(10)),
        ({"kind": "a"}, range(0, 10, 2)),
        ({"kind": ["a", "b"], "deep.n": [1, 2, 30]}, [1, 2]),
        ({"size": {"gte": 2, "lt": 3}}, [4, 5]),
        ({"size": 2.5}, [5]),
        ({"day": {"gt": "2026-01-08"}}, [8]),
        ({"day": None}, [9]),
        (
            {"should": [{"key": "deep.n", "match": {"value": 3}}, {"key": "size", "range": {"lt": 1}}]},
            [0, 1, 3],
        ),
    ],
)
def test_conditions_typed_into_a_form_choose_points_and_pages_lose_none(
    store: PointStore, conditions: dict[str, Any], ids: Any
) -> None:
    with store.open() as points:
        where = make_filter(conditions)
        pages = list(points.read_pages(["kind"], where, points=3))
        assert [point.id for page in pages for point in page] == list(ids)
        assert points.count(where) == len(ids)
        assert max(map(len, pages)) <= 3
        big = make_filter({"size": {"gte": 2}})
        assert big is not None
        rest = leave_out(where, big.must)
        assert [p.id for page in points.read_pages([], rest) for p in page] == [n for n in ids if n < 4]


@pytest.mark.parametrize(
    "conditions",
    [
        {"kind": []},
        {"kind": ["a", 1]},
        {"size": {"above": 2}},
        {"size": {"gte": []}},
        {"must": [{"nonsense": SECRET}]},
    ],
)
def test_what_is_no_condition_is_said_without_quoting_it(conditions: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="filters") as caught:
        make_filter(conditions)
    assert SECRET not in str(caught.value)


def test_payloads_are_set_beside_what_is_there(store: PointStore) -> None:
    with store.open() as points:
        points.set_payloads({1: {"tags": ["x"]}, 2: {"tags": ["y"], "kind": "c"}})
        found = points.fetch([1, 2, 77], ["kind", "tags"])
    assert found == {1: {"kind": "b", "tags": ["x"]}, 2: {"kind": "c", "tags": ["y"]}}


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the client leaves its lock file open
def test_files_that_are_in_use_say_so_and_are_free_again_afterwards(store: PointStore) -> None:
    with store.open(), pytest.raises(StoreError, match="in use by another process") as caught, store.open():
        pass
    assert not caught.value.permanent, "the task tries again"
    del caught
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # the client leaves its lock file open
    with store.open() as points:
        assert points.count() == 10


def test_a_collection_that_is_not_there_is_named(store: PointStore) -> None:
    other = PointStore(collection="other", name=store.name)
    with pytest.raises(ConfigError, match=r"collection 'other' .* is not there"), other.open() as points:
        points.count()


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "127.0.0.1", "port": 9},
        {"extra": {"url": "http://127.0.0.1:9/base"}},
        {"host": "http://127.0.0.1:9"},
    ],
)
@pytest.mark.filterwarnings("ignore:Api key is used with an insecure")
def test_a_server_that_does_not_answer_is_named_by_its_connection(
    define_connection: Callable[..., str], fields: dict[str, Any]
) -> None:
    define_connection(
        "vectors",
        conn_type="qdrant",
        password=SECRET,
        **{**fields, "extra": json.dumps(fields.get("extra", {}))},
    )
    store = PointStore(collection="things", conn_id="vectors")
    with (
        pytest.raises(StoreError, match=r"connection 'vectors'.*could not be reached") as caught,
        store.open() as points,
    ):
        points.count()
    assert SECRET not in str(caught.value)


def test_places_that_cannot_be_are_refused(define_connection: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="collection is empty"):
        PointStore(collection=" ", name="things")
    with (
        pytest.raises(ConfigError, match="'none_such' does not exist"),
        PointStore(collection="things", conn_id="none_such").open(),
    ):
        pass
