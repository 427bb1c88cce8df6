"""A preparation: every row has its place, every request its file, and a second try changes nothing."""

from __future__ import annotations

import base64
import csv
import gc
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_openai_batch.errors import (
    ConfigError,
    EmptyInputError,
    InputChangedError,
    InputError,
    JobExistsError,
    UnreadableInputError,
)
from airflow_openai_batch.storage.location import resolve_plain
from airflow_openai_batch.tables.join.join_table import join_answers
from airflow_openai_batch.tables.preparation import image_check, read_manifest, request_files
from airflow_openai_batch.tables.preparation.content_hashes import SeenContents
from airflow_openai_batch.tables.preparation.pictures import find_below
from airflow_openai_batch.tables.prompts.templates import BadRowError
from fixtures.prepared import ask, embed, prepare, read_reasons, read_requests, read_rows
from fixtures.split_input import read_shards, split


def write_csv(path: Path, rows: list[list[Any]], header: str = "id,text") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "in.csv", [["a", "good"], ["b", ""], ["c", "bad"], ["d", "good"]])


def test_every_row_knows_the_request_that_answers_it(table: Path, tmp_path: Path) -> None:
    made = prepare(table, tmp_path / "out", ask())
    requests = read_requests(tmp_path / "out")
    assert [(line["custom_id"], line["body"]["messages"][0]["content"]) for line in requests] == [
        ("row-0", "Good? good"),
        ("row-2", "Good? bad"),
        ("row-3", "Good? good"),
    ]
    assert read_rows(tmp_path / "out") == [
        row | {"_row": number, "_index": 0}
        for number, row in enumerate(
            [
                {"id": "a", "text": "good", "_custom_id": "row-0", "_position": 0, "_reason": None},
                {"id": "b", "text": None, "_custom_id": None, "_position": None}
                | {"_reason": "user: column 'text' is empty"},
                {"id": "c", "text": "bad", "_custom_id": "row-2", "_position": 1, "_reason": None},
                {"id": "d", "text": "good", "_custom_id": "row-3", "_position": 2, "_reason": None},
            ]
        )
    ]
    assert read_reasons(tmp_path / "out") == {1: "user: column 'text' is empty"}
    counts = made.manifest.counts
    assert (counts.rows, counts.requests, counts.rejected, counts.duplicates) == (4, 3, 1, 0)
    assert made.manifest.columns == ("id", "text")


def test_the_split_takes_it_and_its_positions_are_the_same(table: Path, tmp_path: Path) -> None:
    prepare(table, tmp_path / "out", ask())
    plan = split(tmp_path / "out" / "requests-*.jsonl", tmp_path / "job").plan
    lines = read_shards(plan, tmp_path / "job")[0]
    found = {json.loads(line.line)["custom_id"]: line.position for line in lines}
    rows = read_rows(tmp_path / "out")
    assert found == {row["_custom_id"]: row["_position"] for row in rows if row["_custom_id"]}


def test_equal_requests_are_sent_once_and_answer_all_their_rows(table: Path, tmp_path: Path) -> None:
    made = prepare(table, tmp_path / "out", ask(custom_id="{{ id }}"), dedupe=True)
    assert [line["custom_id"] for line in read_requests(tmp_path / "out")] == ["a", "c"]
    assert [(row["_custom_id"], row["_position"]) for row in read_rows(tmp_path / "out")] == [
        ("a", 0),
        (None, None),
        ("c", 1),
        ("a", 0),
    ]
    assert made.manifest.counts.duplicates == 1


@pytest.mark.parametrize("dedupe", [False, True])
def test_embeddings_with_several_rows_in_a_request(tmp_path: Path, dedupe: bool) -> None:
    texts = ["a", "b", "", "c", "b", "d", "e"]
    table = write_csv(tmp_path / "in.csv", [[n, text] for n, text in enumerate(texts)])
    made = prepare(table, tmp_path / "out", embed(rows_per_request=2), dedupe=dedupe)
    requests = read_requests(tmp_path / "out")
    inputs = [line["body"]["input"] for line in requests]
    assert inputs == ([["a", "b"], ["c", "d"], ["e"]] if dedupe else [["a", "b"], ["c", "b"], ["d", "e"]])
    for text, row in zip(texts, read_rows(tmp_path / "out"), strict=True):
        if not text:
            assert row["_position"] is None
            continue
        request = requests[row["_position"]]
        assert request["body"]["input"][row["_index"]] == text
        assert request["custom_id"] == row["_custom_id"]
    assert made.manifest.counts.duplicates == (1 if dedupe else 0)


