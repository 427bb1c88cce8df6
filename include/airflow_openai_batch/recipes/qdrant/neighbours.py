"""Whether nearest neighbours make sense: what is found for some queries, and how chunks lie among each other."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_openai_batch.access.givers import find_giver_of
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.report.markdown import escape

if TYPE_CHECKING:
    from airflow_openai_batch.recipes.qdrant.qdrant_points import Neighbour, Points, PointStore
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts import PromptSpec

log = logging.getLogger(__name__)

REPORT = "neighbours.md"
_FIELDS = ["document", "name", "heading"]
_SAMPLE = 64


class Cohesion(NamedTuple):
    """How often a chunk's nearest neighbour is of the same document, and how often that would be by chance."""

    chunks: int
    found: float
    by_chance: float


def embed_queries(queries: Sequence[str], prompt: PromptSpec, conn_id: str) -> list[list[float]]:
    """A vector for each query, by the model of the chunks, in one call in real time."""
    from airflow_openai_batch.hooks.openai_batch import OpenAIBatchHook  # a second of imports

    check_conn_id(conn_id, find_giver_of(conn_id, "conn_id"))
    with OpenAIBatchHook(conn_id).get_batch_client() as client:
        return client.embed(list(queries), model=prompt.model, **prompt.parameters)


def report_neighbours(
    folder: Location,
    store: PointStore,
    queries: Sequence[str],
    prompt: PromptSpec,
    conn_id: str,
    *,
    limit: int,
) -> None:
    """Write ``neighbours.md``, and log it: for each query the nearest chunks by document and heading, with scores."""
    asked = [query.strip() for query in queries if query.strip()]
    vectors = embed_queries(asked, prompt, conn_id) if asked else []
    lines = [f"# Nearest neighbours in {store}", ""]
    with store.open() as points:
        if not points.exists() or not points.count():
            lines += ["The collection is empty."]
            vectors = []
        for query, vector in zip(asked, vectors, strict=False):
            found = points.find_nearest(vector, _FIELDS, limit=limit)
            lines += [f"## {escape(query)}", "", "| score | document | section |", "| ---: | --- | --- |"]
            lines += [_describe(each) for each in found]
            lines.append("")
        cohesion = measure_cohesion(points) if vectors or not asked else None
    if cohesion is not None:
        lines.append(
            f"Of {cohesion.chunks:,} chunks, {cohesion.found:.0%} have a nearest neighbour in the same document; by "
            f"chance it would be {cohesion.by_chance:.0%}."
        )
    text = "\n".join(lines) + "\n"
    folder.child(REPORT).write_bytes(text.encode())
    log.info("%s", text)


def measure_cohesion(points: Points) -> Cohesion | None:
    """None where there are too few chunks to say. The first page of ids is a random sample: ids are hashes."""
    page = next(points.read_pages(["document"], points=_SAMPLE), [])
    if len(page) < 3:
        return None
    documents = [point.payload.get("document") for point in page]
    same = 0
    for point, document in zip(page, documents, strict=True):
        nearest = points.find_nearest(point.id, ["document"], limit=1)
        same += bool(nearest) and nearest[0].payload.get("document") == document
    pairs = list(itertools.combinations(documents, 2))
    by_chance = sum(one == other for one, other in pairs) / len(pairs)
    return Cohesion(len(page), same / len(page), by_chance)


def _describe(found: Neighbour) -> str:
    name, heading = (escape(str(found.payload.get(key) or "")) for key in ("name", "heading"))
    return f"| {found.score:.3f} | {name} | {heading} |"
