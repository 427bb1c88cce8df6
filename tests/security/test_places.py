"""What whoever triggers a DAG may name: real runs with a form that names what it may not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from fixtures.job import Job, chat_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import FinishedRun, RunDag
    from fixtures.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("openai_conn")

SECRET = "fernet-key-of-the-worker"


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no setting names, with a secret in a file, as text and as a table."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "airflow.cfg").write_text(f"fernet_key = {SECRET}\n" * 20)
    (folder / "table.csv").write_text(f"product,review\nkey,{SECRET}\n")
    (folder / "in.jsonl").write_text(chat_line("a", SECRET) + "\n")
    return folder


def _all_text(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return "".join(path.read_bytes().decode(errors="replace") for path in files)


def _is_refused(run: FinishedRun, task_id: str, option: str, server: OpenAIServer) -> bool:
    """Failed for this reason alone, with the line to add or the variable to change; and nothing was sent."""
    said = run.errors(task_id)
    assert run.state == "failed", said
    variable = f"AIRFLOW__OPENAI_BATCH__{option.upper()}"
    assert f"{variable}=" in said, said
    assert (f"  {option} = " in said) == (variable not in os.environ), said
    assert server.books.billed.total() == 0
    return True


@pytest.mark.parametrize("name", ["", pytest.param("airflow.cfg", marks=pytest.mark.long)])
def test_documents_that_a_form_names_elsewhere_are_not_read(
    run_dag: RunDag, openai_server: OpenAIServer, elsewhere: Path, tmp_path: Path, name: str
) -> None:
    run = run_dag("embed_documents", {"documents": f"{elsewhere}/{name}", "poll_interval": 0.1})
    assert _is_refused(run, "read", "input_root", openai_server)
    assert f"INPUT_ROOT='file://{tmp_path}, {elsewhere}'." in run.errors("read"), "for just that folder"
    assert SECRET not in _all_text(tmp_path)


def test_the_environment_of_the_worker_is_no_document(run_dag: RunDag, openai_server: OpenAIServer) -> None:
    run = run_dag("embed_documents", {"documents": "/proc/self/environ", "poll_interval": 0.1})
    assert _is_refused(run, "read", "input_root", openai_server)


@pytest.mark.parametrize(
    "named", ["{}/", "{}/table.csv", "{}/*.csv", "file://{}/table.csv", "file:///{}/table.csv"]
)
def test_a_table_that_a_form_names_elsewhere_is_not_read(
    run_dag: RunDag, openai_server: OpenAIServer, elsewhere: Path, tmp_path: Path, named: str
) -> None:
    run = run_dag(
        "openai_batch_table", {"source": named.format(elsewhere), "prompt": "{{ row }}", "poll_interval": 0.1}
    )
    assert run.state == "failed"
    assert SECRET not in _all_text(tmp_path)
    assert elsewhere.name in run.errors("prepare")


@pytest.mark.parametrize(
    "named", ["{other}/in.jsonl", "{own}/../{name}/in.jsonl", "{own}/*/in.jsonl", "{own}/in.jsonl"]
)
def test_requests_that_a_form_leads_to_elsewhere_are_not_sent(
    run_dag: RunDag, openai_server: OpenAIServer, elsewhere: Path, tmp_path: Path, named: str
) -> None:
    own = tmp_path / "mine"
    (own / "a").mkdir(parents=True)
    (own / "in.jsonl").symlink_to(elsewhere / "in.jsonl")
    (own / "a" / "in.jsonl").symlink_to(elsewhere / "in.jsonl")
    conf = {
        "input_uri": named.format(other=elsewhere, own=own, name=f"../{elsewhere.name}"),
        "poll_interval": 0.1,
    }
    run = run_dag("openai_batch_one_task", conf)
    assert run.state == "failed"
    assert "in.jsonl" in run.errors("split"), "the file is named"
    assert openai_server.books.billed.total() == 0
    assert SECRET not in _all_text(tmp_path / "manual") if (tmp_path / "manual").exists() else True


@pytest.mark.long
def test_a_link_below_a_prefix_is_a_document_that_cannot_be_read(
    run_dag: RunDag, elsewhere: Path, tmp_path: Path
) -> None:
    guides = tmp_path / "guides"
    guides.mkdir()
    (guides / "own.md").write_text("# Bread\n\nLet it rise.\n")
    (guides / "link.md").symlink_to(elsewhere / "airflow.cfg")
    (guides / "folder").symlink_to(elsewhere, target_is_directory=True)
    run = run_dag("embed_documents", {"documents": f"{guides}/", "poll_interval": 0.1, "queries": []})
    assert run.state == "success", run.failures
    assert SECRET not in _all_text(tmp_path)
    table = run_dag(
        "openai_batch_table", {"source": f"{guides}/", "prompt": "{{ text }}", "poll_interval": 0.1}
    )
    assert table.xcom("prepare", key="counts") == {"rows": 2, "requests": 1, "rejected": 1, "duplicates": 0}
    assert SECRET not in _all_text(tmp_path)


@pytest.mark.parametrize(
    ("dag_id", "task_id", "name"),
    [
        ("openai_batch", "split", "output_uri"),
        ("openai_batch_table", "prepare", "output_uri"),
        ("embed_documents", "read", "output_uri"),
        ("tag_transcripts", "read", "output_uri"),
        ("catalog_cd_images", "list_photos", "output_uri"),
        ("caption_video_frames", "extract_frames", "output_uri"),
        ("drain_request_files", "find_files", "inbox"),
        ("reviews_sentiment_nightly", "find_night", "output_uri"),
        ("reviews_sentiment_followup", "find_days", "output_uri"),
    ],
)
def test_no_form_writes_elsewhere(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    elsewhere: Path,
    tmp_path: Path,
    dag_id: str,
    task_id: str,
    name: str,
) -> None:
    before = sorted(elsewhere.rglob("*"))
    source = Job(tmp_path).write([chat_line("a")]).input
    run = run_dag(
        dag_id, {name: str(elsewhere), **({"input_uri": str(source)} if dag_id == "openai_batch" else {})}
    )
    option = "input_root" if name == "inbox" else "allowed_output_roots"
    assert _is_refused(run, task_id, option, openai_server)
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.parametrize("place", ["link/job", "link", ".books/openai_default", "a/.qdrant/x"])
def test_a_link_below_the_output_root_leads_nowhere_and_our_own_folders_are_no_place_for_jobs(
    run_dag: RunDag, openai_server: OpenAIServer, elsewhere: Path, tmp_path: Path, place: str
) -> None:
    (tmp_path / "link").symlink_to(elsewhere, target_is_directory=True)
    before = sorted(elsewhere.rglob("*"))
    source = Job(tmp_path).write([chat_line("a")]).input
    run = run_dag(
        "openai_batch_one_task", {"input_uri": str(source), "output_uri": f"file://{tmp_path}/{place}"}
    )
    if place.startswith("link"):
        assert _is_refused(run, "split", "allowed_output_roots", openai_server)
    else:  # no line would be right here: what lies in these folders is no form's, whatever is configured
        assert run.state == "failed"
        assert "a folder whose name begins with a dot" in run.errors("split")
    assert openai_server.books.billed.total() == 0
    assert sorted(elsewhere.rglob("*")) == before


@pytest.mark.long
@pytest.mark.parametrize("named", [" {root}/covers", "file://{root}/link#", "file://{root}/link?"])
def test_a_name_of_which_a_client_makes_another_leads_nowhere_else(
    run_dag: RunDag, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    """A blank before a path makes it a relative one; ``#`` and ``?`` at the end of a URI are dropped."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (tmp_path / "link").symlink_to(elsewhere, target_is_directory=True)
    before = sorted(elsewhere.rglob("*"))
    run_dag(
        "catalog_cd_images",
        {"output_uri": named.format(root=tmp_path), "poll_interval": 0.1, "mode": "batch"},
    )
    assert sorted(elsewhere.rglob("*")) == before
    assert not list(work.iterdir())