def test_an_embedding_request_never_has_more_tokens_than_it_may(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", [[n, f"{n} " + "word " * 5_000] for n in range(30)])
    prepare(table, tmp_path / "out", embed(rows_per_request=30))
    sizes = [sum(map(len, line["body"]["input"])) for line in read_requests(tmp_path / "out")]
    assert len(sizes) == 3
    assert max(sizes) <= 300_000


def test_files_are_cut_and_positions_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_files, "ROW_FILE_ROWS", 3_000)
    monkeypatch.setattr(request_files.RequestWriter.__init__, "__kwdefaults__", {"file_bytes": 300_000})
    table = write_csv(tmp_path / "in.csv", [[n, f"text {n}"] for n in range(7_000)])
    manifest = prepare(table, tmp_path / "out", ask()).manifest
    assert [note.items for note in manifest.rows] == [2_000, 2_000, 3_000]
    assert len(manifest.requests) > 3
    assert max(note.bytes for note in manifest.requests) <= 300_000
    assert sum(note.items for note in manifest.requests) == 7_000
    assert [note.name for note in manifest.requests[:2]] == ["requests-00000.jsonl", "requests-00001.jsonl"]
    requests = read_requests(tmp_path / "out")
    for row in read_rows(tmp_path / "out"):
        assert requests[row["_position"]]["body"]["messages"][0]["content"] == f"Good? {row['text']}"


def test_ids_of_ones_own_must_be_unique(table: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"rows 0 and 3: both have the custom_id \"good\", which must be unique"
    ):
        prepare(table, tmp_path / "out", ask(custom_id="{{ text }}"))
    assert read_manifest(resolve_plain(str(tmp_path / "out"))) is None


