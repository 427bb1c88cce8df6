"""Photographs as they come out of phones, cameras and scanners, looked at as the model is sent them."""

from __future__ import annotations

import base64
import csv
import io
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_openai_batch.requests.tokens.images import image_tokens, seen_size
from fixtures.prepared import ask, prepare, read_reasons, read_requests

UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns the stored pixels of each EXIF orientation upright. Source: EXIF 2.3, tag 0x0112."""
QUARTERS = ("red", "green", "blue", "white")
"""Of the scene: top left, top right, bottom left, bottom right."""


def draw(size: tuple[int, int] = (97, 61)) -> Image.Image:
    """A scene whose every turn looks different."""
    width, height = size
    scene = Image.new("RGB", size)
    for at, colour in enumerate(QUARTERS):
        corner = (at % 2 * width // 2, at // 2 * height // 2)
        scene.paste(colour, (*corner, corner[0] + width, corner[1] + height))
    return scene


def save(image: Image.Image, kind: str, turn: int = 1, **how: Any) -> bytes:
    """The file of a camera that lay on its side: the pixels as its sensor saw them, and a note."""
    undo = {6: 8, 8: 6}.get(turn, turn)
    method = UPRIGHT[undo]
    stored = image if method is None else image.transpose(method)
    exif = Image.Exif()
    exif[0x0112] = turn
    target = io.BytesIO()
    stored.save(target, kind, **({"exif": exif.tobytes()} if turn != 1 else {}), **how)
    return target.getvalue()


def read_quarters(image: Image.Image) -> tuple[str, ...]:
    """The nearest colour name of each quarter's middle."""
    known = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
    width, height = image.size
    found = []
    for across, down in ((1, 1), (3, 1), (1, 3), (3, 3)):
        pixel: Any = image.convert("RGB").getpixel((width * across // 4, height * down // 4))
        found.append(min(known, key=lambda name: math.dist(known[name], pixel)))
    return tuple(found)


@pytest.fixture
def send(tmp_path: Path) -> Callable[..., dict[str, tuple[str, bytes] | str]]:
    """Prepare requests about files; each one's media type and bytes as sent, or the reason why not."""

    def prepare_files(
        files: dict[str, bytes], *, model: str = "gpt-4o", **image: Any
    ) -> dict[str, tuple[str, bytes] | str]:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        with (tmp_path / "in.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["picture"], *([name] for name in files)])
        spec = ask(user="What is it?", model=model, images=[{"column": "picture", **image}])
        prepare(tmp_path / "in.csv", tmp_path / "out", spec, images_root=folder, on_none_left="commit")
        found: dict[str, tuple[str, bytes] | str] = {}
        reasons = read_reasons(tmp_path / "out")
        sent = {line["custom_id"]: line["body"] for line in read_requests(tmp_path / "out")}
        for number, name in enumerate(files):
            if number in reasons:
                found[name] = reasons[number]
            else:
                url = sent[f"row-{number}"]["messages"][0]["content"][1]["image_url"]["url"]
                head, _, text = url.partition(";base64,")
                found[name] = (head.removeprefix("data:"), base64.b64decode(text))
        return found

    return prepare_files


def look(sent: Any) -> Image.Image:
    assert not isinstance(sent, str), sent
    image = Image.open(io.BytesIO(sent[1]))
    assert image.get_format_mimetype() == sent[0]
    return image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_goes_out_upright_however_the_camera_was_held(send: Any, kind: str) -> None:
    scene = draw()
    sent = send({f"{turn}": save(scene, kind, turn) for turn in UPRIGHT})
    for name, each in sent.items():
        image = look(each)
        assert (name, image.size, read_quarters(image)) == (name, (97, 61), QUARTERS)
        assert image.getexif().get(0x0112, 1) == 1, "a model that turns it would turn it twice"


def test_what_is_upright_goes_out_as_it_is(send: Any) -> None:
    files = {kind: save(draw(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF")}
    assert {name: each[1] for name, each in send(files).items()} == files


def test_notes_of_a_camera_that_cannot_be_read_reject_no_picture(send: Any) -> None:
    broken = save(draw(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40))
    assert send({"a.jpg": broken})["a.jpg"] == ("image/jpeg", broken)


@pytest.mark.parametrize("turn", [1, 6, 3])
def test_pictures_of_phones_and_scanners_are_made_what_the_model_reads(send: Any, turn: int) -> None:
    pillow_heif.register_heif_opener()
    scene = draw((194, 122))
    kinds = {"a.heic": "HEIF", "b.tiff": "TIFF", "c.avif": "AVIF", "d.bmp": "BMP"}
    sent = send({n: save(scene, kind, 1 if kind == "BMP" else turn) for n, kind in kinds.items()})
    for name in kinds:
        image = look(sent[name])
        assert (name, sent[name][0], image.size, read_quarters(image)) == (
            name,
            "image/jpeg",
            (194, 122),
            QUARTERS,
        )


def test_without_the_decoder_of_phones_the_reason_names_it(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow_heif.register_heif_opener()
    files = {"a.heic": save(draw(), "HEIF"), "b.jpg": save(draw(), "JPEG")}
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    sent = send(files)
    assert sent["b.jpg"] == ("image/jpeg", files["b.jpg"])
    assert "is HEIC" in sent["a.heic"]
    assert "pip install 'airflow-provider-openai-batch[heic]'" in sent["a.heic"]


def test_a_heic_that_is_cut_off_is_rejected(send: Any) -> None:
    pillow_heif.register_heif_opener()
    whole = save(draw((400, 300)), "HEIF")
    assert "damaged or cut off" in send({"a.heic": whole[: len(whole) * 2 // 3]})["a.heic"]


def test_pages_of_a_scan_are_not_lost_silently(send: Any) -> None:
    scene = draw()
    small = draw((20, 10))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # "reduced-resolution image"
    sent = send(
        {
            "booklet.tif": save(scene, "TIFF", save_all=True, append_images=[draw((50, 50))]),
            "with_preview.tif": save(scene, "TIFF", save_all=True, append_images=[small]),
        }
    )
    assert "more than one page" in sent["booklet.tif"]
    assert look(sent["with_preview.tif"]).size == (97, 61)


def test_greys_of_sixteen_bits_stay_greys(send: Any) -> None:
    line = b"\0\xc0" * 40 + b"\0\x40" * 40
    image = Image.frombytes("I;16", (80, 40), line * 40)
    target = io.BytesIO()
    image.save(target, "TIFF")
    seen: Any = look(send({"a.tif": target.getvalue()})["a.tif"]).convert("L")
    assert seen.getpixel((20, 20)) == pytest.approx(0xC0, abs=3)
    assert seen.getpixel((60, 20)) == pytest.approx(0x40, abs=3)


@pytest.mark.parametrize(
    ("model", "detail", "size", "expected"),
    [
        ("gpt-4o", "high", (4_032, 3_024), (1_024, 768)),
        ("gpt-4o", "low", (4_032, 3_024), (512, 384)),
        ("gpt-4o", "high", (700, 600), (700, 600)),
        ("gpt-5-mini", "high", (4_032, 3_024), (1_408, 1_056)),
        ("gpt-6-luna", "high", (4_032, 3_024), (4_032, 3_024)),  # its formula is not published
    ],
)
def test_pixels_that_the_model_does_not_look_at_are_not_sent(
    send: Any, model: str, detail: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    whole = save(draw(size), "JPEG")
    sent = send({"a.jpg": whole}, model=model, detail=detail)["a.jpg"]
    seen = look(sent)
    assert seen.size == pytest.approx(expected, abs=12)
    assert read_quarters(seen) == QUARTERS
    assert (sent[1] == whole) == (size == expected)


def test_a_size_that_is_asked_for_counts_more(send: Any) -> None:
    sent = send({"a.jpg": save(draw((3_000, 2_000)), "JPEG")}, max_side=2_500)
    assert look(sent["a.jpg"]).size == (2_500, 1_667)


def header_of(size: tuple[int, int]) -> str:
    head = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + b"".join(side.to_bytes(4, "big") for side in size)
    return "data:image/png;base64," + base64.b64encode(head + bytes(8)).decode()


@given(
    model=st.sampled_from(["gpt-4o", "gpt-4.1-mini", "gpt-5", "o4-mini"]),
    detail=st.sampled_from(["low", "high"]),
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
)
def test_a_smaller_picture_is_not_dearer_and_nothing_is_left_to_take_away(
    model: str, detail: str, size: tuple[int, int]
) -> None:
    seen = seen_size(*size, model=model, low_detail=detail == "low")
    assert seen[0] <= size[0]
    assert seen[1] <= size[1]
    before, after = (image_tokens(header_of(each), detail, model)[0] for each in (size, seen))
    assert after <= before
    if min(size) > 50 and max(size) < 5 * min(size):
        assert after >= 0.85 * before, "it would see less"


def test_a_large_scan_is_read_where_it_is_made_smaller(send: Any) -> None:
    target = io.BytesIO()
    draw((2_600, 2_600)).save(target, "TIFF")  # 20 MB, as scanners write them
    assert len(target.getvalue()) > 20_000_000
    sent = send({"a.tif": target.getvalue()})
    assert look(sent["a.tif"]).size == (768, 768)
