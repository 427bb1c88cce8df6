"""From rows that people have to the requests that the split takes."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import SkipMixin

from airflow_openai_batch.access.givers import Giver, find_giver
from airflow_openai_batch.access.locations import make_resolver, open_place
from airflow_openai_batch.access.permissions import check_conn_id
from airflow_openai_batch.errors import ConfigError, InputChangedError, InputError
from airflow_openai_batch.operators.join import OpenAIBatchJoinOperator
from airflow_openai_batch.operators.task.base import OpenAIBatchOperator
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.form_query import check_form_query
from airflow_openai_batch.operators.task.found_source import FoundSource
from airflow_openai_batch.operators.task.own_prices import find_prices_of_named
from airflow_openai_batch.operators.task.ownership import check_folders_above, check_owner
from airflow_openai_batch.operators.task.parameters import (
    read_choice,
    read_flag,
    read_fraction,
    read_list,
    read_optional_int,
)
from airflow_openai_batch.operators.task.progress_log import ProgressLog
from airflow_openai_batch.operators.task.prompt_files import find_dag_folder, load_prompt
from airflow_openai_batch.operators.task.query import open_query
from airflow_openai_batch.operators.task.run_conf import describe_unknown_keys, name_parameter
from airflow_openai_batch.operators.task.run_place import place_of_run
from airflow_openai_batch.operators.task.skipping import skip_rest
from airflow_openai_batch.tables.preparation import (
    Preparation,
    prepare_requests,
    preview_requests,
    read_manifest,
)
from airflow_openai_batch.tables.preparation.prepare import OnExisting, Prepared
from airflow_openai_batch.tables.preparation.source_note import check_files, note_files, note_query
from airflow_openai_batch.tables.reading import find_row_files, open_row_files
from airflow_openai_batch.tables.reading.open_source import FORMATS
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.openai_api.own_prices import OwnPrices
    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.preparation.manifest import Manifest
    from airflow_openai_batch.tables.prompts import PromptSpec


class OpenAIBatchPrepareOperator(OpenAIBatchOperator, SkipMixin):
    """Makes a request of every row of a table, with a prompt, and remembers which request answers which row.

    Returns what the split takes as ``input_uri``; pushes the directory under the key ``prepared``, for the join, and
    ``counts``: rows, requests, rejected, duplicates. Run again, it uses what is there, so that an unordered query
    cannot change a job under way.

    :param source: one URI or path, a list of them, or a glob, of ``.csv``, ``.tsv``, ``.jsonl`` (both also ``.gz`` and
        ``.zst``), ``.parquet``, ``.xlsx``; or a prefix that ends in ``/``, for a row per object below it.
    :param prompt: a YAML file (URI, or path relative to the DAG's folder or the one above) or its fields as a dict; see
        `PromptSpec`. Not rendered by Airflow, since it holds templates of its own. In a dict, ``response_schema`` may
        be a Pydantic model. It names a column, or says ``{# same for all #}``.
    :param prompt_overrides: fields that take the place of those in it, rendered by Airflow:
        ``{"model": "{{ params.model }}"}``. Empty ones change nothing.
    :param output_uri: the prepared directory, not the job directory. ``{run_id}`` stands for the run id.
    :param sql: a query, in place of ``source``; with ``conn_id``, a connection to a database, and ``sql_parameters``.
    :param format: where the names do not tell: ``csv``, ``jsonl``, ``parquet``, ``xlsx``; of a prefix ``texts``
        (columns uri, name, size_bytes, text) or ``files`` (without text).
    :param sheet: of a workbook; the first by default.
    :param delimiter: of CSV; by default what a first line ``sep=;`` says, or what the header has most of: comma,
        semicolon, tab or bar.
    :param encoding: of CSV without a byte order mark: ``utf-8``, ``cp1252``, ``utf-16`` ...; by default UTF-8, or what
        is found, with a line in the log. What cannot be told for sure is an error that names this parameter.
    :param images_root: the directory or prefix that image paths in rows must lie below. For ``format="files"`` the
        prefix itself by default.
    :param dedupe: equal requests are sent once, and answer all their rows.
    :param on_bad_row: rows that cannot be asked about: ``reject`` them (to ``rejected.jsonl``, with the reason), or
        ``fail``.
    :param max_rejected_fraction: with ``reject``: more than this part of the rows rejected fails the task before
        anything is sent (0.05: five in a hundred). 1 by default: never.
    :param on_empty: a table without rows: ``fail``, or ``skip`` what comes after.
    :param on_none_left: every row was rejected: ``fail``, or ``skip`` what comes after but for
        `OpenAIBatchJoinOperator`, which writes the table with the reasons.
    :param on_existing: what was prepared already: ``resume`` with it, ``fail``, or ``restart``.
    :param on_changed_source: a source that is not the one that was prepared: ``fail``, or ``keep`` what was prepared,
        where other tasks take care of what is new.
    :param openai_conn_id: the connection that the requests are for, ``openai_default`` by default: ``deployments`` of
        its extra say which model is behind the prompt's, whose context window and tokens count. It need not exist.
    :param preview: shows what the first so many requests are, with tokens and cost, **in the task's log: contents of
        rows are readable there**. Nothing is written or sent; what comes after is skipped.
    """

    template_fields: Sequence[str] = (
        "source",
        "sql",
        "sql_parameters",
        "conn_id",
        "prompt_overrides",
        "output_uri",
        "format",
        "sheet",
        "delimiter",
        "encoding",
        "images_root",
        "dedupe",
        "on_bad_row",
        "max_rejected_fraction",
        "on_empty",
        "on_none_left",
        "on_existing",
        "on_changed_source",
        "openai_conn_id",
        "preview",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "prompt_overrides": "json"}  # noqa: RUF012 - as Airflow has it
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        prompt: str | Path | Mapping[str, Any],
        output_uri: str,
        source: str | Sequence[str] | None = None,
        sql: str | None = None,
        sql_parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        conn_id: str | None = None,
        prompt_overrides: Mapping[str, Any] | None = None,
        format: str = "auto",
        sheet: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        images_root: str | None = None,
        dedupe: bool | str = False,
        on_bad_row: Literal["reject", "fail"] | str = "reject",
        max_rejected_fraction: float | str = 1.0,
        on_empty: Literal["fail", "skip"] | str = "fail",
        on_none_left: Literal["fail", "skip"] | str = "fail",
        on_existing: Literal["resume", "fail", "restart"] | str = "resume",
        on_changed_source: Literal["fail", "keep"] | str = "fail",
        openai_conn_id: str | None = None,
        preview: int | str | None = None,
        retries: int = 3,
        retry_delay: timedelta | float = timedelta(minutes=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.prompt = prompt
        self.output_uri = output_uri
        self.source = source
        self.sql = sql
        self.sql_parameters = sql_parameters
        self.conn_id = conn_id
        self.prompt_overrides = prompt_overrides
        self.format = format
        self.sheet = sheet
        self.delimiter = delimiter
        self.encoding = encoding
        self.images_root = images_root
        self.dedupe = dedupe
        self.on_bad_row = on_bad_row
        self.max_rejected_fraction = max_rejected_fraction
        self.on_empty = on_empty
        self.on_none_left = on_none_left
        self.on_existing = on_existing
        self.on_changed_source = on_changed_source
        # No default here: what a task of the DAG names, whoever triggers it may name.
        self.openai_conn_id = openai_conn_id
        self.preview = preview
        self._find_giver: Callable[[str], Giver] = lambda field: Giver.FORM
        self._unknown_keys = ""
        self._conn_id_name = "conn_id"

    def execute(self, context: Context) -> str | None:
        ti = context["ti"]
        self._find_giver = functools.partial(find_giver, context)
        self._unknown_keys = describe_unknown_keys(context)
        self._conn_id_name = name_parameter(context, "conn_id")
        if self._unknown_keys:
            self.log.warning("%s", self._unknown_keys)
        with task_failures():
            spec = load_prompt(
                self.prompt, self.prompt_overrides or {}, find_dag_folder(context), self._find_giver("prompt")
            )
            preview = read_optional_int("preview", self.preview)
            output = self._find_output(ti)
            if preview:
                self._preview(spec, output, preview)
                self._skip_rest(context, "Preview", dry=True)
                return None
            prepared = self._prepare(spec, output, f"{ti.dag_id}/{ti.run_id}")
        counts = prepared.manifest.counts
        ti.xcom_push("prepared", output.uri)
        told = ("rows", "requests", "rejected", "duplicates")
        ti.xcom_push("counts", {name: getattr(counts, name) for name in told})
        if not counts.requests:
            why = "No row that can be asked about" if counts.rows else "No rows"
            self._skip_rest(context, why, but_join=counts.rows > 0)
        return f"{output.uri}/requests-*.jsonl"

    def _skip_rest(self, context: Context, why: str, *, but_join: bool = False, dry: bool = False) -> None:
        kept: set[str] = set()
        if but_join:
            # the table still has something to say; what follows the join goes by its own trigger rule
            joins = [task for task in context["task"].get_flat_relatives(upstream=False) if _is_join(task)]
            kept = {task.task_id for task in joins}.union(*(task.get_flat_relative_ids() for task in joins))
        self.log.info("%s; what comes after is skipped%s.", why, ", but not the join" if but_join else "")
        skip_rest(self, context, but=kept, dry=dry)

    def _find_output(self, ti: Any) -> Location:
        """:raises ConfigError: if it may not or cannot be written, unless it is only a preview."""
        if not (self.output_uri or "").strip():
            raise ConfigError(
                "output_uri is empty: name a directory, for instance s3://bucket/jobs/{run_id}/prepared."
            )
        giver = self._find_giver("output_uri")
        uri = place_of_run(self.output_uri.strip().rstrip("/"), ti, giver)
        output = open_place(uri, "output", giver)
        if (manifest := read_manifest(output)) is not None:
            check_owner(manifest.created_by, output.uri, ti.dag_id)
        check_folders_above(output, ti.dag_id, giver)
        return output

    def _preview(self, spec: PromptSpec, output: Location, requests: int) -> None:
        if requests < 1:
            raise ConfigError(f"preview={self.preview!r}: must be at least 1; leave it empty for none.")
        source = self.find_source(output, spec)
        self.log.info(
            "Preview of %s %s: contents of rows are shown because preview=%s asks for it.",
            spec.name,
            f"version {spec.version}",
            requests,
        )
        with source.open(requests * spec.rows_per_request) as table:
            for notice in (*source.notices, *table.notices):
                self.log.warning("%s", notice)
            shown = preview_requests(
                spec,
                table,
                requests,
                images_root=self._find_images_root(source),
                own_prices=self._find_own_prices(),
            )
            for text in shown:
                self.log.info("%s", text)

    def _find_own_prices(self) -> OwnPrices:
        return find_prices_of_named(self.openai_conn_id, self._find_giver("openai_conn_id"))

    def _prepare(self, spec: PromptSpec, output: Location, run_key: str) -> Prepared:
        existing = read_manifest(output)
        try:
            source = self.find_source(output, spec)
        except InputError as error:
            if existing is None or self._read_on_existing() != "resume":
                raise
            self.log.warning("%s What was prepared from it is used.", error)
            return self._use_without_source(existing, spec, output)
        if (problem := output.find_write_problem()) is not None:
            raise ConfigError(
                f"{output.uri}: cannot be written ({problem}). Choose another output_uri or grant the access."
            )
        prepared = prepare_requests(
            Preparation(
                spec=spec,
                open_table=lambda: source.open(None),
                note=source.note,
                now=time.time(),
                run_key=run_key,
                images_root=self._find_images_root(source),
                deployments=self._find_own_prices().deployments,
                dedupe=read_flag("dedupe", self.dedupe),
                on_empty=_read_skip("on_empty", self.on_empty),
                on_bad_row=read_choice("on_bad_row", self.on_bad_row, ("reject", "fail")),
                max_rejected_fraction=read_fraction("max_rejected_fraction", self.max_rejected_fraction),
                on_none_left=_read_skip("on_none_left", self.on_none_left),
                on_existing=self._read_on_existing(),
                on_changed_source=read_choice("on_changed_source", self.on_changed_source, ("fail", "keep")),
                check_source=source.check,
                progress=ProgressLog(self.log),
            ),
            output,
        )
        for notice in (*source.notices, *prepared.notices):
            self.log.warning("%s", notice)
        self._log_outcome(prepared, output)
        return prepared

    def _read_on_existing(self) -> OnExisting:
        return read_choice("on_existing", self.on_existing, ("resume", "fail", "restart"))

    def _use_without_source(self, manifest: Manifest, spec: PromptSpec, output: Location) -> Prepared:
        """The source has gone since; the prompt is looked at all the same."""
        if manifest.prompt.sha256 != spec.sha256:
            raise InputChangedError(
                f"{output.uri}: was prepared with another prompt, and its source cannot be read any more. Choose "
                "another output_uri, or bring the source back and set on_existing=restart."
            )
        prepared = Prepared(manifest, created=False)
        self._log_outcome(prepared, output)
        return prepared

    def _log_outcome(self, prepared: Prepared, output: Location) -> None:
        counts = prepared.manifest.counts
        self.log.info(
            "%s in %s: %s of %s, %s answered by another's, %s rejected.",
            "Prepared" if prepared.created else "Was prepared before, and is used as it is,",
            output.uri,
            number_of(counts.requests, "request"),
            number_of(counts.rows, "row"),
            f"{counts.duplicates:,}",
            f"{counts.rejected:,}",
        )
        if counts.rejected:
            self.log.warning(
                "%s cannot be sent; %s/rejected.jsonl says why.",
                number_of(counts.rejected, "row"),
                output.uri,
            )

    def find_source(self, output: Location, spec: PromptSpec) -> FoundSource:
        """What the rows come from; not read yet.

        :raises ConfigError: unless exactly one of source and sql is given, and may be read.
        """
        named = self._read_source()
        sql = (self.sql or "").strip()
        if bool(named) == bool(sql):
            raise ConfigError(
                f"Name either a source, or sql with {self._conn_id_name}: one of the two. "
                f"{self._unknown_keys}".rstrip()
            )
        if sql:
            return self._find_query(sql)
        found = find_row_files(
            named,
            output,
            make_resolver("input", self._find_giver("source")),
            format=read_choice("format", self.format, FORMATS),
            delimiter=self.delimiter or None,
            encoding=self.encoding or "",
            sheet=self.sheet or None,
            objects_as="files" if spec.images else "texts",
        )
        return FoundSource(
            note=note_files(found, named),
            open=lambda max_rows: open_row_files(found, max_rows=max_rows),
            check=lambda: check_files(found),
            files=found,
            notices=found.notices,
        )

    def _read_source(self) -> list[str]:
        uris = read_list("source", self.source)
        if len(uris) == 1:  # what was typed into a form: one per line
            uris = [line.strip() for line in uris[0].splitlines() if line.strip()]
        return [uri for uri in uris if uri.strip().lower() not in ("", "none")]

    def _find_query(self, sql: str) -> FoundSource:
        if not self.conn_id:
            raise ConfigError(
                f"{self._conn_id_name} is empty: name the connection to the database that sql is for."
            )
        conn_id, parameters = self.conn_id, self.sql_parameters
        from_form = Giver.FORM in (self._find_giver("sql"), self._find_giver("conn_id"))
        if from_form:
            check_form_query(sql, conn_id)
        else:
            check_conn_id(conn_id, self._find_giver("conn_id"))
        return FoundSource(
            note=note_query(sql, conn_id, parameters),
            open=lambda max_rows: open_query(
                sql, conn_id, parameters, max_rows=max_rows, read_only=from_form
            ),
        )

    def _find_images_root(self, source: FoundSource) -> Location | None:
        root = (self.images_root or "").strip().rstrip("/")
        if not root or root.lower() == "none":
            return None if source.files is None else source.files.prefix
        return open_place(root, "input", self._find_giver("images_root"))


def _read_skip(name: str, value: Any) -> Literal["fail", "commit"]:
    return "commit" if read_choice(name, value, ("fail", "skip")) == "skip" else "fail"


def _is_join(task: Any) -> bool:
    return issubclass(getattr(task, "operator_class", type(task)), OpenAIBatchJoinOperator)
