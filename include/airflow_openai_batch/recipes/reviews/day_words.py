"""From answers of one word to a table and a report of the day; which words there are is the prompt's to say."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.reviews.known_answers import STATUS
from airflow_openai_batch.tables.writing.write_table import TableOptions, open_table

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.reviews.day_table import DayTable
    from airflow_openai_batch.storage.location import Location

OTHER = "Other"
"""An answer that is none of the words that the prompt's schema lists, or one too many where it lists none."""
MOST_WORDS = 50
"""That are counted each for itself where no schema lists them."""
_BATCH_ROWS = 5_000
_TRIM = string.whitespace + string.punctuation


@dataclass(slots=True)
class DayCounts:
    """What the answers of a day say. Every row is in exactly one of ``words`` and ``unanswered``."""

    rows: int = 0
    words: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    """By ``answer_status``: ``rejected``, ``failed`` ..."""
    first: list[tuple[int, str]] = field(default_factory=list)
    """Row number from 1, and its word."""

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "words": dict(self.words), "unanswered": dict(self.unanswered)}


class Words:
    """The words that answers are counted by.

    :param listed: in the prompt's schema; none where it has no list, and every word counts as it comes.
    """

    def __init__(self, listed: tuple[str, ...] = ()) -> None:
        self.listed = listed
        self._known = {word.casefold(): word for word in listed}

    def read(self, answer: str) -> str:
        """The word however a model may dress it: ``**positive.**`` is ``Positive``."""
        bare = answer.strip(_TRIM)
        if not self.listed and bare and len(self._known) < MOST_WORDS:
            self._known.setdefault(bare.casefold(), bare)
        return self._known.get(bare.casefold()) or self._known.get(answer.casefold(), OTHER)


def read_words(schema: Mapping[str, Any] | None, name: str) -> Words:
    """The words that a schema lists for one of its properties.

    :param name: of the property.
    :raises ConfigError: if the schema has no such property.
    """
    if schema is None:
        return Words()
    properties = schema.get("properties") or {}
    if name not in properties:
        raise ConfigError(
            f"The prompt's response_schema has no property {name!r}; it has "
            f"{', '.join(map(str, properties)) or 'none'}. "
            "Name one of them in the DAG as the word to count."
        )
    listed = properties[name].get("enum") or () if isinstance(properties[name], Mapping) else ()
    return Words(tuple(str(word) for word in listed if word is not None))


def write_words(day: DayTable, name: str, place: Location, *, show: int) -> DayCounts:
    """Write the day's table, with a column of that name where the answers have none, and count its words.

    One batch of rows is held in memory. A file of that name is replaced as a whole.

    :param name: of the property of the answers that is counted; of plain answers what the column is to be called.
    :param show: how many of the first words to keep for the log.
    """
    schema = day.manifest.schema
    words = read_words(schema, name)
    counts = DayCounts(words=Counter(dict.fromkeys(words.listed, 0)))
    own = find_column(day.answers, name) if schema else None
    wide = day.schema
    if own is None:
        wide = day.schema.append(pa.field(_find_free(day.schema.names, name), pa.string()))
    with open_table(place, "parquet", wide, TableOptions()) as writer:
        for batch in day.batches:
            answers = batch.column(own or day.answers[0]).to_pylist()
            statuses = batch.column(day.answers[STATUS]).to_pylist()
            found = list(_count(answers, statuses, words, counts, show))
            if own is None:
                batch = pa.RecordBatch.from_arrays(
                    [*batch.columns, pa.array(found, pa.string())], schema=wide
                )
            writer.write(batch)
    return counts


def select_rows(table: Location, name: str, word: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The rows of a day's table with one word, as a stream.

    :raises ConfigError: if the table has no such column.
    """
    file = table.open_read()
    source = pq.ParquetFile(file)
    schema = source.schema_arrow
    column = find_column(schema.names, name)
    if column is None:
        source.close()
        file.close()
        raise ConfigError(f"{table.uri}: has no column {name!r}; it has {', '.join(schema.names[:50])}.")

    def select() -> Iterator[pa.RecordBatch]:
        with file, source:
            for batch in source.iter_batches(_BATCH_ROWS):
                yield batch.filter(pc.equal(batch.column(column).cast(pa.string()), word))

    return schema, select()


def find_column(names: list[str], name: str) -> str | None:
    """An answer's column; where the source has one of that name, the answer's begins with ``openai_``."""
    return next((each for each in (f"openai_{name}", name) if each in names), None)


def encode_counts(counts: DayCounts, **more: Any) -> bytes:
    """``report.json`` of a day."""
    return msgspec.json.format(msgspec.json.encode({**counts.to_dict(), **more}), indent=1)


def _find_free(names: list[str], name: str) -> str:
    return f"openai_{name}" if name in names else name


def _count(
    answers: list[Any], statuses: list[str], words: Words, counts: DayCounts, show: int
) -> Iterator[str | None]:
    for answer, status in zip(answers, statuses, strict=True):
        counts.rows += 1
        if status != "ok" or answer is None:
            counts.unanswered[status] += 1
            yield None
            continue
        word = words.read(str(answer))
        counts.words[word] += 1
        if len(counts.first) < show:
            counts.first.append((counts.rows, word))
        yield word
