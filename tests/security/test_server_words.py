"""What servers say reaches nobody with a key in it, however it is written."""

from __future__ import annotations

import base64
import time
from urllib.parse import quote

import pytest

from airflow_openai_batch import server_words
from airflow_openai_batch.server_words import clean_words, hide_secrets_bytes, remember_connection

PASSWORD = "p4ss/w+rd&of the <connection>"
HEADER = "0123-private-header-value"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that this process has read, and is to forget again."""
    for name in ("_secrets", "_known", "_known_bytes"):
        monkeypatch.setattr(server_words, name, type(server_words._secrets)() if name == "_secrets" else None)
    extra = {"openai_client_kwargs": {"default_headers": {"api-key": HEADER}, "organization": "org-of-mine"}}
    remember_connection(PASSWORD, extra)


@pytest.mark.parametrize(
    "said",
    [
        "Incorrect API key provided: sk-proj-VERYSECRET_12. You can find it elsewhere.",
        "Incorrect API key provided: sk-VERYS***********CRET.",
        "bad header Authorization: Bearer VERYSECRET12",
        '{"headers": {"authorization": "Bearer VERYSECRET12", "x-api-key": "VERYSECRET"}}',
        "{'Api-Key': 'VERYSECRET'}",
        "bearer VERYSECRET12==",
        "Basic VkVSWVNFQ1JFVDpwYXNz=VERYSECRET",
        "Proxy-Authorization: Basic VERYSECRET",
        "GET https://user:VERYSECRET@proxy.example/v1 failed",
        "postgres://user:VERYSECRET@db/x",
        "403 for https://b.s3.amazonaws.com/k?X-Amz-Signature=VERYSECRET&X-Amz-Credential=AKIA",
        "https://x.blob.core.windows.net/c/k?sv=2024&sig=VERYSECRET%3D",
        "the token eyJhbGciOiJVERYSECRET.eyJzdWIi.VERYSECRET is expired",
        "Cookie: session=VERYSECRET",
        "client_secret=VERYSECRET",
        "aws_secret_access_key = VERYSECRET",
        "password: VERYSECRET",
        "-----BEGIN PRIVATE KEY-----\nVERYSECRET\n-----END PRIVATE KEY-----",
        "AKIAVERYSECRET123456",
        "whsec_VERYSECRET==",
        "key VERYSECRET****abcd is unknown",
    ],
)
def test_what_looks_like_a_credential_is_replaced(said: str) -> None:
    for text in (said, said.replace(" ", "\n"), f"{said} {said}"):
        cleaned = clean_words(text)
        assert "VERYS" not in cleaned, cleaned
        assert "***" in cleaned
        assert clean_words(cleaned) == cleaned


@pytest.mark.parametrize(
    "said",
    [
        "Enqueued token limit reached for gpt-4o-mini in organization org-X. Limit: 2,000,000 enqueued tokens. "
        "Please try again once some in_progress batches have been completed.",
        "Cannot find file file-abc123, or organization org-X does not have access to it.",
        "Invalid value: 'max_tokens' must be at most 4096 for basic authentication of task-12.",
        "The custom_id 'x' for this request is a duplicate of another request.",
        "No such file or directory: 's3://aws_default@bucket/key'",
        "See https://platform.openai.com/docs/guides/batch for details.",
    ],
)
def test_what_a_person_needs_stays(said: str) -> None:
    assert clean_words(said) == said


def test_a_connections_own_values_are_known_however_they_are_written(known: None) -> None:
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    url = base64.urlsafe_b64encode(f"x{PASSWORD}yz".encode()).decode()
    for form in (
        PASSWORD,
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        HEADER,
        basic,
        url,
        PASSWORD.encode().hex(),
    ):
        said = f"who sent {form} here, from org-of-mine?"
        cleaned = clean_words(said)
        assert "***" in cleaned, form
        assert not any(part in cleaned for part in ("p4ss", "w+rd", "private-header", basic[6:-6], url[6:-6]))
        assert "org-of-mine" in cleaned
    assert hide_secrets_bytes(f"a {PASSWORD}\n".encode()) == b"a ***\n"


def test_it_is_one_short_line_without_control_characters() -> None:
    cleaned = clean_words("a\r\nFAKE log line\x1b[31m\x00 b\u2028c\u202ed " + "x" * 10_000)
    assert cleaned.isprintable()
    assert cleaned.startswith("a FAKE log line [31m b c d x")
    assert len(cleaned) == server_words.MOST_CHARS


def test_a_key_is_not_cut_into_what_nobody_knows_again(known: None) -> None:
    for start in range(server_words.MOST_CHARS - 40, server_words.MOST_CHARS + 5):
        assert "p4ss" not in clean_words("y " * (start // 2) + PASSWORD)


@pytest.mark.parametrize(
    "said", [None, "", {"a": ["sk-verysecret"]}, 7, b"\xff sk-verysecret", "\ud800", [[]] * 3]
)
def test_what_is_no_text_is_taken_as_it_comes(said: object) -> None:
    assert "verysecret" not in clean_words(said)
    clean_words(said).encode()


@pytest.mark.parametrize(
    "piece", ["a", "sk-", "*", "https://", "://:", "Bearer ", "eyJ", "x.y-", "-----BEGIN ", "api-key:"]
)
def test_no_text_takes_long(piece: str) -> None:
    began = time.perf_counter()
    clean_words(piece * 20_000)
    assert time.perf_counter() - began < 1.0
