"""A URI is compared as scheme, connection, bucket and key, each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.permissions import check_uri
from airflow_openai_batch.errors import ConfigError, NotAllowedError

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "s3://aws_default@batches/jobs"


@pytest.fixture(autouse=True)
def _roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS", f"{ROOT}/, file://{tmp_path}/root")


@pytest.mark.parametrize("uri", [ROOT, f"{ROOT}/", f"{ROOT}/a/b", f"{ROOT}/a b/ä.jsonl", f"{ROOT}/100%25/x"])
def test_what_lies_below_a_root_is_allowed(uri: str) -> None:
    check_uri(uri, "output")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://other@evil-bucket/../aws_default@batches/jobs/x",
        "s3://aws_default@batches/jobsx/x",
        "s3://batches/jobs/x",
        "s3://other@batches/jobs/x",
        "s3://aws_default@other/jobs/x",
        "s3://aws_default@batches",
        "s3a://aws_default@batches/jobs/x",
        "S3://aws_default@batches/jobs/x",
        "gs://aws_default@batches/jobs/x",
        "s3://x@aws_default@batches/jobs/x",
        "s3://@batches/jobs/x",
        "s3:///jobs/x",
        f"{ROOT}/../x",
        f"{ROOT}/a/../../x",
        f"{ROOT}/./x",
        f"{ROOT}//x",
        f"{ROOT}/%2e%2e/x",
        f"{ROOT}/.%2E/x",
        f"{ROOT}/a%2fb",
        f"{ROOT}/a%5cb",
        f"{ROOT}/a\\..\\b",
        f"{ROOT}/a?versionId=1",
        f"{ROOT}/a#b",
        f"{ROOT}/a\nb",
        "s3://aws_default@batches?x/jobs",
        "s3://aws_default@batches#/jobs/x",
        f"simplecache::{ROOT}/x",
        f"filecache::{ROOT}/x",
        f"zip://a::{ROOT}/x",
        "http://127.0.0.1/jobs",
        "memory://jobs/x",
        "file://localhost/etc/passwd",
        "file://aws_default@/etc/passwd",
        "/etc/passwd",
        "local:///etc/passwd",
        "~/.ssh/x",
    ],
)
@pytest.mark.parametrize("giver", list(Giver))
def test_what_only_looks_as_if_it_did_is_not(uri: str, giver: Giver) -> None:
    with pytest.raises(ConfigError):
        check_uri(uri, "output", giver)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("root/x", True),
        ("root", True),
        ("root/../secret", False),
        ("root/./x", True),
        ("roots/x", False),
        ("root/link/x", False),
        ("root/inner/x", True),
    ],
)
def test_a_local_path_is_where_its_links_lead(tmp_path: Path, name: str, allowed: bool) -> None:
    (tmp_path / "root" / "link").symlink_to("/etc")
    (tmp_path / "root" / "other").mkdir()
    (tmp_path / "root" / "inner").symlink_to(tmp_path / "root" / "other")
    if allowed:
        check_uri(f"{tmp_path}/{name}", "output")
    else:
        with pytest.raises(ConfigError):
            check_uri(f"{tmp_path}/{name}", "output")


def test_an_id_of_a_run_does_not_lead_upwards_where_the_author_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS")
    with pytest.raises(ConfigError, match="leads upwards"):
        check_uri("s3://bucket/jobs/../x", "output", Giver.RUN)
    check_uri("/home/../data//x", "output", Giver.CODE)


def test_a_root_may_be_a_whole_bucket_and_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS", "s3://aws_default@batches/")
    check_uri("s3://aws_default@batches/in/x.jsonl", "output")
    with pytest.raises(NotAllowedError):
        check_uri("s3://aws_default@batches2/in/x.jsonl", "output")


def test_the_line_to_add_is_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS")
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__OUTPUT_ROOT", ROOT)
    with pytest.raises(NotAllowedError) as caught:
        check_uri("s3://aws_default@batches/elsewhere/x", "output")
    assert f"  allowed_output_roots = {ROOT}, s3://aws_default@batches/elsewhere  (or" in str(caught.value)
