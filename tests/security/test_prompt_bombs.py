"""A prompt file is data, where a form names it: a few lines of it must not fill the memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.operators.task.prompt_files import load_prompt
from airflow_openai_batch.tables.prompts import read_prompt
from airflow_openai_batch.tables.prompts.spec import MAX_PROMPT_BYTES
from fixtures.bounded_memory import run_bounded

HEAD = "name: x\nmodel: gpt-6-luna\nuser: '{{ text }}'\n"


def multiply(field: str, lines: int = 9) -> str:
    """Each line ten times the one before."""
    made = [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, lines)]
    return "\n".join([f"{HEAD}{field}:", "  a0: &a0 {k: v}", *made, ""])


@pytest.mark.parametrize("field", ["parameters", "response_schema", "notes"])
def test_aliases_that_multiply_are_refused(tmp_path: Path, field: str) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(multiply(field))
    assert file.stat().st_size < 600
    code = """
        from airflow_openai_batch.errors import ConfigError
        from airflow_openai_batch.tables.prompts import read_prompt
        try:
            read_prompt(open(sys.argv[1]).read())
        except ConfigError as error:
            print(error)
        """
    assert "more than 200,000 values with its aliases followed" in run_bounded(code, file, limit_mb=100)


@pytest.mark.parametrize("text", ["parameters: &a {k: *a}\n", f"parameters: {'[' * 5_000}"])
def test_what_holds_itself_or_is_nested_too_deep_is_no_prompt(text: str) -> None:
    with pytest.raises(ConfigError, match="nested too deeply, or holds itself"):
        read_prompt(HEAD + text)


def test_a_file_that_is_too_large_for_a_prompt_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as made:
        made.truncate(2**40)
    with pytest.raises(ConfigError, match=f"limit {MAX_PROMPT_BYTES:,}"):
        load_prompt(str(file), {}, None, Giver.CODE)


def test_an_alias_of_honest_people_is_taken() -> None:
    spec = read_prompt(HEAD + "parameters:\n  a: &a {k: v}\n  b: *a\n")
    assert spec.parameters == {"a": {"k": "v"}, "b": {"k": "v"}}
