"""When models end: what the client says, what the table says where it is silent, and what a connection says of both."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.openai_api import model_ends
from airflow_openai_batch.openai_api.connection_settings import is_openai_host
from airflow_openai_batch.openai_api.model_ends import (
    ModelEnds,
    describe_ends,
    find_end,
    find_successor,
    read_own_ends,
    refuse_gone,
)
from airflow_openai_batch.openai_api.model_table import read_model_table

NOVEMBER = date(2026, 11, 29)
OPENAI = ModelEnds(is_openai=True)


@pytest.fixture
def use_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a client of another release: a package of that name, first on the path."""

    def install(chat_model: str | None) -> None:
        folder = tmp_path / "openai" / "types" / "shared"
        folder.mkdir(parents=True)
        (tmp_path / "openai" / "__init__.py").write_text("raise ImportError('planning imports no client')")
        if chat_model is not None:
            (folder / "chat_model.py").write_text(chat_model)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "openai", raising=False)  # what is imported already is found there
        model_ends._read_client.cache_clear()

    model_ends._read_client.cache_clear()
    yield install
    model_ends._read_client.cache_clear()


def write_client(*models: str, notes: str = "") -> str:
    named = "".join(f'    "{model}",\n' for model in models)
    return f"ChatModel: TypeAlias = Literal[\n{named}]\n" + (
        f'"""Deprecated values:\n\n{notes}"""\n' if notes else ""
    )


@pytest.mark.parametrize(
    ("model", "end"),
    [
        ("gpt-4.1-nano", date(2026, 10, 23)),
        ("gpt-5-mini-2025-08-07", date(2026, 12, 11)),
        ("gpt-4o", date(2027, 1, 14)),
        ("gpt-4o-2024-05-13", date(2026, 10, 23)),  # before the others of its name
        ("ft:gpt-4o-mini-2024-07-18:us::1", date(2027, 1, 14)),
        ("gpt-5-pro", date(2026, 12, 11)),  # not in the client's list
        ("gpt-image-1", date(2026, 10, 23)),
        ("dall-e-3", date(2026, 5, 12)),
        ("sora-2-pro", date(2026, 9, 24)),
        ("sora-2-2025-12-08", date(2026, 9, 24)),
        ("gpt-image-2-2026-04-21", None),
        ("gpt-6-luna", None),
        ("gpt-5.4-mini-2026-03-17", None),
        ("my-deployment", None),
    ],
)
def test_ends_with_the_installed_client(model: str, end: date | None) -> None:
    assert find_end(model) == end


def test_who_asks_for_pictures_is_told_of_pictures_and_of_videos_there_are_none() -> None:
    ends = OPENAI.find(["gpt-image-1", "sora-2"], NOVEMBER)
    with pytest.raises(InputError, match=r"Ask for gpt-image-2\.5-flare instead, for instance\."):
        refuse_gone(ends[:1], NOVEMBER, "in.jsonl")
    with pytest.raises(InputError, match=r"sora-2 \(shut down on 2026-09-24\).* Ask for another model\."):
        refuse_gone(ends[1:], NOVEMBER, "in.jsonl")


def test_the_table_says_what_the_client_says() -> None:
    """Until OpenAI moves a date: then the row in models.toml is to be mended."""
    client = model_ends._read_client()
    if not client.ends:
        pytest.skip("the installed client tells no dates")
    table = read_model_table().ends
    assert {name: end for name, end in client.ends.items() if name in table} == {
        name: row.date for name, row in table.items() if name in client.ends
    }
    missing = {name for name in client.ends if not set(model_ends._list_names(name)) & table.keys()}
    assert not missing, "add them to models.toml"


def test_a_client_that_tells_no_dates_leaves_them_to_the_table(use_client: Any) -> None:
    use_client(write_client("gpt-4.1-nano", "gpt-4o"))  # as 2.37 has it
    assert find_end("gpt-4.1-nano") == date(2026, 10, 23)
    assert find_end("gpt-6-luna") is None


def test_a_client_without_the_file_leaves_them_to_the_table(use_client: Any) -> None:
    use_client(None)
    spec = find_spec("openai")
    assert spec is not None
    assert find_end("gpt-4.1-nano") == date(2026, 10, 23)


