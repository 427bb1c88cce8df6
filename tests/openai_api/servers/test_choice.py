"""Which server a connection leads to, and what is wrong with one that leads nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.openai_api.servers.choice import (
    SERVERS,
    complete_host,
    find_by_host,
    find_full_queue,
    read_amount,
    read_server,
)

WHERE = "connection 'c'"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (None, "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://mine.cognitiveservices.azure.com", "azure"),
        ("https://MINE.Services.AI.Azure.com/openai/v1/", "azure"),
        ("https://mine.openai.azure.us/openai/v1", "azure"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.together.ai/v1", "together"),
        # A name that only looks like one, and servers of which nothing is known, are read as before.
        ("https://openai.azure.com.example.org/v1", "openai"),
        ("https://myopenai.azure.com.evil.example/v1", "openai"),
        ("http://127.0.0.1:4000/v1", "openai"),
        ("no address", "openai"),
        ("http://[", "openai"),
    ],
)
def test_a_plain_host_tells_the_server(host: str | None, name: str) -> None:
    assert find_by_host(host).name == name
    assert read_server({}, host, WHERE).name == name


@pytest.mark.parametrize("name", SERVERS)
def test_what_the_extra_says_wins_over_the_host(name: str) -> None:
    assert read_server({"server": name.upper()}, "https://api.groq.com/openai/v1", WHERE).name == name


@pytest.mark.parametrize("name", ["azur", "Open AI", 7, True, ["azure"], {"name": "azure"}])
def test_a_server_that_is_not_known_names_those_that_are(name: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        read_server({"server": name}, None, WHERE)
    assert str(caught.value) == (
        f"connection 'c': server={name!r} in its extra is not known. Known are openai, azure, groq, together, litellm, "
        "generic; leave it away for another server that speaks OpenAI's Batch API."
    )


@pytest.mark.parametrize(
    ("name", "host", "address"),
    [
        ("openai", None, None),
        ("openai", "http://127.0.0.1/v1", "http://127.0.0.1/v1"),
        ("azure", "https://mine.openai.azure.com", "https://mine.openai.azure.com/openai/v1"),
        ("azure", "https://mine.openai.azure.com/", "https://mine.openai.azure.com/openai/v1"),
        ("azure", "https://mine.openai.azure.com/openai/v1/", "https://mine.openai.azure.com/openai/v1/"),
        ("azure", "https://gateway.example/ai/openai/v1", "https://gateway.example/ai/openai/v1"),
        ("groq", None, "https://api.groq.com/openai/v1"),
        ("together", None, "https://api.together.xyz/v1"),
        ("litellm", "http://proxy:4000", "http://proxy:4000/v1"),
        ("generic", "http://proxy:4000", "http://proxy:4000"),
    ],
)
def test_a_host_without_a_path_gets_that_of_its_server(
    name: str, host: str | None, address: str | None
) -> None:
    assert complete_host(SERVERS[name], host, WHERE) == address


@pytest.mark.parametrize("name", ["azure", "litellm", "generic"])
def test_a_server_that_is_at_no_address_of_its_own_needs_a_host(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"connection 'c': has no host, and server={name} is at no address"
    ):
        complete_host(SERVERS[name], None, WHERE)


def test_the_address_of_a_deployment_is_none_of_a_resource() -> None:
    host = "https://mine.openai.azure.com/openai/deployments/my-mini"
    with pytest.raises(ConfigError, match="names a deployment, and batches are created for a whole resource"):
        complete_host(SERVERS["azure"], host, WHERE)


@pytest.mark.parametrize(
    ("server", "window"),
    [("openai", "24h"), ("groq", "7d"), ("groq", "48h"), ("groq", "168h"), ("azure", "1d")],
)
def test_a_window_that_a_server_takes_is_asked_for(server: str, window: str) -> None:
    found = read_server({"server": server, "completion_window": window}, None, WHERE)
    assert found.creation_arguments({}, 1)["completion_window"] == window


@pytest.mark.parametrize(
    ("server", "window"),
    [("openai", "7d"), ("azure", "48h"), ("groq", "8d"), ("groq", "23h"), ("groq", "a week"), ("groq", 7)],
)
def test_a_window_that_a_server_does_not_take_is_refused_with_what_it_takes(server: str, window: Any) -> None:
    wanted = 'a time from "24h" to "7d"' if server == "groq" else '"24h"'
    with pytest.raises(ConfigError) as caught:
        read_server({"server": server, "completion_window": window}, None, WHERE)
    assert str(caught.value) == (
        f"connection 'c': completion_window={window!r} in its extra must be {wanted} for server={server}."
    )


@pytest.mark.parametrize(
    ("words", "limit", "unit"),
    [
        (
            "Enqueued token limit reached for gpt-4o in organization org-1. Limit: 2,000,000 enqueued tokens. Please",
            2_000_000,
            "token",
        ),
        ("Enqueued request limit reached for x in organization y. Limit: 100 enqueued", 100, "request"),
        ("Enqueued token limit reached", None, "token"),
        (
            "The number of enqueued tokens has surpassed the configured limit of 30K for the deployment 'x'.",
            30_000,
            "token",
        ),
        ("The number of enqueued tokens has surpassed the configured limit of 1.5M for", 1_500_000, "token"),
        ("The number of enqueued tokens has surpassed the configured limit of 1,000 for", 1_000, "token"),
        ("The number of enqueued tokens has surpassed the configured limit", None, "token"),
        (
            "the number of enqueued requests has surpassed the configured limit of 2B.",
            2_000_000_000,
            "request",
        ),
    ],
)
def test_a_full_queue_is_known_by_each_servers_words(words: str, limit: int | None, unit: str) -> None:
    found = find_full_queue(words)
    assert found is not None
    assert (read_amount(found), found["unit"].lower()) == (limit, unit)


@pytest.mark.parametrize(
    "words",
    ["", "The file is not processed yet.", "Rate limit reached for gpt-4o on tokens per min. Limit: 30K"],
)
def test_other_words_are_about_something_else(words: str) -> None:
    assert find_full_queue(words) is None
