"""Draws the sample video, eight seconds in four scenes: ``python include/samples/video/draw_video.py``.

Needs the extra ``video``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image, ImageDraw

PATH = Path(__file__).resolve().parent / "four_scenes.mp4"
SIZE = (256, 144)
RATE = 10
"""Frames per second."""
SCENE_S = 2


def draw_scene(scene: int, at: float) -> Image.Image:
    """One frame.

    :param at: how far the scene is, 0 to 1.
    """
    width, height = SIZE
    grounds = ["#2d50aa", "#46823c", "#be282d", "#141414"]
    image = Image.new("RGB", SIZE, grounds[scene])
    draw = ImageDraw.Draw(image)
    if scene == 0:  # a sun goes up over the sea
        y = height - at * height * 0.8
        draw.ellipse([width * 0.7 - 36, y - 36, width * 0.7 + 36, y + 36], fill="#ebd750")
    elif scene == 1:  # a road through a field, and a white cart
        draw.rectangle([0, height * 0.55, width, height * 0.8], fill="#808080")
        x = at * (width - 70)
        draw.rectangle([x, height * 0.45, x + 70, height * 0.7], fill="#f0f0f0")
    elif scene == 2:  # curtains open
        half = width / 2 * at * 0.7
        draw.rectangle([width / 2 - half, 0, width / 2 + half, height], fill="#f0f0f0")
    else:  # the end: a dot that circles
        x, y = width / 2 + 60 * math.cos(6 * at), height / 2 + 40 * math.sin(6 * at)
        draw.ellipse([x - 26, y - 26, x + 26, y + 26], fill="#e6823c")
    return image


def draw_frames() -> Iterator[Image.Image]:
    count = SCENE_S * RATE
    for scene in range(4):
        for number in range(count):
            yield draw_scene(scene, number / count)


def main() -> None:
    with av.open(str(PATH), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "30"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for image in draw_frames():
            frame = av.VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
