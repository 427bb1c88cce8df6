"""An error that refuses a place or a connection shows the line that allows it: followed to the letter, it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import conf

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.access.permissions import check_conn_id, check_uri
from airflow_openai_batch.access.settings import SECTION, find_samples
from airflow_openai_batch.errors import ForeignJobError, NotAllowedError
from airflow_openai_batch.operators.task.form_query import check_form_query
from airflow_openai_batch.operators.task.ownership import check_owner
from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from fixtures.airflow_runs import RunDag

PREFIX = "AIRFLOW__OPENAI_BATCH__"
BINDS_ALL = "all DAGs, also what their authors name in code"
BINDING = ("allowed_input_roots", "allowed_output_roots", "allowed_conn_ids")

REFUSED: dict[str, Callable[[], None]] = {
    "input_root": lambda: check_uri("s3://other@bucket/100%25/a.jsonl", "input"),
    "allowed_input_roots": lambda: check_uri("s3://other@bucket/100%25/a.jsonl", "input", Giver.CODE),
    "allowed_output_roots": lambda: check_uri("s3://other@bucket/jobs/", "output", Giver.CODE),
    "allowed_conn_ids": lambda: check_conn_id("finance", Giver.CODE),
    "allowed_sql_conn_ids": lambda: check_form_query("SELECT 1", "finance"),
    "renamed_dags": lambda: check_owner("was/manual__1", "/job", "now"),
}


@pytest.fixture
def config() -> Iterator[Callable[[str], None]]:
    """Add lines to ``airflow.cfg``."""
    yield lambda lines: conf.read_string(f"[{SECTION}]\n{lines}")
    conf.remove_section(SECTION)


def refuse(attempt: Callable[[], None]) -> str:
    with pytest.raises((NotAllowedError, ForeignJobError)) as caught:
        attempt()
    return str(caught.value)


@pytest.mark.parametrize("option", REFUSED)
def test_a_variable_that_is_set_is_what_has_to_be_changed(
    monkeypatch: pytest.MonkeyPatch, config: Callable[[str], None], option: str
) -> None:
    """It wins over the file, where the line would do nothing."""
    variable = f"{PREFIX}{option.upper()}"
    monkeypatch.setenv(variable, "s3://my_aws@bucket/here, theirs")
    said = refuse(REFUSED[option])
    assert "airflow.cfg, in the section" not in said
    found = re.search(
        rf"environment variable {variable}, which is set here .* to:  {variable}='(.*?)'\.", said
    )
    assert found, said
    config(f"{option} = {found[1].replace('%', '%%')}")
    refuse(REFUSED[option])  # as whoever followed the advice of before
    monkeypatch.setenv(variable, found[1])
    REFUSED[option]()


@pytest.mark.parametrize("is_set", [True, False])
@pytest.mark.parametrize("option", REFUSED)
def test_the_line_for_the_file_allows_it(
    airflow_db: None, config: Callable[[str], None], option: str, is_set: bool
) -> None:
    if is_set:
        config(f"{option} = s3://my_aws@bucket/here, theirs")
    elif option in BINDING:
        REFUSED[option]()  # free for code
        return
    said = refuse(REFUSED[option])
    found = re.search(rf"in the section \[openai_batch\]:  ({option} = .*?)(  \(or|\. |\.$)", said)
    assert found, said
    assert ("change this line" in said) == is_set, "a second line of one name is an error of the file"
    config(found[1])
    REFUSED[option]()


@pytest.mark.parametrize("option", REFUSED)
def test_whom_a_list_binds_is_told(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setenv(f"{PREFIX}{option.upper()}", "theirs")
    assert (f"This list binds {BINDS_ALL}" in refuse(REFUSED[option])) == (option in BINDING)


def test_a_list_that_is_proposed_is_told_to_bind_authors_too(airflow_db: None) -> None:
    said = refuse(lambda: check_uri("s3://other@bucket/jobs/a", "output"))
    assert f"This list then binds {BINDS_ALL}" in said
    assert f"This list then binds {BINDS_ALL}" in refuse(lambda: check_conn_id("finance"))
    assert BINDS_ALL not in refuse(lambda: check_uri("s3://other@bucket/in/a", "input"))


@pytest.mark.parametrize("giver", list(Giver))
def test_samples_are_kept_out_by_a_list_and_let_in_by_the_line(
    monkeypatch: pytest.MonkeyPatch, giver: Giver
) -> None:
    variable, samples = f"{PREFIX}ALLOWED_INPUT_ROOTS", find_samples()
    monkeypatch.setenv(variable, "s3://my_aws@bucket/in")
    said = refuse(lambda: check_uri(f"{samples}/documents/", "input", giver))
    assert f"to:  {variable}='s3://my_aws@bucket/in, {samples}'." in said, (
        "the folder of all samples, in one line"
    )
    monkeypatch.setenv(variable, f"s3://my_aws@bucket/in, {samples}")
    check_uri(f"{samples}/video/four_scenes.mp4", "input", giver)


@pytest.mark.usefixtures("openai_conn")
def test_a_link_that_leads_out_is_named_and_where_it_leads_is_not(
    run_dag: RunDag, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Job(tmp_path_factory.mktemp("payroll")).write([chat_line("a")])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link").symlink_to(elsewhere.folder)
    for name in ("in/requests.jsonl", "in/*.jsonl"):
        run = run_dag("openai_batch_one_task", {"input_uri": f"{tmp_path}/sub/link/{name}"})
        said = run.errors("split")
        assert f"{tmp_path}/sub/link is a symbolic link that leads out of file://{tmp_path}, " in said
        assert f"{PREFIX}INPUT_ROOT='file://{tmp_path}, <where the link leads>'" in said
        assert "was named by whoever" not in said
        assert "payroll" not in said


@pytest.mark.usefixtures("openai_conn")
def test_nor_is_it_where_a_file_is_opened_below_an_allowed_place(
    run_dag: RunDag, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = Job(tmp_path_factory.mktemp("payroll")).write([chat_line("a")])
    (tmp_path / "link.jsonl").symlink_to(elsewhere.input)
    run = run_dag("openai_batch_one_task", {"input_uri": f"{tmp_path}/*.jsonl"})
    said = run.errors("split")
    assert f"{tmp_path}/link.jsonl is a symbolic link that leads out of {tmp_path}, " in said
    assert "payroll" not in said


def test_a_link_within_the_place_and_a_way_through_two_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (root / "near").symlink_to("a")
    (root / "a" / "far").symlink_to(tmp_path)
    (tmp_path / "alias").symlink_to(root)
    monkeypatch.setenv(f"{PREFIX}ALLOWED_INPUT_ROOTS", str(root))
    for way in (root, tmp_path / "alias"):
        check_uri(f"{way}/near/x", "input")
        said = refuse(lambda way=way: check_uri(f"file://{way}/near/far/x", "input"))  # type: ignore[misc]
        assert f"{way}/near/far is a symbolic link" in said
    said = refuse(lambda: check_uri(f"{tmp_path}/other/x", "input"))
    assert "symbolic link" not in said
    assert "not below an allowed input root" in said
