"""Bad input, by name: the message that a person sees for each."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from airflow_openai_batch.errors import (
    BadLinesError,
    ConfigError,
    EmptyInputError,
    InputChangedError,
    InputError,
)
from airflow_openai_batch.planning.split import Counting
from fixtures.split_input import read_rejected, read_shards, request_line, split, write_lines

GOOD = "".join(f"{request_line(str(number))}\n" for number in range(3)).encode()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl: there is no such file"):
        split(tmp_path / "nowhere.jsonl", tmp_path / "job")


def test_a_file_whose_name_cannot_be_written_down(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(GOOD)
    with pytest.raises(InputError, match=r"caf\\udce9\.jsonl: its name is no UTF-8\. Rename the file"):
        split(tmp_path / "*.jsonl", tmp_path / "job")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a directory. Name the files in it, for instance .*/\*\.jsonl"):
        split(tmp_path, tmp_path / "job")


def test_glob_without_a_match(tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError) as refused:
        split(tmp_path / "*.jsonl", tmp_path / "job")
    assert str(refused.value) == f"{tmp_path}/*.jsonl: no file matches. Set on_empty=skip if that may happen."
    assert split(tmp_path / "*.jsonl", tmp_path / "job", on_empty="skip").plan.sources == ()


def test_a_glob_without_a_match_beside_others_is_said(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    result = split([source, tmp_path / "late" / "*.jsonl"], tmp_path / "job")
    assert result.notices == (f"{tmp_path}/late/*.jsonl: no file matches it.",)


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "is empty"), (b"\n\n", "has no requests, only 2 blank lines")]
)
def test_nothing_in_it(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(EmptyInputError, match=rf"in\.jsonl: {problem}\. Set on_empty=skip"):
        split(tmp_path / "in.jsonl", tmp_path / "job")


CSV = "id,text,stars\n" + "".join(f'{number},"Good, really {number}",5\n' for number in range(20))


@pytest.mark.parametrize("on_bad_line", ["fail", "reject"])
@pytest.mark.parametrize(("content", "kind"), [(CSV, "CSV"), (CSV.replace(",", ";"), "CSV with semicolons")])
def test_a_table_is_told_in_one_sentence(tmp_path: Path, on_bad_line: str, content: str, kind: str) -> None:
    (tmp_path / "in.csv").write_text(content)
    with pytest.raises(InputError) as refused:
        split(tmp_path / "in.csv", tmp_path / "job", on_bad_line=on_bad_line)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/in.csv: no line is JSON; it looks like {kind}. Each line must be")
    assert "on_bad_line" not in message
    assert "really" not in message


def test_where_all_lines_are_bad_rejecting_them_is_no_way_out(tmp_path: Path) -> None:
    lines = [request_line(str(number), method="GET") for number in range(3)]
    with pytest.raises(BadLinesError) as refused:
        split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job")
    assert "method is" in str(refused.value)
    assert "on_bad_line" not in str(refused.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_rejected_line_can_be_looked_up_by_its_bytes(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """By any tool that can seek, however large the file is; the same line twice is one, too."""
    lines = [request_line("a"), "", "bad é", request_line("b"), request_line("a"), "worse"]
    content = b"\xef\xbb\xbf" + "\n".join(lines).encode()
    path = tmp_path / ("in.jsonl" if pack is bytes else "in.jsonl.gz")
    path.write_bytes(pack(content))
    split(path, tmp_path / "job", on_bad_line="reject")
    found = [
        content[line["offset_bytes"] : line["offset_bytes"] + line["length_bytes"]].decode()
        for line in read_rejected(tmp_path / "job")
    ]
    assert found == ["bad é", request_line("a"), "worse"]


@pytest.mark.parametrize("inputs", [[], ["  "]])
def test_nothing_named(tmp_path: Path, inputs: list[str]) -> None:
    with pytest.raises(ConfigError, match="The input is empty: name a JSONL file"):
        split(inputs, tmp_path / "job")


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    path = tmp_path / "secret.jsonl"
    path.write_bytes(GOOD)
    path.chmod(0)
    return path


def test_no_permission(unreadable: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:  # root may read everything: be somebody else
        for folder in (tmp_path, *tmp_path.parents):
            if folder == Path(tempfile.gettempdir()):
                break
            folder.chmod(0o755)
        os.seteuid(65_534)
    try:
        with pytest.raises(InputError, match=r"secret\.jsonl: may not be read. Grant .* read access"):
            split(unreadable, tmp_path / "job")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.parametrize(
    ("name", "pack"), [("in.jsonl.gz", gzip.compress), ("in.jsonl.zst", zstandard.compress)]
)
def test_truncated_compressed_file(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(GOOD * 200)
    path = tmp_path / name
    path.write_bytes(packed[: len(packed) - 9])
    with pytest.raises(InputError, match=rf"{name}: ends too early after .* bytes. It was cut off"):
        split(path, tmp_path / "job", on_bad_line="reject")


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.jsonl.zst"])
def test_compressed_by_its_name_only(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD)
    with pytest.raises(InputError, match=r"damaged within the .* bytes read so far"):
        split(path, tmp_path / "job")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(GOOD), r"is gzip by its content. Call it \.jsonl\.gz"),
        (zstandard.compress(GOOD), r"is zstd by its content. Call it \.jsonl\.zst"),
        (GOOD.decode().encode("utf-16"), "is UTF-16. Convert it to UTF-8"),
        (b"PAR1" + bytes(100), "is a Parquet file"),
        (
            b"[\n" + GOOD.replace(b"\n", b",\n")[:-2] + b"\n]\n",
            "is a JSON array. Write one request per line instead",
        ),
        (b"\xef\xbb\xbf [" + GOOD[:-1], "is a JSON array"),
    ],
)
def test_another_kind_of_file(tmp_path: Path, content: bytes, message: str) -> None:
    """Told at once, even with on_bad_line=reject: the last element of an array looks like a good line."""
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        split(tmp_path / "in.jsonl", tmp_path / "job", on_bad_line="reject")


def test_bom_crlf_and_blank_lines_are_harmless(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n\r\n") + b"\n\n")
    plan = split(tmp_path / "in.jsonl", tmp_path / "job").plan
    assert [line.line_number for line in read_shards(plan, tmp_path / "job")[0]] == [1, 3, 5]
    assert (plan.counts.requests, plan.counts.rejected, plan.counts.blank) == (3, 0, 5)


def test_separators_that_are_no_newlines_do_not_split_a_line(tmp_path: Path) -> None:
    line = request_line("a", "x").replace("x", "one\u2028two\u0085three\x0bfour".replace("\x0b", "\u2029"))
    plan = split(write_lines(tmp_path / "in.jsonl", [line, request_line("b")]), tmp_path / "job").plan
    assert plan.counts.positions == 2


def test_invalid_utf8(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(GOOD + request_line("x").encode().replace(b"Good", b"G\xfcd"))
    with pytest.raises(BadLinesError, match=r"in\.jsonl:4: is not valid UTF-8 \(byte \d+ of the line\)"):
        split(tmp_path / "in.jsonl", tmp_path / "job")


def test_nul_bytes(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(GOOD + bytes(512))
    with pytest.raises(BadLinesError, match=r"in\.jsonl:4: has NUL bytes"):
        split(tmp_path / "in.jsonl", tmp_path / "job")


def test_bad_lines_are_all_counted_and_the_first_ten_named(tmp_path: Path) -> None:
    lines = [request_line(str(number)) if number % 2 else f"bad {number}" for number in range(50)]
    with pytest.raises(BadLinesError) as refused:
        split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job")
    message = str(refused.value)
    assert message.startswith(
        f"25 lines of 50 cannot be sent (all are in {tmp_path}/job/rejected.jsonl); nothing was"
    )
    assert "set on_bad_line=reject" in message
    assert message.count("in.jsonl:") == 10
    assert "in.jsonl:1: is not valid JSON" in message
    assert message.endswith("... and 15 more")
    assert len(read_rejected(tmp_path / "job")) == 25
    assert not (tmp_path / "job" / "plan.json").exists()


def test_duplicates_name_both_lines_over_all_files(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", [request_line("x"), request_line("y"), "", request_line("x")])
    second = tmp_path / "b.jsonl.gz"
    second.write_bytes(
        gzip.compress("\n".join([request_line("z"), request_line("y"), request_line("x")]).encode())
    )
    with pytest.raises(BadLinesError) as refused:
        split([first, second], tmp_path / "job")
    assert str(refused.value).splitlines()[1:] == [
        '  a.jsonl:4: custom_id is that of a.jsonl:1; it must be unique over the whole input (custom_id "x").',
        '  b.jsonl.gz:2: custom_id is that of a.jsonl:2; it must be unique over the whole input (custom_id "y").',
        '  b.jsonl.gz:3: custom_id is that of a.jsonl:1; it must be unique over the whole input (custom_id "x").',
    ]
    plan = split([first, second], tmp_path / "job2", on_bad_line="reject").plan
    kept = [(line.position, line.line_number) for line in read_shards(plan, tmp_path / "job2")[0]]
    assert kept == [(0, 1), (1, 2), (3, 1)]


def test_ids_are_unique_by_content_not_by_spelling(tmp_path: Path) -> None:
    lines = [request_line("é"), request_line("é").replace("\\u00e9", "é"), request_line("e\u0301")]
    with pytest.raises(BadLinesError, match=r"1 line of 3 cannot be sent"):
        split(write_lines(tmp_path / "in.jsonl", lines), tmp_path / "job")


def test_odd_ids_are_shown_so_that_they_do_no_harm(tmp_path: Path) -> None:
    odd = 'say "hi"\n/../' + "x" * 10_240
    with pytest.raises(BadLinesError) as refused:
        split(write_lines(tmp_path / "in.jsonl", [request_line(odd), request_line(odd)]), tmp_path / "job")
    message = str(refused.value)
    assert r'(custom_id "say \"hi\"\n/../xxx' in message
    assert len(message) < 1_000
    assert read_rejected(tmp_path / "job")[0]["custom_id"] == odd


def test_all_lines_bad_is_an_error_even_where_bad_lines_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        EmptyInputError, match=r"in\.jsonl: none of 2 lines can be sent \(all are in .*rejected\.jsonl\)"
    ):
        split(write_lines(tmp_path / "in.jsonl", ["x", "y"]), tmp_path / "job", on_bad_line="reject")


def test_files_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_lines(tmp_path / folder / "in.jsonl", ["bad"]) for folder in ("a", "b")]
    with pytest.raises(BadLinesError) as refused:
        split(paths, tmp_path / "job")
    assert all(f"{path}:1: is not valid JSON" in str(refused.value) for path in paths)


def test_the_same_file_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "in.jsonl", [request_line("a")])
    (tmp_path / "link.jsonl").symlink_to(path)
    for inputs in ([path, path], [path, tmp_path / "*.jsonl"], [path, tmp_path / "link.jsonl"]):
        with pytest.raises(InputError, match=r"stands twice in the input.*would be sent and paid twice"):
            split(inputs, tmp_path / "job")


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "in.jsonl", [request_line(str(number), "x" * 900) for number in range(3_000)]
    )

    def append(_: object) -> None:
        with path.open("a") as file:
            file.write(request_line("late") + "\n")

    with pytest.raises(InputChangedError, match=r"in\.jsonl: changed while it was read"):
        split(path, tmp_path / "job", progress=append)
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "fast"}, "count_tokens='fast': must be auto, exact or bound"),
        ({"counter": "x"}, "counter='x': must be auto, tiktoken or toktok"),
        ({"workers": -1}, "workers=-1: must be 0 to 64"),
    ],
)
def test_settings_that_do_not_exist(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Counting(**settings)  # type: ignore[arg-type]
