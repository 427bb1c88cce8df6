"""The command line as a person, a script and a pipe use it."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import urllib.request

import pytest

from airflow_openai_batch.cli import main
from airflow_openai_batch.cli.app import run
from airflow_openai_batch.job.ledger import Event, ShardLedger
from airflow_openai_batch.job.plan import Plan
from fixtures.prepared_job import PreparedJob
from fixtures.split_input import request_line, write_lines


@pytest.fixture
def good(tmp_path):
    lines = [request_line(f"r{at}", max_tokens=10) for at in range(5)]
    return write_lines(tmp_path / "good.jsonl", lines)


@pytest.fixture
def bad(tmp_path):
    return write_lines(
        tmp_path / "bad.jsonl", [request_line("a"), "{oops", request_line("a"), "", request_line("b")]
    )


def test_validate_is_content_with_good_lines(good, capsys):
    assert run(["validate", str(good)]) == 0
    assert capsys.readouterr().out == "5 requests in 1 file, 0 bad, 0 blank lines.\n"


def test_validate_names_every_bad_line_with_file_and_number(good, bad, capsys):
    assert run(["validate", str(bad), str(good)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in out[:-1]] == ["bad.jsonl:2:", "bad.jsonl:3:"]
    assert out[-1] == "7 requests in 2 files, 2 bad, 1 blank line."


def test_validate_lists_the_same_for_machines(bad, capsys):
    assert run(["validate", str(bad), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["requests"], found["bad"], found["blank"], found["lines"]) == (2, 2, 1, 5)
    assert [line["line_number"] for line in found["bad_lines"]] == [2, 3]


def test_validate_writes_nothing(bad, tmp_path):
    run(["validate", str(bad)])
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_estimate_says_tokens_shards_and_cost_by_model(tmp_path, capsys):
    lines = [
        request_line(f"{model}{at}", model=model, max_tokens=1_000)
        for model in ("gpt-4o-mini", "gpt-x")
        for at in range(4)
    ]
    path = write_lines(tmp_path / "in.jsonl", lines)
    command = ["estimate", str(path), "--max-requests", "2", "--model-price", "gpt-x=1:2", "--json"]
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    known, own = found["models"]
    assert (known["model"], known["requests"], known["shards"]) == ("gpt-4o-mini", 4, 2)
    assert known["batch_usd"] == pytest.approx(known["input_tokens"] * 0.15 / 1e6 / 2)
    assert own["standard_usd"] == pytest.approx(own["input_tokens"] * 1 / 1e6)
    assert own["most_batch_usd"] == pytest.approx((own["input_tokens"] * 1 + 4_000 * 2) / 1e6 / 2)


def test_estimate_in_words_says_what_is_not_known(tmp_path, capsys):
    path = write_lines(tmp_path / "in.jsonl", [request_line(model="gpt-x"), "{"])
    assert run(["estimate", str(path)]) == 1
    said = capsys.readouterr()
    assert "gpt-x" in said.out
    assert "unknown" in said.out
    assert "1 line cannot be sent" in said.err


def test_split_writes_files_that_can_be_uploaded(tmp_path, good, capsys):
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(good.read_bytes().rstrip(b"\n")))
    folder = tmp_path / "shards"
    assert run(["split", str(packed), "--write-files", str(folder), "--max-requests", "2"]) == 0
    files = sorted(folder.iterdir())
    assert [path.name for path in files] == [f"shard-0000{number}.jsonl" for number in range(3)]
    assert b"".join(path.read_bytes() for path in files) == good.read_bytes()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_split_does_not_mix_new_files_with_old(tmp_path, good, capsys):
    command = ["split", str(good), "--write-files", str(tmp_path / "shards")]
    assert run(command) == 0
    assert run(command) == 2
    assert "has 1 shard file already" in capsys.readouterr().err


def test_split_leaves_bad_lines_out_only_where_asked(tmp_path, bad, capsys):
    folder = tmp_path / "shards"
    command = ["split", str(bad), "--write-files", str(folder)]
    assert run(command) == 1
    assert not folder.exists()
    assert "bad.jsonl:2" in capsys.readouterr().err
    assert run([*command, "--on-bad-line", "reject", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["shards"][0]["requests"] == 2
    assert len((folder / "rejected.jsonl").read_text().splitlines()) == 2


def test_report_says_how_far_a_job_has_come(tmp_path, capsys):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}, unfinished=frozenset({1})).write()
    plan = Plan.from_json(job.job.child("plan.json").read_bytes())
    ledger = ShardLedger(job.job.child("state/00001"))
    ledger.append(Event(kind="created", send=1, at=0.0, plan=plan.name, batch_id="batch_1"))
    assert run(["report", str(tmp_path / "job"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["shards"] == {"sent as batch": 1, "done": 1}
    assert (found["rows"], found["unfinished_requests"], found["complete"]) == ({"ok": 4}, 2, False)
    assert run(["report", str(tmp_path / "job")]) == 1
    assert "sent as batch" in capsys.readouterr().out


def test_report_of_a_job_that_is_done_is_good(tmp_path):
    PreparedJob(tmp_path, {"text": list("abc")}).write()
    assert run(["report", str(tmp_path / "job")]) == 0


def test_report_watches_until_the_job_is_done(tmp_path):
    job = PreparedJob(tmp_path, {"text": list("abcdef")}, unfinished=frozenset({1})).write()
    done = job.job.child("state/00000/0001-done.json").read_bytes()
    command = [sys.executable, "-c", "from airflow_openai_batch.cli import main; main()", "report"]
    with subprocess.Popen(
        [*command, str(tmp_path / "job"), "--watch", "--every", "0.05", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["complete"] is False
        job.job.child("state/00001/0001-done.json").write_bytes(done)
        assert json.loads(process.stdout.readlines()[-1])["complete"] is True
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["validate", "{tmp}/none.jsonl"], "there is no such file"),
        (["validate", "{tmp}"], "is a directory"),
        (["report", "{tmp}"], "there is no plan.json"),
        (["report", "{tmp}", "--every", "0"], "must be more than 0"),
        (["report", "nowhere://x"], "cannot be opened"),
        (["estimate", "{tmp}/none.jsonl", "--model-price", "gpt"], "MODEL=IN:OUT"),
        (["estimate", "{tmp}/none.jsonl", "--count-tokens", "so"], "must be auto, exact or bound"),
        (["estimate", "{tmp}/none.jsonl", "--max-requests", "0"], "must be 1 to 50,000"),
        (["split", "{tmp}/none.jsonl"], "--write-files"),
        (["validate"], "INPUT"),
        (["nonsense"], "nonsense"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_says_why(tmp_path, capsys, command, said):
    assert run([word.format(tmp=tmp_path) for word in command]) == 2
    assert said in capsys.readouterr().err


def test_the_emulator_serves_until_it_is_interrupted():
    command = [sys.executable, "-c", "from airflow_openai_batch.cli import main; main()", "emulator"]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        request = urllib.request.Request(f"{url}/batches", headers={"Authorization": "Bearer sk-test"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["object"] == "list"
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert process.returncode == 0


def test_where_typer_is_missing_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "typer" else object())
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "airflow-openai-batch needs typer: pip install 'airflow-provider-openai-batch[cli]'\n"
    )


def test_models_lists_what_is_known_of_those_that_live(capsys):
    assert run(["models"]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["gpt-6-luna"][1:] == ["1,050,000", "128,000", "$0.1", "$0.5", "$0.05", "$0.25", "yes"]
    assert lines["gpt-5.4-mini"][1:8] == ["400,000", "128,000", "$0.75", "$4.5", "$0.375", "$2.25", "yes"]
    assert lines["text-embedding-3-small"][1:3] == ["8,192", "?"]
    assert "gpt-4.1-nano" not in lines
    assert "gpt-5.1-mini" not in lines  # the client names it, as one that is none


def test_models_for_machines_with_those_that_are_gone(capsys):
    assert run(["models", "--all", "--json"]) == 0
    models = {each["model"]: each for each in json.loads(capsys.readouterr().out)["models"]}
    nano = models["gpt-4.1-nano"]
    assert (nano["ends_on"], nano["successor"]) == ("2026-10-23", "gpt-6-luna")
    assert (nano["input_usd"], nano["batch_output_usd"], nano["flex"]) == (0.1, 0.2, False)
    assert (models["gpt-6-luna"]["flex"], models["gpt-6-luna"]["ends_on"]) == (True, None)
    assert next(iter(models)).startswith("gpt-6")


def test_an_estimate_says_at_once_that_a_model_is_gone(tmp_path, capsys):
    path = write_lines(tmp_path / "old.jsonl", [request_line("a", model="gpt-4.1-nano", max_tokens=10)])
    assert run(["estimate", str(path)]) == 0
    told = capsys.readouterr().err
    assert "At OpenAI: gpt-4.1-nano was shut down on 2026-10-23" in told
    assert "Ask gpt-6-luna, for instance." in told
