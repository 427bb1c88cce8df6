"""Draws the sample photographs of CD covers: ``python include/samples/cd_covers/draw_covers.py``.

Bands, titles and labels are made up. Each picture carries what is printed on it as its PNG text "Description", the
way photographs carry captions: the emulator, which has no eyes, reads that; a model reads the picture.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

FOLDER = Path(__file__).resolve().parent / "photos"
SIDE = 320
CUT_OFF = "scan_013.png"
"""Half a file, as a camera with an empty battery leaves it."""

COVERS: list[dict[str, Any]] = [
    {
        "title": "Harbour Lights",
        "artist": "The Paper Lanterns",
        "year": "1994",
        "label": "Tidewater Records",
        "catalogue_number": "TW 1042",
        "confidence": 0.97,
    },
    {
        "title": "NORTHBOUND",
        "artist": "IRON ORCHARD",
        "year": "1987",
        "label": "Foundry",
        "catalogue_number": "fdr 7 21",
        "confidence": 0.95,
    },
    {
        "title": "Quartets Nos. 3 & 5",
        "artist": "Meridian String Quartet",
        "year": "2003",
        "label": "Cantabile",
        "catalogue_number": "CAN 9931-2",
        "confidence": 0.93,
    },
    {
        "title": "Slow  Weather",
        "artist": "Glasshouse Four",
        "year": "2011",
        "label": "Low Tide",
        "catalogue_number": "LT019",
        "confidence": 0.9,
    },
    {
        "title": "Machines for Rain",
        "artist": "Copper Antenna",
        "year": "(P) 1999 (C) 2001",
        "label": "Ohm",
        "catalogue_number": "OHM-33",
        "confidence": 0.92,
    },
    {  # the same CD once more, from a shelf that was photographed twice
        "title": "Machines for Rain",
        "artist": "Copper Antenna",
        "year": "2001",
        "label": "Ohm",
        "catalogue_number": "OHM 33",
        "confidence": 0.81,
    },
    {
        "title": "Live at the Granary",
        "artist": "Paper Lanterns, The",
        "year": "1996",
        "label": "Tidewater",
        "catalogue_number": "TW 1077",
        "confidence": 0.94,
    },
    {
        "title": "Evening Hymns",
        "artist": "Old Mill Choir",
        "year": "MCMXC",
        "label": "Cloister",
        "catalogue_number": "CLO 12",
        "confidence": 0.88,
    },
    {
        "title": "n/a",
        "artist": "unknown",
        "year": None,
        "label": None,
        "catalogue_number": None,
        "confidence": 0.2,
    },
    {  # a year of the LP, before there were CDs
        "title": "Tape Gardens",
        "artist": "Velvet Turbine",
        "year": "1974",
        "label": "Parallel",
        "catalogue_number": "PAR 5",
        "confidence": 0.91,
    },
    {  # in no catalogue
        "title": "Songs for a Tuesday",
        "artist": "Attic Club",
        "year": "2019",
        "label": None,
        "catalogue_number": None,
        "confidence": 0.86,
    },
    {
        "title": "Blue Ledger",
        "artist": "Iron Orchard",
        "year": "1990",
        "label": "Foundry",
        "catalogue_number": "FDR 9 04",
        "confidence": 0.96,
    },
]
GROUNDS = ["#23395b", "#8c2f39", "#f2e8cf", "#4f772d", "#3d348b", "#3d348b", "#bc6c25", "#e9d8a6"]
INKS = {"#f2e8cf": "#1b1b1e", "#e9d8a6": "#1b1b1e"}


def draw_cover(cover: dict[str, Any], number: int) -> Image.Image:
    """A ground, a shape or two, and the words."""
    ground = GROUNDS[number % len(GROUNDS)]
    ink = INKS.get(ground, "#ffffff")
    image = Image.new("RGB", (SIDE, SIDE), ground)
    draw = ImageDraw.Draw(image)
    middle, size = SIDE // 2, 40 + 6 * number
    if number % 3 == 0:
        draw.ellipse([middle - size, middle - size, middle + size, middle + size], outline=ink, width=5)
    elif number % 3 == 1:
        draw.polygon(
            [(middle, middle - size), (middle + size, middle + size), (middle - size, middle + size)],
            outline=ink,
            width=5,
        )
    else:
        for at in range(5):
            draw.line([(30, 130 + 14 * at), (SIDE - 30, 120 + 14 * at)], fill=ink, width=3)
    draw.text((20, 18), cover["artist"], fill=ink, font=ImageFont.load_default(24))
    draw.text((20, 54), cover["title"], fill=ink, font=ImageFont.load_default(28))
    edge = "   ".join(str(cover[name]) for name in ("label", "catalogue_number", "year") if cover[name])
    draw.text((20, SIDE - 36), edge, fill=ink, font=ImageFont.load_default(17))
    return image.quantize(8)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for number, cover in enumerate(COVERS):
        words = cover if cover["artist"] != "unknown" else {**cover, "title": "", "artist": ""}
        notes = PngInfo()
        notes.add_text("Description", json.dumps(cover))
        path = FOLDER / f"scan_{number + 1:03d}.png"
        draw_cover(words, number).save(path, optimize=True, pnginfo=notes)
    whole = (FOLDER / "scan_001.png").read_bytes()
    (FOLDER / CUT_OFF).write_bytes(whole[: len(whole) // 2])


if __name__ == "__main__":
    main()
