"""Image files before they are paid for: whole, upright, of a kind that OpenAI reads, not larger than it must be."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.storage.first_bytes import find_image_type
from airflow_openai_batch.tables.preparation.image_formats import describe_unread, find_formats, load_pillow
from airflow_openai_batch.tables.preparation.image_turns import check_one_picture, encode, find_turn
from airflow_openai_batch.tables.prompts.templates import BadRowError

Size = tuple[int, int]

_ENDS = {"image/png": b"IEND\xaeB`\x82", "image/jpeg": b"\xff\xd9", "image/gif": b";"}
_TAIL_BYTES = 1_024
"""Some cameras and editors write a little behind the end of the image."""
MAX_PIXELS = 89_478_485
"""Of an image, decoded: some 360 MB. Pillow's own limit, which it only warns of up to twice as many."""
_LARGE_PIXELS = 25_000_000
"""Of an image that is decoded while no other large one is: several of the largest would take gigabytes."""
_MOST_READ_BYTES = 200_000_000
"""Of a file that may become smaller: scans come uncompressed."""

_large = threading.Lock()


class ImageCheck:
    """Checks the files of one image column, turns them upright, makes others what OpenAI reads, and scales them down
    where that is asked for or takes nothing from what the model sees.

    With Pillow every pixel is decoded, so a file that was cut off or damaged does not get through; without it,
    beginning and end are looked at, and files go out as they are.

    :param max_side: pixels of the longer side.
    :param find_seen: without ``max_side``, the size at which the model looks at an image of a size.
    :raises ConfigError: if they are to be scaled and Pillow is not installed.
    """

    def __init__(
        self, *, max_side: int | None, max_bytes: int, find_seen: Callable[[Size], Size] | None = None
    ) -> None:
        self._max_side = max_side
        self._max_bytes = max_bytes
        self._find_seen = find_seen
        self._pillow = load_pillow()
        self._formats = [] if self._pillow is None else find_formats(self._pillow)
        if max_side is not None and self._pillow is None:
            raise ConfigError(
                "images.max_side needs Pillow: pip install 'airflow-provider-openai-batch[images]' on the workers."
            )

    @property
    def most_read_bytes(self) -> int:
        """Of a file; a larger one is not worth reading."""
        return self._max_bytes if self._pillow is None else _MOST_READ_BYTES

    @property
    def way_out(self) -> str:
        """What helps where an image is too large."""
        return "Raise max_bytes" if self._max_side else "Set max_side to scale images down"

    def check(self, data: bytes) -> tuple[str, bytes]:
        """The media type and the bytes to send.

        :raises BadRowError: if it is no image that OpenAI could read.
        """
        kind = find_image_type(data)
        if not data:
            raise BadRowError("the image file is empty")
        if self._pillow is not None:
            kind, data = self._decode(self._pillow, kind, data)
        elif kind is None:
            raise BadRowError(describe_unread(data, []))
        else:
            _check_ends(kind, data)
        if len(data) > self._max_bytes:
            raise BadRowError(f"the image has {len(data):,} bytes, limit {self._max_bytes:,}. {self.way_out}")
        return kind, data

    def _decode(self, pillow: Any, kind: str | None, data: bytes) -> tuple[str, bytes]:
        is_open = False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pillow.DecompressionBombWarning)
                warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
                with pillow.open(io.BytesIO(data), formats=self._formats) as image:
                    is_open = True
                    _check_size(image)
                    check_one_picture(image, kind)
                    return self._take(image, kind, data)
        except (pillow.DecompressionBombWarning, pillow.DecompressionBombError):
            raise BadRowError(f"the image has more than {MAX_PIXELS:,} pixels, the limit") from None
        except BadRowError:
            raise
        except Exception as error:  # what Pillow raises for damaged files is not listed anywhere
            if kind is None and not is_open:
                raise BadRowError(describe_unread(data, self._formats)) from None
            raise BadRowError(f"the image is damaged or cut off ({type(error).__name__})") from None

    def _take(self, image: Any, kind: str | None, data: bytes) -> tuple[str, bytes]:
        size: Size = image.size
        wanted = self._find_wanted(size)
        if wanted != size:
            # JPEG: decodes at a half, a quarter or an eighth where that is enough.
            image.draft("RGB", wanted)
        with _alone_if_large(image.size):
            image.load()
            turn = find_turn(image)
            if kind is not None and turn is None and wanted == size:
                return kind, data
            if image.size != size and wanted == size:  # a format that turns itself
                wanted = image.size
            made = encode(image, turn, wanted)
        is_asked_for = kind is None or turn is not None or self._max_side is not None
        return made if is_asked_for or len(made[1]) < len(data) else (kind or made[0], data)

    def _find_wanted(self, size: Size) -> Size:
        """A box that it is to fit into, of its own shape."""
        if self._max_side is not None:
            scale = min(1.0, self._max_side / max(size))
            return size if scale == 1 else (self._max_side, self._max_side)
        return size if self._find_seen is None else self._find_seen(size)


@contextlib.contextmanager
def _alone_if_large(size: Size) -> Iterator[None]:
    if size[0] * size[1] <= _LARGE_PIXELS:
        yield
        return
    with _large:
        yield


def _check_size(image: Any) -> None:
    """Pillow's own check is a warning, which another thread may have silenced."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadRowError(f"the image has more than {MAX_PIXELS:,} pixels, the limit")


def _check_ends(kind: str, data: bytes) -> None:
    if kind == "image/webp":
        whole = len(data) >= int.from_bytes(data[4:8], "little") + 8
    else:
        whole = _ENDS[kind] in data[-_TAIL_BYTES:]
    if not whole:
        raise BadRowError("the image is cut off")
