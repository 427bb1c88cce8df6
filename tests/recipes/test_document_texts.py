"""Documents as companies have them, and such as strangers make to do harm."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from airflow_openai_batch.processes.limited_process import LimitedProcess, WorkLimits
from airflow_openai_batch.recipes.qdrant.document_texts import DocumentText, read_document
from fixtures.office_files import make_archive, make_docx, make_email, make_pdf, make_pptx, make_xlsx


def read_all(document: DocumentText) -> str:
    assert not document.problem
    return "\n".join(page.text for page in document.pages)


@pytest.mark.parametrize("compressed", [True, False])
def test_pages_of_a_pdf_have_their_numbers(compressed: bool) -> None:
    data = make_pdf("The valve drips.", "", "The gauge is fine.", compressed=compressed)
    found = read_document("plan.pdf", data)
    assert [(page.number, page.text.strip()) for page in found.pages] == [
        (1, "The valve drips."),
        (3, "The gauge is fine."),
    ]
    assert read_document("named-as.txt", data) == found


def test_slides_and_sheets_have_numbers_as_well() -> None:
    slides = read_document("talk.pptx", make_pptx("First slide", "Second slide"))
    assert [(page.number, "slide" in page.text) for page in slides.pages] == [(1, True), (2, True)]
    sheets = read_document(
        "spares.XLSX", make_xlsx(Valves=[["part", "price"], ["v1", 2.5]], People=[["Zoë"]])
    )
    assert [page.number for page in sheets.pages] == [1, 2]
    assert "## Valves" in sheets.pages[0].text
    assert "| v1 | 2.5 |" in sheets.pages[0].text
    assert "Zoë" in sheets.pages[1].text


def test_a_word_document_is_its_paragraphs() -> None:
    assert (
        read_all(read_document("a.docx", make_docx("Grüße &amp; more", "Second.")))
        == "Grüße & more\n\nSecond.\n"
    )


def test_a_web_page_is_read_without_what_is_not_for_readers() -> None:
    page = (
        "<!doctype html><html><head><title>T</title><style>.dark{}</style><script>var stolen = 1</script></head>"
        "<body><h1>Head</h1><p>Grüße &amp; more</p><!-- hidden --><script>more()</script><noscript>no</noscript>"
        "<ul><li>one</li></ul></body></html>"
    )
    for encoding in ("utf-8", "cp1252", "utf-16"):
        text = read_all(read_document("page.html", page.encode(encoding)))
        assert "# Head" in text
        assert "Grüße & more" in text
        assert not {"dark", "stolen", "hidden", "more()"} & set(text.replace(".", " ").split())
        assert "stolen" not in text


def test_an_email_says_who_wrote_what_and_its_attachments_are_named() -> None:
    text = read_all(read_document("m.eml", make_email(plain="The valve drips.", html="<p>Other</p>")))
    assert "Subject: Grüße" in text
    assert "The valve drips." in text
    assert "Attached: plan.pdf" in text
    assert "the attached one" not in text
    text = read_all(
        read_document("m.EML", make_email(html="<p>It <b>drips</b></p><script>stolen()</script>"))
    )
    assert "It **drips**" in text
    assert "stolen" not in text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", "Über die Küche"),
        ("utf-16", "Über die Küche"),
        ("utf-32", "Über die Küche"),
        ("cp1252", "Die Küche ist groß \u2013 das Gerät läuft. Über Öl steht nichts da."),
        (
            "cp1251",
            "Котёл в подвале требует воды каждый второй месяц, и манометр должен показывать давление.",
        ),
        ("shift_jis", "ボイラーは地下室にあります。二か月ごとに水を入れてください。"),
    ],
)
def test_the_encoding_of_a_text_is_found(encoding: str, text: str) -> None:
    assert read_all(read_document("note.txt", text.encode(encoding))) == text


def test_a_text_with_a_damaged_character_is_read_all_the_same() -> None:
    found = read_document("note.txt", "Über die Küche".encode() + b"\xff, und \xc3")
    assert read_all(found) == "Über die Küche\ufffd, und \ufffd"
    assert found.notice == "was read as utf-8, and some of it is damaged"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("scan.pdf", make_pdf("", ""), "has no text, only pictures of pages"),
        ("broken.pdf", b"%PDF-1.4\nnothing", "cannot be read as PDF"),
        ("a.docx", b"no archive", "is named .docx and is none"),
        ("a.docx", make_archive({"a.txt": "a"}), "is an archive"),
        ("a.docx", b"PK\x03\x04 broken", "is a damaged archive"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "of before 2007, or one with a password"),
        ("a.txt", b"\x89PNG\r\n", "is a picture"),
        ("a.bin", b"\x00\x01\x02\xff" * 300, "is neither text nor a format that is read"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, data: bytes, reason: str) -> None:
    assert reason in read_document(name, data).problem


def test_archives_that_unpack_to_too_much_are_not_unpacked() -> None:
    parts = {"[Content_Types].xml": "", "word/document.xml": ""}
    large = make_archive(parts, claimed_bytes=257 * 2**20)
    assert "bytes unpacked, limit 268,435,456" in read_document("a.docx", large).problem
    many = {"[Content_Types].xml": ""} | {f"word/{n}": "" for n in range(10_001)}
    assert "has 10,002 parts, limit 10,000" in read_document("a.docx", make_archive(many)).problem


def test_entities_reach_no_file_and_do_not_multiply(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key of the cellar")
    outside = f'<!DOCTYPE d [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>'
    assert "key of the cellar" not in str(read_document("a.docx", make_docx("&e;", doctype=outside)))
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
    laughs = f'<!DOCTYPE d [<!ENTITY e0 "ha">{levels}]>'
    found = read_document("a.docx", make_docx("&e8;", doctype=laughs))
    assert len(str(found)) < 10_000


@pytest.mark.long
def test_a_document_that_takes_too_long_is_given_up_and_the_next_one_is_read() -> None:
    lines = ") Tj 0 -12 Td (".join(f"Line {n} of a page that goes on and on." for n in range(60))
    process = LimitedProcess(
        "recipes.qdrant.document_texts:open_extraction", limits=WorkLimits(cpu_s=1, memory_bytes=2 * 2**30)
    )
    items = [("long.pdf", make_pdf(*[lines] * 2_000)), ("short.pdf", make_pdf("The valve drips."))]
    with contextlib.closing(process):
        late, read = process.map([msgspec.msgpack.encode(item) for item in items])
    assert str(late) == "takes more than 1 seconds, the limit"
    assert isinstance(read, bytes)
    assert "The valve drips." in read_all(msgspec.msgpack.decode(read, type=DocumentText))
