"""Frames of a video as pictures, at equal distances: decoded once, written once, one frame in memory."""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, InputError
from airflow_openai_batch.operators.split import make_path_safe
from airflow_openai_batch.recipes.json_rows import Row, read_rows, write_rows
from airflow_openai_batch.storage.sources import describe_file, explained
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location

INDEX = "frames.jsonl"
"""Written last: with it, all frames are there."""
MAX_FRAME_PIXELS = 8_192 * 8_192
"""Of a frame as the video has it: 200 MB as a picture."""
MAX_FRAMES = 100_000
"""Of one video: a day and more at one a second."""
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "dv", "gif", "wav")
"""What a file may be, in FFmpeg's names: what holds its own pictures. A playlist names other files and addresses."""
_NO_PROTOCOL = "none"
"""FFmpeg's name of no protocol at all: the file is handed to it open, and nothing else is to be opened."""
_FOLDER = "frames"
_QUALITY = 85
_PROGRESS_EVERY_S = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which frames, and how large.

    :param every_s: seconds between two of them.
    :param most: so many at most, from the beginning; None for all.
    :param max_side: pixels of the longer side. A model that looks with ``detail: low`` sees 512.
    """

    every_s: float = 1.0
    most: int | None = None
    max_side: int = 512

    def __post_init__(self) -> None:
        if not self.every_s >= 0.04:
            raise ConfigError(f"every_s={self.every_s!r}: must be at least 0.04 s, a frame of usual video.")
        if self.most is not None and self.most < 1:
            raise ConfigError(f"max_frames={self.most!r}: must be at least 1; leave it empty for all.")
        if not 16 <= self.max_side <= 4_096:
            raise ConfigError(f"max_side={self.max_side!r}: must be 16 to 4,096 pixels.")


def extract_frames(video_uri: str, output_uri: str, sampling: Sampling) -> str:
    """Write frames and their index below ``output_uri``, in a directory of this video and sampling.

    Done before, nothing is done again, so that what was asked about the frames stays true.

    :returns: the directory's URI. ``frames.jsonl`` in it has ``frame`` (from 0), ``second`` and ``image``.
    :raises ConfigError: if PyAV is missing.
    :raises InputError: if it is no video that can be read.
    """
    output = open_place(output_uri.rstrip("/"), "output", find_giver_of(output_uri, "output_uri"))
    video = describe_file(open_place(video_uri, "input", find_giver_of(video_uri, "video_uri")))
    seen = f"{video.uri}\n{video.size}\n{video.etag}\n{sampling}"
    mark = hashlib.blake2b(seen.encode(), digest_size=4).hexdigest()
    name = make_path_safe(PurePosixPath(video.location.path).stem)
    place = output.child(f"{name}-{mark}")
    index = place.child(INDEX)
    if index.exists():
        count = sum(1 for _ in read_rows(index, made_by="extract_frames"))
        log.info("%s: %s were there before.", place.uri, number_of(count, "frame"))
    else:
        count = write_rows(index, _write_frames(video.location, place, sampling))
        log.info("%s: %s.", place.uri, number_of(count, "frame"))
    return place.uri


def _write_frames(video: Location, place: Location, sampling: Sampling) -> Iterator[Row]:
    """Each row after its file is there."""
    noted_at = time.monotonic()
    number = 0
    for number, (second, image) in enumerate(_sample(video, sampling), 1):
        if number > MAX_FRAMES:
            raise InputError(
                f"{video.uri}: gives more than {MAX_FRAMES:,} frames, the limit. Take them at a larger distance "
                "(every_s), or only the first (max_frames)."
            )
        image.thumbnail((sampling.max_side, sampling.max_side))
        target = io.BytesIO()
        image.save(target, "JPEG", quality=_QUALITY)
        file = place.child(f"{_FOLDER}/{number - 1:06d}.jpg")
        file.write_bytes(target.getvalue())
        yield {"frame": number - 1, "second": round(second, 3), "image": file.uri}
        if time.monotonic() - noted_at >= _PROGRESS_EVERY_S:
            noted_at = time.monotonic()
            log.info("%s, %.0f s into the video.", number_of(number, "frame"), second)
    if not number:
        raise InputError(f"{video.uri}: has no frame that can be decoded.")


def _sample(video: Location, sampling: Sampling) -> Iterator[tuple[float, Any]]:
    """Seconds from the video's first frame, and the first frame that is not before the wanted time."""
    av = _load_av()
    with explained(video.uri), video.open_read() as file:
        try:
            with av.open(file, options=_decoder_options()) as container:
                if not container.streams.video:
                    raise InputError(f"{video.uri}: has no video stream.")
                stream = container.streams.video[0]
                _check_size(video.uri, stream.codec_context)
                stream.thread_type = "AUTO"
                start: float | None = None
                taken = 0
                for frame in container.decode(stream):
                    at = frame.time or 0.0
                    start = at if start is None else start
                    if at - start < taken * sampling.every_s - 1e-6:
                        continue
                    yield at - start, frame.to_image()
                    # Where a video leaves frames out, the times that were skipped stay skipped.
                    taken = max(taken + 1, int((at - start + 1e-6) // sampling.every_s) + 1)
                    if sampling.most is not None and taken >= sampling.most:
                        return
        except av.error.FFmpegError as error:
            raise InputError(
                f"{video.uri}: cannot be read as a video ({type(error).__name__}). Does it play? Containers that are "
                f"read: {', '.join(CONTAINERS)}; no playlists."
            ) from None


def _decoder_options() -> dict[str, str]:
    """What a stranger's file may make FFmpeg do: decode itself, up to a size."""
    return {
        "format_whitelist": ",".join(CONTAINERS),
        "protocol_whitelist": _NO_PROTOCOL,
        "max_pixels": str(MAX_FRAME_PIXELS),
    }


def _check_size(uri: str, codec: Any) -> None:
    """Before anything is decoded; frames that grow later are refused by the decoder (``max_pixels``)."""
    codec.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    if codec.width * codec.height > MAX_FRAME_PIXELS:
        raise InputError(
            f"{uri}: has frames of {codec.width:,} x {codec.height:,} pixels, limit {MAX_FRAME_PIXELS:,} pixels. Scale "
            "the video down first."
        )


def _load_av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError:
        raise ConfigError(
            "Videos need PyAV: pip install 'airflow-provider-openai-batch[video]' on the workers."
        ) from None