@pytest.mark.parametrize("link", ["days", "days/2025-06-02/job", "table", "followup"])
def test_a_link_below_the_nights_leads_nowhere(
    run_dag: RunDag, openai_server: OpenAIServer, elsewhere: Path, tmp_path: Path, link: str
) -> None:
    place = tmp_path / "nights" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(elsewhere, target_is_directory=True)
    before = sorted(elsewhere.rglob("*"))
    conf = {"output_uri": str(tmp_path / "nights"), "poll_interval": 0.1, "mode": "realtime"}
    run = run_dag("reviews_sentiment_nightly", {**conf, "day": "2025-06-02"})
    if link == "followup":
        run = run_dag("reviews_sentiment_followup", {"output_uri": conf["output_uri"]})
    assert run.state == "failed"
    assert "symbolic link" in "".join(text for _, _, text in run.failures)
    assert sorted(elsewhere.rglob("*")) == before


def test_what_cannot_be_read_in_an_inbox_holds_up_no_other_file(
    run_dag: RunDag, elsewhere: Path, tmp_path: Path
) -> None:
    """Whoever may drop files into it could otherwise stop the whole of it."""
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    (inbox / "a-link.jsonl").symlink_to(elsewhere / "in.jsonl")
    (inbox / "a-loop.jsonl").symlink_to(inbox / "a-loop.jsonl")
    os.mkfifo(inbox / "a-pipe.jsonl")
    (inbox / os.fsdecode(b"a-\xff.jsonl")).write_text(chat_line("b", "b") + "\n")
    (inbox / "good.jsonl").write_text(chat_line("a", "a") + "\n")
    conf = {"inbox": str(inbox), "poll_interval": 0.1, "mode": "realtime", "min_age": 0}
    run = run_dag("drain_request_files", conf)
    assert run.state == "success", run.failures
    assert [file.name for file in inbox.glob("*.output.jsonl")] == ["good.output.jsonl"]
    assert SECRET not in _all_text(inbox)