def test_a_newer_client_wins_over_the_table(use_client: Any) -> None:
    notes = (
        '- "gpt-6-luna", "gpt-6-luna-2026-09-22":\n  Announced shutdown\n  date: 2028-02-01. See there.\n'
        '- "gpt-5.1-mini": Not a supported model ID. Retained for SDK compatibility.\n'
    )
    use_client(write_client("gpt-6-luna", "gpt-6-luna-2026-09-22", "gpt-4o", "gpt-5.1-mini", notes=notes))
    assert find_end("gpt-6-luna") == find_end("gpt-6-luna-2026-09-22") == date(2028, 2, 1)
    assert find_end("gpt-4o") is None  # in its list, without a date: it has been postponed
    assert find_end("gpt-5.1-mini") is None
    assert find_end("o1-mini") == date(2025, 10, 27)  # not in its list


def test_what_is_recommended_instead_lives_on() -> None:
    assert find_successor("gpt-5-mini", NOVEMBER) == "gpt-6.1-terra"
    assert find_successor("gpt-4o-mini-2024-07-18", NOVEMBER) == "gpt-6-luna"
    assert find_successor("chatgpt-4o-latest", NOVEMBER) == "gpt-6-luna"
    for row in read_model_table().ends.values():
        assert row.successor is None or find_end(row.successor) is None


def test_a_model_that_is_gone_is_refused_with_its_date_and_what_to_ask_instead() -> None:
    ends = OPENAI.find(["gpt-4.1-nano", "gpt-4.1-nano", "o4-mini", "gpt-6-luna"], NOVEMBER)
    with pytest.raises(InputError) as caught:
        refuse_gone(ends, NOVEMBER, "in.jsonl")
    assert str(caught.value) == (
        "in.jsonl: asks for gpt-4.1-nano (shut down on 2026-10-23), o4-mini (shut down on 2026-10-23); nothing was "
        "sent. Ask for gpt-6-luna, gpt-6.1-terra instead, for instance. Where the account still has it, say so in the "
        'connection\'s extra: {"model_ends": {"gpt-4.1-nano": null}}.'
    )
    assert caught.value.permanent


def test_on_its_last_day_a_model_is_warned_of_and_the_day_after_refused() -> None:
    end = date(2026, 12, 11)
    (gpt_5,) = OPENAI.find(["gpt-5"], NOVEMBER)
    refuse_gone([gpt_5], end - timedelta(days=1), "in.jsonl")
    assert list(describe_ends([gpt_5], end - timedelta(days=1))) == [
        "gpt-5 ends in 1 day, on 2026-12-11. Ask gpt-6.1-sol, for instance."
    ]
    with pytest.raises(InputError):
        refuse_gone([gpt_5], end, "in.jsonl")
    assert list(describe_ends([gpt_5], end - timedelta(days=61))) == []
    assert len(list(describe_ends([gpt_5], end - timedelta(days=60)))) == 1


def test_what_a_connection_says_wins_and_holds_for_any_server() -> None:
    own = read_own_ends({"model_ends": {"gpt-4.1-nano": None, "mine": "2026-12-24"}}, "connection 'c'")
    assert (
        ModelEnds(is_openai=True, own=own).find(["gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"], NOVEMBER) == ()
    )
    (mine,) = ModelEnds(own=own).find(["mine", "gpt-4o", "o1"], NOVEMBER)
    assert mine.describe(NOVEMBER) == "mine ends in 25 days, on 2026-12-24. Ask another model."


@pytest.mark.parametrize("end", ["soon", 2027, "2027-13-01", ["2027-01-01"], True])
def test_what_is_no_date_is_named(end: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"connection 'c': model_ends\['m'\]=.* must be a date like 2030-01-31, or null"
    ):
        read_own_ends({"model_ends": {"m": end}}, "connection 'c'")
    with pytest.raises(
        ConfigError, match="connection 'c': model_ends in its extra must be an object of dates"
    ):
        read_own_ends({"model_ends": [end]}, "connection 'c'")


@pytest.mark.parametrize(
    ("host", "is_openai"),
    [
        (None, True),
        ("", True),
        ("https://api.openai.com/v1", True),
        ("https://eu.api.openai.com/v1", True),
        ("https://API.OpenAI.com/v1", True),
        ("https://notapi.openai.com/v1", False),
        ("https://r.openai.azure.com/openai/v1/", False),
        ("http://127.0.0.1:8080/v1", False),
        ("https://api.openai.com.example.org/v1", False),
    ],
)
def test_whose_host_it_is(host: str | None, is_openai: bool) -> None:
    assert is_openai_host(host) is is_openai


def test_today_is_after_the_table_was_read() -> None:
    assert model_ends.day_of(datetime.now(UTC).timestamp()) >= max(
        row.read for row in read_model_table().ends.values()
    )