def test_a_second_run_uses_what_is_there(table: Path, tmp_path: Path) -> None:
    first = prepare(table, tmp_path / "out", ask())
    before = (tmp_path / "out" / "requests-00000.jsonl").read_bytes()
    second = prepare(table, tmp_path / "out", ask())
    assert (first.created, second.created) == (True, False)
    assert second.manifest == first.manifest
    assert (tmp_path / "out" / "requests-00000.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spec": ask(version=2)}, r"the prompt \(was ask version 1, now ask version 2\)"),
        ({"spec": ask(model="gpt-5.4-mini")}, r"the model \(was gpt-4o-mini, now gpt-5.4-mini\)\."),
        ({"spec": ask(user="Other? {{ text }}")}, "what the prompt ask says, under the same version 1"),
        ({"dedupe": True}, "dedupe or images_root"),
        ({"text": "a,b\n1,2\n"}, "the source"),
    ],
)
def test_a_second_run_with_something_else_is_refused(
    table: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    prepare(table, tmp_path / "out", ask())
    if "text" in change:
        table.write_text("id,text\n1,other\n")
    settings = {"spec": ask(), **{key: value for key, value in change.items() if key != "text"}}
    with pytest.raises(InputChangedError, match=rf"since then changed: {named}.*on_existing=restart"):
        prepare(table, tmp_path / "out", **settings)
    made = prepare(table, tmp_path / "out", on_existing="restart", **settings)
    assert made.created
    with pytest.raises(JobExistsError, match="was prepared already"):
        prepare(table, tmp_path / "out", on_existing="fail", **settings)


def test_what_an_earlier_try_left_is_not_sent(table: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "rows").mkdir(parents=True)
    for name in ("requests-00007.jsonl", "rows/part-00007.parquet", "mine.txt"):
        (tmp_path / "out" / name).write_text("old")
    prepare(table, tmp_path / "out", ask())
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert names == [
        "manifest.json",
        "mine.txt",
        "rejected.jsonl",
        "requests-00000.jsonl",
        "rows/part-00000.parquet",
    ]


def test_two_tries_at_the_same_time_do_not_mix(table: Path, tmp_path: Path) -> None:
    """A worker that was given up may still be writing."""

    def overtake(_: object) -> None:
        if not (tmp_path / "out" / "manifest.json").exists():
            prepare(table, tmp_path / "out", ask())

    with pytest.raises(UnreadableInputError, match=r"another try of this task meanwhile"):
        prepare(table, tmp_path / "out", ask(), progress=overtake)
    assert len(read_requests(tmp_path / "out")) == 3
    assert prepare(table, tmp_path / "out", ask()).created is False


def test_a_source_that_changes_while_it_is_read(table: Path, tmp_path: Path) -> None:
    def change(_: object) -> None:
        with table.open("a") as file:
            file.write("e,late\n")

    with pytest.raises(InputChangedError, match=r"in.csv: changed while it was read"):
        prepare(table, tmp_path / "out", ask(), progress=change)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_output_below_its_source_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("first")
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "second"}')
    for source in (f"{tmp_path}/in/", f"{tmp_path}/in/**/*.jsonl"):
        output = tmp_path / "in" / str(len(source))
        for created in (True, False):
            assert prepare(source, output, ask()).created is created
        rows = prepare(source, output, ask(), on_existing="restart").manifest.counts.rows
        assert rows == (1 if "*" in source else 2)
        for path in sorted(output.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_images_in_the_table_itself(tmp_path: Path, pictures: Path) -> None:
    data = (pictures / "good.png").read_bytes()
    rows = [{"a": {"bytes": data, "path": "x.png"}}, {"a": {"bytes": None, "path": "good.png"}}, {"a": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    prepare(tmp_path / "in.parquet", tmp_path / "out", show("a"), images_root=pictures)
    first, second = sent_images(tmp_path / "out").values()
    assert base64.b64decode(first.partition(",")[2]) == data
    assert first == second


def test_nothing_to_send(tmp_path: Path) -> None:
    empty = write_csv(tmp_path / "in.csv", [])
    with pytest.raises(EmptyInputError, match=r"in.csv: has no rows. .* set on_empty=skip"):
        prepare(empty, tmp_path / "out", ask())
    made = prepare(empty, tmp_path / "out", ask(), on_empty="commit")
    assert made.manifest.counts.rows == 0
    assert pq.read_schema(tmp_path / "out" / "rows" / "part-00000.parquet").names[:2] == ["id", "text"]


def test_no_row_that_can_be_sent_is_an_error_with_reasons(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", [[n, ""] for n in range(12)])
    with pytest.raises(EmptyInputError) as refused:
        prepare(table, tmp_path / "out", ask())
    message = str(refused.value).splitlines()
    assert message[0] == "12 rows of 12 cannot be sent; nothing was prepared. Mend them, or the prompt."
    assert message[1] == "  row 0: user: column 'text' is empty."
    assert message[-1] == "  ... and 2 more"


def test_bad_rows_can_be_an_error(table: Path, tmp_path: Path) -> None:
    with pytest.raises(EmptyInputError, match=r"1 row of 4 cannot be sent; .* or set on_bad_row=reject"):
        prepare(table, tmp_path / "out", ask(), on_bad_row="fail")
    with pytest.raises(
        EmptyInputError, match=r"1 row of 4 cannot be sent; .* max_rejected_fraction=0.2 allows"
    ):
        prepare(table, tmp_path / "out", ask(), max_rejected_fraction=0.2)
    assert prepare(table, tmp_path / "out", ask(), max_rejected_fraction=0.25).manifest.counts.rejected == 1


def test_directories_that_cannot_be_used(table: Path, tmp_path: Path) -> None:
    prepare(table, tmp_path / "out", ask())
    split(tmp_path / "out" / "requests-*.jsonl", tmp_path / "job")
    with pytest.raises(ConfigError, match=r"job: is a job directory. Prepare into one of its own"):
        prepare(table, tmp_path / "job", ask())
    with pytest.raises(ConfigError, match=r"cannot stand in output_uri"):
        prepare(table, tmp_path / "out[1]", ask())
    with pytest.raises(InputError, match=r"has a column '_row', which the row map needs"):
        prepare(tmp_path / "out" / "rows" / "part-00000.parquet", tmp_path / "again", ask())


def make_image(kind: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(target, kind, **options)
    return target.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    whole = make_image("JPEG", (200, 100))
    (tmp_path / "secret.png").write_bytes(make_image("PNG"))
    files = {
        "good.jpg": whole,
        "good.png": make_image("PNG"),
        "good.webp": make_image("WEBP"),
        "cut.jpg": whole[: len(whole) // 2],
        "cut.png": make_image("PNG")[:-30],
        "text.png": b"no image",
        "empty.png": b"",
        "scan.tiff": make_image("TIFF"),
        "moving.gif": make_image("GIF", save_all=True, append_images=[Image.new("L", (64, 48))]),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    return folder


def show(column: str = "text", **changes: Any) -> Any:
    return ask(user="What is it?", images=[{"column": column, **changes}])


def sent_images(output: Path) -> dict[str, str]:
    """The URL of each request's image, by custom_id."""
    return {
        line["custom_id"]: line["body"]["messages"][0]["content"][1]["image_url"]["url"]
        for line in read_requests(output)
    }


@pytest.mark.parametrize("with_pillow", [True, False])
def test_images_that_cannot_be_read_are_rejected_before_money_is_spent(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_pillow: bool
) -> None:
    if not with_pillow:
        monkeypatch.setattr(image_check, "load_pillow", lambda: None)
    found = prepare(
        f"{pictures}/", tmp_path / "out", show("uri"), images_root=pictures, reading={"format": "files"}
    )
    names = [row["name"] for row in read_rows(tmp_path / "out")]
    reasons = {names[row]: reason for row, reason in read_reasons(tmp_path / "out").items()}
    assert sorted(set(names) - set(reasons)) == ["good.jpg", "good.png", "good.webp"] + (
        ["scan.tiff"] if with_pillow else ["moving.gif"]
    )
    assert reasons["link.png"] == "uri: the image does not lie below images_root"
    assert "empty" in reasons["empty.png"]
    assert "cut off" in reasons["cut.jpg"]
    assert "cut off" in reasons["cut.png"]
    assert found.manifest.counts.rejected == len(reasons)
    url = sent_images(tmp_path / "out")[f"row-{names.index('good.png')}"]
    assert (
        base64.b64decode(url.removeprefix("data:image/png;base64,")) == (pictures / "good.png").read_bytes()
    )


def test_images_are_scaled_down_and_turned_upright(pictures: Path, tmp_path: Path) -> None:
    turned = Image.new("RGB", (300, 100), "red").getexif()
    turned[0x0112] = 6  # the camera lay on its side
    with Image.new("RGB", (300, 100), "red") as image:
        image.save(pictures / "turned.jpg", exif=turned)
    with Image.new("RGBA", (100, 50), (0, 0, 0, 0)) as image:
        image.save(pictures / "clear.png")
    table = write_csv(
        tmp_path / "in.csv", [[n, n] for n in ("turned.jpg", "scan.tiff", "good.webp", "clear.png")]
    )
    prepare(table, tmp_path / "out", show(max_side=60), images_root=pictures)
    sizes = []
    for url in sent_images(tmp_path / "out").values():
        head, _, data = url.partition(",")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            sizes.append((head.split("/")[1].split(";")[0], *image.size))
    assert sizes == [("jpeg", 20, 60), ("jpeg", 60, 45), ("jpeg", 60, 45), ("png", 60, 30)]


def test_what_rows_may_name_as_images(pictures: Path, tmp_path: Path) -> None:
    png = base64.b64encode((pictures / "good.png").read_bytes()).decode()
    values = {
        "https://pictures.example/1.png": None,
        f"data:image/png;base64,{png}": None,
        "good.jpg": None,
        f"{pictures}/good.jpg": None,
        f"file://{pictures}/good.jpg": None,
        "": "column 'text' names no image",
        "../secret.png": "text: the image does not lie below images_root",
        f"{tmp_path}/secret.png": "text: the image does not lie below images_root",
        f"{pictures}-else/x.png": "text: the image does not lie below images_root",
        f"{pictures}/../secret.png": "text: the image does not lie below images_root",
        "s3://bucket/x.png": "text: the image does not lie below images_root",
        "link.png": "text: the image does not lie below images_root",
        "sub": "text: there is no such image file",
        "none.png": "text: there is no such image file",
        "data:image/png;base64,????": "text: the data URL is not valid base64",
        "data:text/html,x": "text: the data URL holds no image in base64",
    }
    table = write_csv(tmp_path / "in.csv", [[n, value] for n, value in enumerate(values)])
    prepare(table, tmp_path / "out", show(), images_root=pictures)
    assert [row["_reason"] for row in read_rows(tmp_path / "out")] == list(values.values())


def test_the_root_of_a_bucket_is_gone_to_by_its_own_connection_only() -> None:
    root = resolve_plain("memory://bucket/pictures")
    root = type(root)(root.fs, root.path, "s3://conn@bucket/pictures")
    for path in ("s3://bucket/pictures/a.png", "s3://conn@bucket/pictures/a.png", "a.png"):
        assert find_below(root, path).path == f"{root.path}/a.png"
    for path in (
        "s3://other@bucket/pictures/a.png",
        "s3://bucket/else/a.png",
        "/etc/passwd",
        "gs://bucket/pictures/a",
    ):
        with pytest.raises(BadRowError, match="does not lie below images_root"):
            find_below(root, path)


def test_files_without_a_declared_root_are_not_read(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", [[1, f"{pictures}/good.png"]])
    with pytest.raises(ConfigError, match="no images_root says where they may lie"):
        prepare(table, tmp_path / "out", show())


def test_image_files_that_are_too_large(pictures: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "in.csv", [[1, "good.jpg"], [2, "https://pictures.example/1.png"]])
    prepare(table, tmp_path / "out", show(max_bytes=100), images_root=pictures)
    (reason,) = read_reasons(tmp_path / "out").values()
    size = (pictures / "good.jpg").stat().st_size
    assert reason == f"text: the image has {size:,} bytes, limit 100. Set max_side to scale images down"


def test_scaling_without_pillow_says_how_to_get_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_check, "load_pillow", lambda: None)
    with pytest.raises(ConfigError, match=r"pip install 'airflow-provider-openai-batch\[images\]'"):
        prepare(f"{pictures}/", tmp_path / "out", show("uri", max_side=60), reading={"format": "files"})


@given(st.lists(st.binary(max_size=2), max_size=300))
def test_contents_seen_before_are_found_with_their_number(contents: list[bytes]) -> None:
    seen, first = SeenContents(), dict[bytes, int]()
    for number, content in enumerate(contents):
        assert seen.find_or_add(content, number) == first.get(content)
        first.setdefault(content, number)


def test_contents_are_found_after_the_table_has_grown() -> None:
    seen = SeenContents()
    for number in range(10_000):
        assert seen.find_or_add(str(number).encode(), number) is None
    assert all(seen.find_or_add(str(number).encode(), 0) == number for number in range(10_000))


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """The most Arrow holds at a time while 20 MB of rows pass; Python's own memory is not in it."""
    path = tmp_path / "in.jsonl"
    with path.open("w") as file:
        file.writelines(
            json.dumps({"text": f"{n} " + "x" * 1_000}) + "\n"
            for n in itertools.islice(itertools.count(), 20_000)
        )
    most = 0

    def note(_: object) -> None:
        nonlocal most
        most = max(most, pa.total_allocated_bytes())

    prepare(path, tmp_path / "out", ask(), progress=note)
    assert 0 < most < 60_000_000


def test_rows_that_all_were_rejected_can_be_kept_with_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,\n2,\n")
    with pytest.raises(EmptyInputError, match="2 rows of 2 cannot be sent"):
        prepare(tmp_path / "in.csv", tmp_path / "out", ask())
    prepared = prepare(tmp_path / "in.csv", tmp_path / "out", ask(), on_none_left="commit", dedupe=True)
    assert (prepared.manifest.counts.rows, prepared.manifest.counts.requests) == (2, 0)
    assert read_reasons(tmp_path / "out") == dict.fromkeys((0, 1), "user: column 'text' is empty")
    again = prepare(tmp_path / "in.csv", tmp_path / "out", ask(), dedupe=True)
    assert not again.created
    place = resolve_plain(str(tmp_path / "out"))
    joined = join_answers(place, None, resolve_plain(str(tmp_path / "t.csv")), format="csv")
    assert joined.statuses == {"rejected": 2}


def test_a_preparation_that_fails_leaves_no_file_open(tmp_path: Path) -> None:
    """What equal requests are compared by goes through a temporary file; warnings are errors here."""
    (tmp_path / "in.csv").write_text("id,text\n1,a\n2,b\n")
    spec = ask(user="{{ text }}{% if id == '2' %}{{ txet }}{% endif %}")
    with pytest.raises(ConfigError, match="needs the column 'txet'"):
        prepare(tmp_path / "in.csv", tmp_path / "out", spec, dedupe=True)
    gc.collect()