def test_the_name_of_a_file_is_no_template(run_dag: RunDag, tmp_path: Path) -> None:
    """What somebody drops into an inbox, or an inbox that a form names, is not rendered with the worker's secrets."""
    inbox = tmp_path / "{{ 6 * 7 }}"
    inbox.mkdir()
    (inbox / "{{ conn.openai_default.password | reverse }}.jsonl").write_text(chat_line("a", "a") + "\n")
    conf = {"inbox": str(inbox), "poll_interval": 0.1, "mode": "realtime", "min_age": 0}
    run = run_dag("drain_request_files", conf)
    assert run.state == "success", run.failures
    name = "{{ conn.openai_default.password | reverse }}"
    assert [file.name for file in inbox.glob("*.output.jsonl")] == [f"{name}.output.jsonl"]
    assert run.labels["split", 0] == f"{name}.jsonl"


@pytest.mark.parametrize("name", ["*", "?*", "b\n", "b.jsonl\nprivate", "b.jsonl\u2028private", "b\x1b[31m"])
def test_the_name_of_a_file_leads_to_no_other(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither to the other files of the inbox, nor to one of the folder that the worker runs in."""
    inbox, here = tmp_path / "inbox", tmp_path / "here"
    inbox.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "private.jsonl").write_text(chat_line("private", SECRET) + "\n")
    (inbox / "b.jsonl").write_text(chat_line("b", "b") + "\n")
    (inbox / f"{name}.jsonl").write_text(chat_line("a", "a") + "\n")
    conf = {"inbox": str(inbox), "poll_interval": 0.1, "mode": "realtime", "min_age": 0}
    run = run_dag("drain_request_files", conf)
    assert run.state == "success", run.failures
    assert [file.name for file in inbox.glob("*.output.jsonl")] == ["b.output.jsonl"]
    assert openai_server.books.calls["POST /v1/chat/completions 200"] == 1
    assert SECRET not in _all_text(inbox)


def test_a_document_whose_name_is_no_text_stops_no_other(run_dag: RunDag, tmp_path: Path) -> None:
    guides = tmp_path / "guides"
    guides.mkdir()
    (guides / "own.md").write_text("# Bread\n\nLet it rise.\n")
    (guides / os.fsdecode(b"a-\xff.md")).write_text("# Mould\n\nLet it go.\n")
    conf = {"source": f"{guides}/", "prompt": "{{ text }}", "poll_interval": 0.1}
    run = run_dag("openai_batch_table", conf)
    assert run.state == "success", run.failures
    assert run.xcom("prepare", key="counts")["requests"] == 1


def test_a_link_within_a_job_directory_does_not_lead_out_of_it(
    run_dag: RunDag, elsewhere: Path, tmp_path: Path
) -> None:
    job = Job(tmp_path).write([chat_line("a")])
    job.output.mkdir()
    (job.output / "results").symlink_to(elsewhere, target_is_directory=True)
    before = sorted(elsewhere.rglob("*"))
    run = run_dag("openai_batch_one_task", job.conf(mode="realtime"))
    assert run.state == "failed"
    assert "symbolic link" in run.errors("shard", map_index=0) + run.errors("split")
    assert sorted(elsewhere.rglob("*")) == before


def test_a_uri_is_compared_part_by_part(
    run_dag: RunDag, s3: ObjectStore, define_connection: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = f"evil-{s3.bucket}"
    httpx.put(f"{s3.endpoint_url}/{evil}", trust_env=False).raise_for_status()
    define_connection("other", **json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"]))
    root = s3.uri("jobs")
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_OUTPUT_ROOTS", root)
    s3.put("in.jsonl", (chat_line("a") + "\n").encode())
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__INPUT_ROOT", s3.uri(""))
    conf = {
        "input_uri": s3.uri("in.jsonl"),
        "output_uri": f"s3://other@{evil}/../{root.removeprefix('s3://')}/x",
    }
    run = run_dag("openai_batch_one_task", conf)
    assert run.state == "failed"
    listing = httpx.get(f"{s3.endpoint_url}/{evil}", trust_env=False).text
    assert "<Key>" not in listing
    assert "'..'" in run.errors("split")


def test_a_form_names_no_connection_but_those_of_the_dag_or_the_list(
    run_dag: RunDag,
    openai_server: OpenAIServer,
    define_connection: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    define_connection("finance", conn_type="openai", password="sk-finance", host=openai_server.base_url)
    conf = Job(tmp_path).write([chat_line("a")]).conf(conn_id="finance", mode="realtime")
    run = run_dag("openai_batch_one_task", conf)
    assert _is_refused(run, "split", "allowed_conn_ids", openai_server)
    assert "allowed_conn_ids = openai_default, finance  " in run.errors("split")
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "openai_default, finance")
    assert run_dag("openai_batch_one_task", conf).state == "success"


@pytest.mark.long
@pytest.mark.parametrize(
    ("dag_id", "task_id", "typed"),
    [
        ("embed_documents", "read", {"qdrant_conn_id": "vault"}),
        ("tag_transcripts", "read", {"qdrant_conn_id": "vault"}),
        ("catalog_cd_images", "find_candidates", {"catalogue_conn_id": "vault"}),
    ],
)
def test_other_connections_of_a_form_are_held_to_the_list_and_to_their_type(
    run_dag: RunDag,
    define_connection: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    dag_id: str,
    task_id: str,
    typed: dict[str, str],
) -> None:
    define_connection("vault", conn_type="aws", login="x", password="p", host="127.0.0.1", port=9)
    conf = {"poll_interval": 0.1, **typed}
    refused = run_dag(dag_id, conf)
    assert "allowed_conn_ids = openai_default, vault  " in refused.errors(task_id), refused.failures
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ALLOWED_CONN_IDS", "openai_default, vault")
    assert "has type 'aws'" in run_dag(dag_id, conf).errors(task_id)


def test_a_task_of_ones_own_hands_the_form_to_no_prompt_file_and_no_job(
    run_dag: RunDag, elsewhere: Path, tmp_path: Path
) -> None:
    from airflow.sdk import DAG, Param, task

    from airflow_openai_batch.answers import iter_answers
    from airflow_openai_batch.operators.task.prompt_files import load_prompt

    (elsewhere / "prompt.yaml").write_text("name: x\nmodel: gpt-4o-mini\nuser: hi\n")
    with DAG(
        "own_tasks",
        schedule=None,
        params={"place": Param(str(elsewhere / "prompt.yaml"), type="string")},
    ) as dag:

        @task
        def read_prompt(params: Any = None) -> str:
            return load_prompt(params["place"], {}, tmp_path).name

        @task
        def read_job(params: Any = None) -> int:
            return len(list(iter_answers(params["place"])))

        read_prompt()
        read_job()

    for typed in ("airflow.cfg", "./../elsewhere/airflow.cfg", f"file://{elsewhere}/airflow.cfg"):
        run = run_dag(dag, {"place": typed})
        assert run.states[("read_prompt", -1)] == "failed"
        assert SECRET not in run.errors("read_prompt")
    run = run_dag(dag, {"place": str(elsewhere / "airflow.cfg")})
    assert "  AIRFLOW__OPENAI_BATCH__INPUT_ROOT=" in run.errors("read_prompt")
    assert "  allowed_output_roots = " in run.errors("read_job")


def test_an_author_names_any_place_without_a_setting(
    run_dag: RunDag, elsewhere: Path, define_connection: Callable[..., str], openai_server: OpenAIServer
) -> None:
    from airflow.sdk import DAG, Param, task

    from airflow_openai_batch.answers import iter_answers
    from airflow_openai_batch.dag_params import make_params
    from airflow_openai_batch.recipes.qdrant.document_files import find_documents
    from airflow_openai_batch.task_group import openai_batch_task_group

    define_connection("team", conn_type="openai", password="sk-t", host=openai_server.base_url)
    with DAG(
        "by_its_author",
        schedule=None,
        params={**make_params(), "place": Param(f"{elsewhere}/{{run_id}}", type="string")},
    ) as dag:
        jobs = [
            openai_batch_task_group(
                name,
                input_uri=f"{elsewhere}/{{{{ 'in' }}}}.jsonl",
                output_uri=where,
                conn_id="team",
                send_mode="realtime",
            )
            for name, where in (
                ("one", f"{elsewhere}/job/{{{{ ds_nodash }}}}"),
                ("two", "{{ params.place }}"),
            )
        ]

        @task
        def use(job: str) -> int:
            return len(list(iter_answers(job)))

        @task
        def look(folder: str) -> int:
            return len(find_documents(folder)[1])

        for each in jobs:
            use(each.job)
        look(str(elsewhere / "airflow.cfg"))

    run = run_dag(dag)
    assert run.state == "success", run.failures
    assert run.xcom("use") == 1
