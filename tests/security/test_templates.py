"""Prompts that were made to fill a worker's memory or to keep it busy: typed into the form, and by the dozen."""

from __future__ import annotations

import csv
import resource
import time
from typing import TYPE_CHECKING

import pytest

from airflow_openai_batch.errors import ConfigError, EmptyInputError
from airflow_openai_batch.tables.preparation.renderer import Renderer
from airflow_openai_batch.tables.prompts import filling_apart
from airflow_openai_batch.tables.prompts.filling import Filling
from fixtures.prepared import ask, prepare, read_reasons, read_requests

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_openai_batch.testing import OpenAIServer
    from fixtures.airflow_runs import RunDag

GIGABYTES = [
    "{{ 'x' | center(3 * 10**9) }}",
    "{{ 'x' | center(3000000000) }}",
    "{{ '{:>2000000000}'.format(1) }}",
    "{{ '%2000000000d' % 1 }}",
    "{{ '%2000000000d' | format(1) }}",
    "{{ text | indent(2000000000, true) }}",
    "{{ (text * 400000) | replace('x', 'y' * 1000000) }}",
    "{% set ns = namespace(s='x') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{{ " + "text" + " | tojson" * 40 + " }}",
]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("table") / "in.csv"
    path.write_text('n,text\n1,"x"""\n')
    return path


@pytest.mark.long
def test_templates_that_build_gigabytes_reject_their_rows(table: Path, tmp_path: Path) -> None:
    """All at once, as one prompt a line: the row is rejected, and this process never holds a gigabyte."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, template in enumerate(GIGABYTES):
        with pytest.raises(
            EmptyInputError, match="filling in the templates takes more than 512 MB of memory"
        ):
            prepare(table, tmp_path / str(number), ask(user=template))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 300_000, "kilobytes"


def test_only_the_rows_that_are_too_much_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"width": {width}}}\n' for width in (3, 3 * 10**9, 4)))
    prepare(tmp_path / "in.jsonl", tmp_path / "out", ask(user="{{ 'x' | center(width) }}|"))
    assert [line["body"]["messages"][-1]["content"] for line in read_requests(tmp_path / "out")] == [
        " x |",
        " x  |",
    ]
    assert read_reasons(tmp_path / "out") == {
        1: "filling in the templates takes more than 512 MB of memory, the limit"
    }


def test_a_template_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling_apart, "MAX_OVERDUE_ROWS", 2)
    (tmp_path / "in.csv").write_text("text\n" + "x\n" * 50)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ConfigError, match="for 2 rows filling them in takes more than 2 seconds, the limit"):
        prepare(tmp_path / "in.csv", tmp_path / "out", ask(user=endless))


def test_nothing_is_worked_out_before_a_limit_holds() -> None:
    """Jinja2 works out constants while it compiles."""
    started = time.process_time()
    for template in (*GIGABYTES, "{{ 9 ** 9 ** 9 ** 9 }}", "{% if 'x' | center(3000000000) %}a{% endif %}"):
        assert Renderer(ask(user=template), ["n", "text"]) is not None
    assert time.process_time() - started < 2


HARMLESS = [
    "{{ text }} of {{ n }}: {{ row['a b'] | trim | upper }} {{ row | tojson }}",
    "{% for name, value in row.items() %}{{ name }}: {{ value }}; {% endfor %}",
    "{% for tag in tags %}{{ loop.index }}. {{ tag.name | title }} of {{ text }}{% endfor %}",
    "{% if n > 3 and text is defined %}{{ tags | map(attribute='name') | join(', ') }}{% endif %}",
]
GROWING = [
    "{{ text | replace('a', text) }}",
    "{{ text | replace('', 'x' ~ text) }}",
    "{{ text.replace('a', text) }}",
    "{{ tags | join(text) }}",
    "{{ tags | map('replace', 'a', text) | list }}",
    "{{ text | tojson | tojson | tojson }}",
    "{{ " + " ~ ".join(["text"] * 9) + " }}",
    "{{ text" + " }}{{ text" * 200 + " }}",
    "{% for a in tags %}{% for b in tags %}x{% endfor %}{% endfor %}",
    "{% for a in tags %}{{ (row | tojson)[:0] }}{% endfor %}",
    "{% for a in tags %}{% if text == a %}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}{{ text }}{% endfor %}",
    "{% for a in tags recursive %}{{ loop(tags) }}{% endfor %}",
    "{% macro m(a) %}{{ m(a ~ a) }}{% endmacro %}{{ m(text) }}",
    "{% set a = text ~ text %}{{ a }}",
    "{% filter indent(99999999) %}{{ text }}{% endfilter %}",
    "{{ n ** n }}",
    "{{ text % n }}",
    "{{ text | wordwrap(1) }}",
    "{{ text | urlize }}",
    "{{ text.format(n) }}",
    "{{ text.ljust(999999999) }}",
]


@pytest.mark.parametrize("template", [*HARMLESS, *GROWING])
def test_which_templates_need_limits(template: str) -> None:
    assert Filling({"user": template}, ["text", "n", "tags"]).is_harmless is (template in HARMLESS)


@pytest.mark.parametrize(
    "template", ["{{ " + "(" * 5_000 + "n" + ")" * 5_000 + " }}", "{{ n }}" + "x" * 1_000_001]
)
def test_templates_beyond_their_bounds_are_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"nested too deeply|has 1,000,008 characters, limit 1,000,000"):
        Renderer(ask(user=template), ["n"])


@pytest.mark.usefixtures("openai_conn")
def test_a_form_with_such_a_prompt_ends_with_the_limit(
    run_dag: RunDag, openai_server: OpenAIServer, tmp_path: Path
) -> None:
    """Through the form, as whoever may trigger the DAG would try it."""
    conf = {
        "prompt": "{{ 'x' | center(3 * 10**9) }}",
        "output_uri": f"file://{tmp_path}/out",
        "poll_interval": 0.1,
    }
    run_dag("openai_batch_table", conf)
    with (tmp_path / "out" / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["answer_status"] for row in rows} == {"rejected"}
    assert {row["answer_error"] for row in rows} == {
        "filling in the templates takes more than 512 MB of memory, the limit"
    }
    assert not openai_server.books.billed["batch"]
