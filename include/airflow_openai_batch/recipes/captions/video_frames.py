"""Frames of a video as pictures, at equal distances: decoded once, written once, one frame in memory."""

from __future__ import annotations

import hashlib
import importlib
import io
import itertools
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
    from airflow_openai_batch.storage.sources import SourceFile

INDEX = "frames.jsonl"
"""Written last: with it, its frames are there."""
_WHOLE = "no_more"
"""A file that says that the video has no more of them. That of earlier releases, ``whole``, lay beside too few frames
of videos that leave some out."""
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
    :param most: so many at most; None for all.
    :param start_s: second of the video to begin at.
    :param max_side: pixels of the longer side. A model that looks with ``detail: low`` sees 512.
    """

    every_s: float = 1.0
    most: int | None = None
    max_side: int = 512
    start_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.every_s >= 0.04:
            raise ConfigError(f"every_s={self.every_s!r}: must be at least 0.04 s, a frame of usual video.")
        if self.most is not None and self.most < 1:
            raise ConfigError(f"max_frames={self.most!r}: must be at least 1; leave it empty for all.")
        if not 16 <= self.max_side <= 4_096:
            raise ConfigError(f"max_side={self.max_side!r}: must be 16 to 4,096 pixels.")
        if not 0 <= self.start_s < float("inf"):
            raise ConfigError(f"start_s={self.start_s!r}: must be 0 or more seconds.")

    def describe_grid(self) -> str:
        """Which frames, whatever their number."""
        return f"every {self.every_s:g} s from {self.start_s:g} s, {self.max_side} pixels"

    def describe_as_before(self) -> str:
        """As releases up to 0.2 did, which had directories for each ``most``."""
        return f"Sampling(every_s={self.every_s!r}, most={self.most!r}, max_side={self.max_side!r})"


def extract_frames(video_uri: str, output: Location, sampling: Sampling) -> str:
    """Write frames and their index below ``output``, in a directory of this video and distance.

    What is there is not made again, so that what was asked about it stays true; where more are wanted, those that are
    missing are added.

    :returns: the directory's URI. ``frames.jsonl`` in it has ``frame`` (from 0), ``second`` and ``image``, perhaps of
        more frames than ``most``; see `read_frames`.
    :raises ConfigError: if PyAV is missing.
    :raises InputError: if it is no video that can be read.
    """
    video = describe_file(open_place(video_uri, "input", find_giver_of(video_uri, "video_uri")))
    former = _find_place(output, video, sampling.describe_as_before())
    if not sampling.start_s and former.child(INDEX).exists():
        log.info("%s: frames of an older release were there before.", former.uri)
        return former.uri
    place = _find_place(output, video, sampling.describe_grid())
    known = sum(1 for _ in read_frames(place, None)) if place.child(INDEX).exists() else 0
    is_enough = sampling.most is not None and known >= sampling.most
    if known and (is_enough or place.child(_WHOLE).exists()):
        log.info("%s: %s were there before.", place.uri, number_of(known, "frame"))
        return place.uri
    count = write_rows(place.child(INDEX), _write_frames(video.location, place, sampling, known))
    if sampling.most is None or count < sampling.most:
        place.child(_WHOLE).write_bytes(b"")
    log.info("%s: %s, of which %s were there before.", place.uri, number_of(count, "frame"), f"{known:,}")
    return place.uri


def read_frames(place: Location, most: int | None) -> Iterator[Row]:
    """The first rows of the index of a video's directory."""
    return itertools.islice(read_rows(place.child(INDEX), made_by="extract_frames"), most)


def _find_place(output: Location, video: SourceFile, described: str) -> Location:
    seen = f"{video.uri}\n{video.size}\n{video.etag}\n{described}"
    mark = hashlib.blake2b(seen.encode(), digest_size=4).hexdigest()
    return output.child(f"{make_path_safe(PurePosixPath(video.location.path).stem)}-{mark}")


def _write_frames(video: Location, place: Location, sampling: Sampling, known: int) -> Iterator[Row]:
    """Each row after its file is there.

    :param known: so many files are there, and stay as they are.
    """
    noted_at = time.monotonic()
    number = 0
    for number, (second, frame) in enumerate(_sample(video, sampling), 1):
        if number > MAX_FRAMES:
            raise InputError(
                f"{video.uri}: gives more than {MAX_FRAMES:,} frames, the limit. Take them at a larger distance "
                "(every_s), or only the first (max_frames)."
            )
        file = place.child(f"{_FOLDER}/{number - 1:06d}.jpg")
        if number > known:
            file.write_bytes(_draw(frame, sampling.max_side))
        yield {"frame": number - 1, "second": round(second, 3), "image": file.uri}
        if time.monotonic() - noted_at >= _PROGRESS_EVERY_S:
            noted_at = time.monotonic()
            log.info("%s, %.0f s into the video.", number_of(number, "frame"), second)
    if not number:
        where = f" at second {sampling.start_s:g} or later (start_s)" if sampling.start_s else ""
        raise InputError(f"{video.uri}: has no frame that can be decoded{where}.")


def _draw(frame: Any, max_side: int) -> bytes:
    """The frame as players show it: cameras note how they were held, and leave the turning to them."""
    image = frame.to_image()
    image.thumbnail((max_side, max_side))
    quarters = round((frame.rotation or 0) / 90) % 4  # counterclockwise
    if quarters:
        image = image.rotate(90 * quarters, expand=True)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()


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
                begins_at = _seek(container, stream, sampling.start_s)
                taken = given = 0
                for frame in container.decode(stream):
                    at = frame.time or 0.0
                    begins_at = at if begins_at is None else begins_at
                    since = at - begins_at - sampling.start_s
                    if since < taken * sampling.every_s - 1e-6:
                        continue
                    yield at - begins_at, frame
                    given += 1
                    # Where a video leaves frames out, the times that were skipped stay skipped.
                    taken = max(taken + 1, int((since + 1e-6) // sampling.every_s) + 1)
                    if sampling.most is not None and given >= sampling.most:
                        return
        except av.error.FFmpegError as error:
            raise InputError(
                f"{video.uri}: cannot be read as a video ({type(error).__name__}). Does it play? Containers that are "
                f"read: {', '.join(CONTAINERS)}; no playlists."
            ) from None


def _seek(container: Any, stream: Any, start_s: float) -> float | None:
    """Go to the last picture before that second that can be decoded by itself, where the container knows when it
    begins; what comes before the second is decoded and left out.

    :returns: the time of the video's first frame; None where only the first frame tells it.
    """
    if not start_s or stream.start_time is None:
        return None
    begins_at = float(stream.start_time * stream.time_base)
    container.seek(int((begins_at + start_s) / stream.time_base), stream=stream, backward=True)
    return begins_at


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
