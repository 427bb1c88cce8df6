"""In which encoding a text file was saved: said by its mark, or found where it is no UTF-8, or asked for."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from airflow_openai_batch.errors import ConfigError, InputError

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_UTF_32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
SAMPLE_BYTES = 2**20
"""What is looked at of a file without a mark."""
_GUESSED_BYTES = 20_000
_WINDOWS_SIGNS = bytes((0x80, 0x82, 0x84, 0x85, *range(0x91, 0x98), 0x99, 0xA0, 0xA9, 0xAE))
"""Quotes, dashes, euro and the like, which all code pages of Windows have in the same places."""
_WITHOUT_SIGNS = bytes.maketrans(_WINDOWS_SIGNS, b" " * len(_WINDOWS_SIGNS))
_CODE_PAGES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("mac_roman", "cp850", "koi8_r", "shift_jis", "gb18030", "big5", "euc_kr", "euc_jp"),
)
_SLIGHT_CHAOS = 0.1
"""Of text as charset-normalizer measures it: 0 for what is like any other, and from 0.2 on for garbage."""
_WIDE = ("utf-16", "utf-16-le", "utf-16-be")


class Encoding(NamedTuple):
    """How the bytes of a file become text."""

    name: str
    notice: str = ""
    """What a person should check, where it was not plain."""


def check_encoding(encoding: str) -> str:
    """By its usual name; "" for ``auto`` and nothing.

    :raises ConfigError: if it is none, or one that lines cannot be found in.
    """
    if encoding.strip().lower() in ("", "auto", "none"):
        return ""
    try:
        name = codecs.lookup(encoding.strip()).name.removesuffix("-sig")
        usable = name in _WIDE or 'a,"\n'.encode(name) == b'a,"\n'
    except (LookupError, UnicodeError, TypeError):
        usable = False
    if not usable:
        raise ConfigError(
            f"encoding={encoding[:40]!r}: must be utf-16, or one that keeps ASCII as it is, such as utf-8, cp1252 or "
            "latin-1; leave it empty to have it found."
        )
    return name


def find_mark(head: bytes) -> tuple[bytes, str] | None:
    """The byte order mark that a file begins with, and what it says.

    :raises ValueError: for UTF-32, which no program of today saves.
    """
    if head.startswith(_UTF_32):
        raise ValueError("is UTF-32. Save it as UTF-8")
    return next((each for each in _MARKS if head.startswith(each[0])), None)


def find_encoding(sample: bytes, uri: str) -> Encoding:
    """Of a file without a mark, from its beginning. Nothing is taken that may as well be another: then it is asked for.

    :raises InputError: if it is no UTF-8 and cannot be told.
    """
    if wide := _find_wide(sample):
        raise InputError(
            f"{uri}: looks like {wide} without its mark. Set encoding={wide}, or save it as UTF-8."
        )
    if _is_mostly_utf8(sample):
        return Encoding("utf-8")
    suspects = b"\n".join(line for line in sample.split(b"\n") if not line.isascii())[:_GUESSED_BYTES]
    letters = suspects.translate(_WITHOUT_SIGNS)
    if letters.isascii() or _guess(letters) == ("cp1252",):
        notice = "is not UTF-8 and was read as cp1252 (Windows, Western Europe). If letters are wrong, set encoding."
        return Encoding("cp1252", notice)
    guesses = " or ".join(_guess(suspects))
    maybe = f" It may be {guesses}." if guesses else ""
    raise InputError(
        f"{uri}: is not UTF-8, and its encoding cannot be told for sure.{maybe} Set encoding (cp1252 for Excel in "
        "Western Europe, cp1250 in Central Europe, cp1251 for Cyrillic), or save it as CSV UTF-8."
    )


def _find_wide(sample: bytes) -> str:
    """Zeros in every other byte are UTF-16 of Western text."""
    pairs = len(sample) // 2
    if pairs and sample[1::2].count(0) > pairs // 2:
        return "utf-16-le"
    return "utf-16-be" if pairs and sample[::2].count(0) > pairs // 2 else ""


def _is_mostly_utf8(sample: bytes) -> bool:
    """UTF-8, also where it is damaged: its sequences do not come about by chance. The end may be cut."""
    decoder = codecs.getincrementaldecoder("utf-8")
    try:
        decoder().decode(sample)
    except UnicodeDecodeError:
        text = decoder("replace").decode(sample)
        bad = text.count("\ufffd")
        return sum(sign > "\x7f" for sign in text) - bad > bad
    return True


def _guess(letters: bytes) -> tuple[str, ...]:
    """What they may be encoded in, first what is saved most often; more than one where it cannot be told."""
    from charset_normalizer import from_bytes

    if letters.isascii():
        return ()
    matches = list(from_bytes(letters, cp_isolation=list(_CODE_PAGES)))
    try:
        western = letters.decode("cp1252")
    except UnicodeDecodeError:
        return (matches[0].encoding,) if matches else ()
    signs = _count_signs(western)
    likely = [match for match in matches if _count_signs(str(match)) <= signs]
    if not likely:
        return ()
    best = likely[0]
    if str(best) == western:  # another name for the same letters is as good
        return ("cp1252",)
    # Which of two comes first here says nothing: a French text is as plausible in the code page of Central Europe.
    twin = next((match for match in likely if str(match) == western), None)
    if twin and twin.coherence >= best.coherence and twin.chaos < best.chaos + _SLIGHT_CHAOS:
        return ("cp1252", best.encoding)
    return (best.encoding,)


def _count_signs(text: str) -> int:
    """What stands where letters should: the umlauts of one code page are signs such as per mille in another."""
    return sum(sign > "\x7f" and unicodedata.category(sign)[0] not in "LM" for sign in text)


def to_utf8(blocks: Iterable[bytes], encoding: str, uri: str) -> Iterator[bytes]:
    """UTF-16 as UTF-8. What is damaged within stays so, and spoils its own line.

    :raises InputError: if it ends in the middle of a character.
    """
    decoder = codecs.getincrementaldecoder("utf-16-le" if encoding == "utf-16" else encoding)("surrogatepass")
    for block in blocks:
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(
            f"{uri}: ends in the middle of a character of {encoding}. It was cut off; copy it again."
        ) from None
