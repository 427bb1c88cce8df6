"""A table and a prompt become request files and a row map: streamed, once, committed by the manifest."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import pyarrow as pa

from airflow_openai_batch.errors import (
    AccountingError,
    ConfigError,
    EmptyInputError,
    InputChangedError,
    InputError,
    JobExistsError,
)
from airflow_openai_batch.job import directory
from airflow_openai_batch.openai_api.deployments import NO_DEPLOYMENTS, Deployments
from airflow_openai_batch.tables.preparation.assignment import Assignment, Place
from airflow_openai_batch.tables.preparation.manifest import (
    MANIFEST,
    REJECTED,
    ROWS,
    Manifest,
    PreparationCounts,
    PromptNote,
    SourceNote,
    read_manifest,
)
from airflow_openai_batch.tables.preparation.renderer import Renderer, check_asks_of_rows
from airflow_openai_batch.tables.preparation.request_files import OWN_FIELDS, RequestWriter, RowWriter
from airflow_openai_batch.tables.reading.row_table import read_rows
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.prompts.spec import PromptSpec
    from airflow_openai_batch.tables.reading.row_table import RowBlock, RowTable

OnExisting = Literal["resume", "fail", "restart"]
_MOST_REASONS = 10
_PROGRESS_ROWS = 100


class RowProgress(NamedTuple):
    """How far the rows are."""

    rows: int
    requests: int
    rejected: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows read, {self.requests:,} requests, {self.rejected:,} rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is to be prepared.

    :param open_table: opens the source once; not called where the work is done already.
    :param note: what the source is, so that another one is noticed.
    :param check_source: called before the commit. :raises InputChangedError: if the source changed meanwhile.
    :param images_root: what image paths in rows must lie below.
    :param deployments: of the connection that the requests are for.
    :param dedupe: whether equal requests are sent once; see `Assignment` for what that costs.
    :param on_empty: a table without rows: ``fail``, or ``commit`` it.
    :param on_bad_row: rows that cannot be asked about: ``reject`` them, or ``fail`` with the first ten.
    :param max_rejected_fraction: more than this part of the rows rejected: nothing is prepared, as with ``fail``.
    :param on_none_left: every row was rejected: ``fail`` with ten reasons, or ``commit`` the rows with theirs.
    :param on_existing: a manifest that is there: ``resume`` with it, ``fail``, or ``restart``.
    :param on_changed_source: where it is not the one that was prepared: ``fail``, or ``keep`` what was prepared.
    :param now: Unix seconds.
    :param run_key: ``dag_id/run_id``: whose it is from now on.
    """

    spec: PromptSpec
    open_table: Callable[[], AbstractContextManager[RowTable]]
    note: SourceNote
    now: float
    run_key: str = ""
    images_root: Location | None = None
    deployments: Deployments = NO_DEPLOYMENTS
    dedupe: bool = False
    on_empty: Literal["fail", "commit"] = "fail"
    on_bad_row: Literal["reject", "fail"] = "reject"
    max_rejected_fraction: float = 1.0
    on_none_left: Literal["fail", "commit"] = "fail"
    on_existing: OnExisting = "resume"
    on_changed_source: Literal["fail", "keep"] = "fail"
    check_source: Callable[[], None] = field(default=lambda: None)
    progress: Callable[[RowProgress], None] = field(default=lambda found: None)

    @property
    def options_sha256(self) -> str:
        root = None if self.images_root is None else self.images_root.uri
        return hashlib.sha256(msgspec.json.encode([self.dedupe, root])).hexdigest()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is there now."""

    manifest: Manifest
    created: bool
    """False where it was there before."""
    notices: tuple[str, ...] = ()


def prepare_requests(what: Preparation, output: Location) -> Prepared:
    """Write request files and the row map, and then the manifest; or find that they are there.

    Memory is bounded by a block of rows, a row group and one request, and with ``dedupe`` or a custom_id of one's own
    by up to 81 bytes a request.

    :raises ConfigError: for a prompt that does not go with the table.
    :raises InputError: for a source that cannot be read, is empty, or has no row that can be asked about.
    :raises InputChangedError: if prompt, source or options are other ones than those of the manifest.
    :raises JobExistsError: if there is a manifest of another run and ``on_existing`` is ``fail``.
    """
    _check_output(output)
    manifest = read_manifest(output)
    # As a split takes it: what this run has prepared may be paid for by now, and its answers belong to these rows.
    is_retry = manifest is not None and bool(what.run_key) and manifest.created_by == what.run_key
    if manifest is not None and what.on_existing == "fail" and not is_retry:
        raise JobExistsError(
            f"{output.uri}: was prepared already. Choose another output_uri, or set on_existing=resume or restart."
        )
    if manifest is not None and (what.on_existing == "resume" or is_retry):
        _check_unchanged(manifest, what, output)
        notices = (_tell_of_query(manifest),) if manifest.source.kind == "sql" else ()
        return Prepared(manifest, created=False, notices=notices)
    if manifest is not None:
        output.child(MANIFEST).remove()
    with what.open_table() as table:
        _check_columns(table.schema)
        manifest = _Run(what, output, table).write()
    output.child(MANIFEST).write_bytes(manifest.to_json())
    return Prepared(manifest, created=True, notices=table.notices)


def _tell_of_query(manifest: Manifest) -> str:
    """Of a file it can be told that it has changed; what a query returns is not known until it is asked."""
    asked = datetime.fromtimestamp(manifest.created_at, UTC)
    return (
        f"The query was asked on {asked:%Y-%m-%d at %H:%M:%S} UTC and is not asked again: rows that came since are not "
        f"among these {manifest.counts.rows:,}. Another output_uri, say with {{run_id}}, asks about all that there are "
        "now; so does on_existing=restart, which pays again."
    )


def _check_output(output: Location) -> None:
    if any(sign in output.uri for sign in "*?["):
        raise ConfigError(
            f"{output.uri}: *, ? and [ cannot stand in output_uri, since the split takes them as a glob."
        )
    if output.child(directory.PLAN).exists():
        raise ConfigError(
            f"{output.uri}: is a job directory. Prepare into one of its own, for instance {output.uri}/prepared."
        )


def _check_unchanged(manifest: Manifest, what: Preparation, output: Location) -> None:
    changed = {
        **dict.fromkeys(_find_prompt_changes(manifest, what.spec), True),
        "the source": what.on_changed_source == "fail" and manifest.source.sha256 != what.note.sha256,
        "dedupe or images_root": manifest.options_sha256 != what.options_sha256,
    }
    if named := [name for name, differs in changed.items() if differs]:
        way_out = (
            "This run has begun anew already. Trigger a new run with on_existing=restart, which pays again for what "
            "was answered, or choose another output_uri."
            if what.on_existing == "restart"
            else "Choose another output_uri, or set on_existing=restart here and at the split, which pays again for "
            "what was answered."
        )
        raise InputChangedError(
            f"{output.uri}: was prepared before; since then changed: {', '.join(named)}. {way_out}"
        )


def _find_prompt_changes(manifest: Manifest, spec: PromptSpec) -> Iterator[str]:
    """What is another in a prompt; of its words and parameters only a digest is kept."""
    then = manifest.prompt
    if then.sha256 == spec.sha256:
        return
    pairs = {
        "the prompt": (f"{then.name} version {then.version}", f"{spec.name} version {spec.version}"),
        "the model": (manifest.model, spec.model),
        "the endpoint": (manifest.endpoint, spec.url),
    }
    changed = [f"{name} (was {old}, now {new})" for name, (old, new) in pairs.items() if old != new]
    yield from changed or [f"what the prompt {spec.name} says, under the same version {spec.version}"]


def _check_columns(schema: pa.Schema) -> None:
    if taken := [each.name for each in OWN_FIELDS if each.name in schema.names]:
        raise InputError(
            f"The source has a column {taken[0]!r}, which the row map needs for itself. Rename it, or prepare from the "
            "source that this table was made of."
        )


class _Run:
    """One pass over the table."""

    def __init__(self, what: Preparation, output: Location, table: RowTable) -> None:
        self._what = what
        self._output = output
        self._table = table
        check_asks_of_rows(what.spec, table.schema.names)
        self._renderer = Renderer(
            what.spec, table.schema.names, images_root=what.images_root, deployments=what.deployments
        )
        self._rows = self._rejected = 0
        self._reasons: list[str] = []

    def write(self) -> Manifest:
        """Everything but the manifest."""
        what = self._what
        with (
            self._output.child(REJECTED).open_write() as rejected,
            RequestWriter(self._output, what.spec.url) as requests,
            RowWriter(self._output, self._table.schema) as rows,
            contextlib.closing(
                Assignment(what.spec, self._renderer, requests.write, dedupe=what.dedupe)
            ) as assignment,
        ):
            for block in self._table.blocks:
                rows.write(block.batch, self._assign(assignment, block, rejected))
            assignment.finish()
            self._check_rows(requests.written)
            what.check_source()
        manifest = self._describe(requests, rows, assignment.duplicates)
        for files in (requests.files, rows.files):
            files.check()
        _remove_stale(self._output, manifest)
        return manifest

    def _assign(self, assignment: Assignment, block: RowBlock, rejected: Any) -> list[pa.Array]:
        """The arrays of `OWN_FIELDS` for a block. A body is gone before the next is needed."""
        start = self._rows
        values = read_rows(block, self._renderer.columns)
        numbered = ((start + at, row, block.problems.get(at)) for at, row in enumerate(values))
        places: list[Place | None] = []
        reasons: list[str | None] = []
        with contextlib.closing(self._renderer.render_all(numbered)) as rendered:
            for each in rendered:
                reasons.append(each.reason)
                if each.reason is None:
                    places.append(assignment.place(self._rows, each))
                else:
                    places.append(None)
                    self._reject(each.reason, rejected)
                self._rows += 1
                if self._rows % _PROGRESS_ROWS == 0 or len(reasons) == block.batch.num_rows:
                    self._what.progress(RowProgress(self._rows, assignment.requests, self._rejected))
        return [
            pa.array(range(start, self._rows), pa.int64()),
            pa.array([None if place is None else place.custom_id for place in places], pa.string()),
            pa.array([None if place is None else place.position for place in places], pa.int64()),
            pa.array([0 if place is None else place.slot for place in places], pa.int32()),
            pa.array(reasons, pa.string()),
        ]

    def _reject(self, reason: str, rejected: Any) -> None:
        rejected.write(msgspec.json.encode({"row": self._rows, "reason": reason}) + b"\n")
        self._rejected += 1
        if len(self._reasons) < _MOST_REASONS:
            self._reasons.append(f"row {self._rows:,}: {reason}.")

    def _check_rows(self, requests: int) -> None:
        if not self._rows and self._what.on_empty == "fail":
            raise EmptyInputError(
                f"{', '.join(self._what.note.named[:3])}: has no rows. Where that may be, set on_empty=skip."
            )
        is_left = requests or self._what.on_none_left == "commit"
        too_many = self._rejected > self._what.max_rejected_fraction * self._rows
        if not self._rejected or (is_left and self._what.on_bad_row == "reject" and not too_many):
            return
        listed = "".join(f"\n  {reason}" for reason in self._reasons)
        more = self._rejected - len(self._reasons)
        head = f"{number_of(self._rejected, 'row')} of {self._rows:,} cannot be sent; nothing was prepared. "
        way_out = "Mend them, or the prompt" + (", or set on_bad_row=reject." if requests else ".")
        if too_many:
            way_out = (
                f"That is more than max_rejected_fraction={self._what.max_rejected_fraction:g} allows: mend them, or "
                "the prompt, or raise it."
            )
        raise EmptyInputError(f"{head}{way_out}{listed}" + (f"\n  ... and {more:,} more" if more else ""))

    def _describe(self, requests: RequestWriter, rows: RowWriter, duplicates: int) -> Manifest:
        """:raises AccountingError: if a row is neither sent nor rejected, or stands in no file."""
        written = sum(note.items for note in requests.files.notes)
        kept = sum(note.items for note in rows.files.notes)
        if kept != self._rows or written != requests.written:
            raise AccountingError(
                f"{self._output.uri}: {self._rows:,} rows were read and {kept:,} written, {requests.written:,} "
                f"requests were made and {written:,} written. Prepare again; if it stays, report it."
            )
        spec = self._what.spec
        return Manifest(
            created_at=self._what.now,
            created_by=self._what.run_key,
            prompt=PromptNote(name=spec.name, version=str(spec.version), sha256=spec.sha256),
            source=self._what.note,
            options_sha256=self._what.options_sha256,
            model=spec.model,
            endpoint=spec.url,
            schema=spec.sent_schema,
            columns=tuple(self._table.schema.names),
            counts=PreparationCounts(
                rows=self._rows, requests=written, rejected=self._rejected, duplicates=duplicates
            ),
            requests=tuple(requests.files.notes),
            rows=tuple(rows.files.notes),
        )


def _remove_stale(output: Location, manifest: Manifest) -> None:
    """Files of an earlier try that had more of them: the split takes what its glob finds."""
    kept = {note.name for note in (*manifest.requests, *manifest.rows)}
    names = output.names() + [f"{ROWS}/{name}" for name in output.child(ROWS).names()]
    for name in names:
        if name.startswith(("requests-", f"{ROWS}/part-")) and name not in kept:
            output.child(name).remove()
