"""Text that reads like an answer: a label where the prompt offers some, else a sentence of its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise

_GOOD = frozenset(
    {
        "good", "great", "excellent", "love", "loved", "loves", "lovely", "perfect", "best",
        "amazing", "wonderful", "happy", "glad", "pleased", "fantastic", "nice", "enjoy", "enjoyed",
        "recommend", "awesome", "fast", "helpful", "delicious", "beautiful", "comfortable",
        "reliable", "superb", "thanks", "easy", "brilliant", "favourite", "favorite", "delightful",
        "impressed", "works", "well", "success", "improved"
    }
)  # fmt: skip
_BAD = frozenset(
    {
        "bad", "terrible", "awful", "hate", "hated", "worst", "poor", "broken", "disappointed",
        "disappointing", "disappointment", "slow", "angry", "sad", "useless", "waste", "refund",
        "horrible", "rude", "dirty", "cold", "late", "failed", "fails", "failure", "error", "crash",
        "crashes", "ugly", "uncomfortable", "unreliable", "boring", "annoying", "wrong", "problem",
        "problems", "defective", "cheap", "returned", "scratched", "sorry"
    }
)  # fmt: skip
_NEGATIONS = frozenset(
    {
        "not", "no", "isn't", "wasn't", "don't", "didn't", "doesn't", "never", "hardly", "can't",
        "won't"
    }
)  # fmt: skip
_TONED = _GOOD | _BAD | _NEGATIONS
_TO_SPACES = str.maketrans(dict.fromkeys('.,:;!?"()[]{}*#<>/\\|-', " "))

_WORD = re.compile(r"[^\W\d_][\w']*")
_SLASHED = re.compile(r"\b[\w-]+(?:\s?[/|]\s?[\w-]+)+\b")
_CUE = re.compile(
    r"\b(?:one of|labels?|categor(?:y|ies)|class(?:es)?|options|choose from|(?:answer|reply|respond) with|either"
    r"|classify [^.\n]{0,60}?\bas)\b(?:[^.:,\n]{0,40}:)?(?:\s+(?:the following|these|only|one of))*\s*[\[(]?",
    re.IGNORECASE,
)
_ITEM = r"[\"'`]?[\w-]+[\"'`]?"
_LISTED = re.compile(rf"{_ITEM}(?:\s*,\s*{_ITEM})*,?\s+(?:or|and)\s+{_ITEM}|{_ITEM}(?:\s*,\s*{_ITEM})+")
_ASKED = re.compile(
    rf"{_ITEM}(?:\s*,\s*{_ITEM})+,?\s+or\s+{_ITEM}\s*\?|(?:^|[.!?:\n]\s*){_ITEM}\s+or\s+{_ITEM}\s*\?"
)
"""``Positive, Negative or Neutral?``; two labels only where they are the whole question."""
_NUMBERED = re.compile(r"^[ \t]*(\d{1,3})[.)][ \t]+(.+)$", re.MULTILINE)
_LISTED_CHARACTERS = 20_000
_SEPARATORS = re.compile(r"\s*(?:[/|,]|\bor\b|\band\b)\s*")
_MOST_CHARACTERS = 600
_PROMPT_CHARACTERS = 500
"""Looked at of a long text: an emulator need not read a novel."""


def score_sentiment(text: str) -> int:
    """Above 0 for a friendly text, below 0 for an unfriendly one, by a short word list."""
    words = text[:_MOST_CHARACTERS].lower().translate(_TO_SPACES).split()
    if _TONED.isdisjoint(words):
        return 0
    score = sum((word in _GOOD) - (word in _BAD) for word in words if word in _TONED)
    if not _NEGATIONS.isdisjoint(words):
        for before, word in pairwise(words):
            if before in _NEGATIONS:
                score -= 2 * ((word in _GOOD) - (word in _BAD))
    return score


def pick_label(labels: Sequence[str], text: str) -> str:
    """The label that fits the text: by sentiment where labels speak of it, else by shared words or by hash."""
    folded = {label.casefold(): label for label in labels}
    if "positive" in folded and "negative" in folded:
        score = score_sentiment(text)
        if score == 0:
            return folded.get("neutral") or folded.get("mixed") or folded["positive"]
        return folded["positive" if score > 0 else "negative"]
    words = set(text[:_MOST_CHARACTERS].lower().translate(_TO_SPACES).split())
    for name, label in folded.items():
        if words & set(_WORD.findall(name)):
            return label
    digest = blake2b(text.encode("utf-8", "replace"), digest_size=4).digest()
    return labels[int.from_bytes(digest, "big") % len(labels)]


def pick_numbered(text: str) -> int | None:
    """Of a numbered list in a text (``1. ...``) the number of the item that most of its words stand before the list;
    0 where that are fewer than half of them; None where there is no list."""
    items = list(_NUMBERED.finditer(text[:_LISTED_CHARACTERS]))
    if not items:
        return None
    before = set(_find_words(text[: items[0].start()]))
    best, best_share = 0, 0.5
    for item in items:
        words = set(_find_words(item[2]))
        share = len(words & before) / max(1, len(words))
        if share > best_share:
            best, best_share = int(item[1]), share
    return best


def _find_words(text: str) -> list[str]:
    return text.lower().translate(_TO_SPACES).split()


@lru_cache(maxsize=1024)
def find_labels(prompt: str) -> tuple[str, ...]:
    """The labels that a prompt offers: ``Positive/Negative/Neutral``, ``one of: a, b or c``, ``A, B or C?``."""
    head = prompt[:_PROMPT_CHARACTERS]
    found = _find_listed(head)
    if found is None and ("/" in head or "|" in head) and (match := _SLASHED.search(head)):
        found = match.group()
    if found is None:
        return ()
    labels = (part.strip(" \t\n\"'`.()[]?") for part in _SEPARATORS.split(found))
    return tuple(dict.fromkeys(label for label in labels if label))


def _find_listed(text: str) -> str | None:
    if "," not in text and " or " not in text:
        return None
    if "?" in text and (asked := _ASKED.search(text)):
        return asked.group().lstrip(".!?: \n")
    for cue in _CUE.finditer(text):
        match = _LISTED.match(text, cue.end())
        if match:
            return match.group()
    return None


def compose(prompt: str, text: str) -> str:
    """An answer to ``text``, under the instructions of ``prompt`` (which may be the same).

    :param prompt: everything that was said, instructions included.
    :param text: the last message of the user.
    """
    labels = find_labels(prompt)
    if len(labels) >= 2:
        return pick_label(labels, text if prompt != text else _without_labels(text, labels))
    words = text[:300].split()
    if not words:
        return "There is nothing to answer."
    subject = " ".join(words[:12]).rstrip(".,:;!?")
    tone = score_sentiment(text)
    verdict = (
        "It reads favourably."
        if tone > 0
        else "It reads critically."
        if tone < 0
        else "It is matter-of-fact."
    )
    return f"In short: {subject}. {verdict}"


def _without_labels(text: str, labels: Sequence[str]) -> str:
    """Instructions in the same message must not be taken for the text that is judged."""
    for label in labels:
        text = re.sub(rf"\b{re.escape(label)}\b", " ", text)
    return text
