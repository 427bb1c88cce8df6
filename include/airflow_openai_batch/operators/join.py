"""Puts a job's answers beside the rows that a preparation made its requests from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_openai_batch.access.givers import Giver, find_giver
from airflow_openai_batch.access.locations import open_place
from airflow_openai_batch.errors import ConfigError, JobError
from airflow_openai_batch.operators.task.base import OpenAIBatchOperator
from airflow_openai_batch.operators.task.failures import task_failures
from airflow_openai_batch.operators.task.ownership import check_folders_above
from airflow_openai_batch.operators.task.parameters import read_choice, read_flag, read_fraction
from airflow_openai_batch.operators.task.run_place import place_of_run
from airflow_openai_batch.tables.join.join_table import join_answers
from airflow_openai_batch.tables.preparation import read_manifest
from airflow_openai_batch.tables.writing.write_table import FORMATS, TableOptions, find_format
from airflow_openai_batch.wording import number_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_openai_batch.storage.location import Location
    from airflow_openai_batch.tables.join.join_table import Joined, OnUnfinished
    from airflow_openai_batch.tables.writing.write_table import TableFormat

PROGRESS_EVERY_S = 10.0


class OpenAIBatchJoinOperator(OpenAIBatchOperator):
    """Writes the source rows with the answers' columns beside them, in the source's order, as one file.

    The columns: ``answer`` (or ``embedding``, a list of float32), ``answer_status`` (``ok``, ``failed``,
    ``invalid_output``, ``missing``, ``rejected``, ``unfinished``), ``answer_error``, ``answer_model``,
    ``answer_cost_usd`` (of an answer that several rows share, in the first of them), and one for each property of a
    structured answer, in its type; lists and objects are JSON text in CSV and Excel. A name that the source has
    already begins with ``openai_``.

    Every source row stands in the file exactly once; that is checked before the file appears. Run again, it writes
    the same file again at no cost. Returns the file's URI, the counts and the cost.

    :param prepared: the directory that `OpenAIBatchPrepareOperator` wrote.
    :param job: the directory of the job that ran on just this, as the split pushes it under the key ``job``; may be
        empty where no row could be asked about, so that nothing was split. Where the split failed it is empty as well:
        with ``on_unfinished="keep"`` the task is skipped then, and a table of an earlier run stays.
    :param output_uri: the file to write. ``{run_id}`` stands for the run id in a form fit for a path.
    :param format: ``parquet``, ``csv``, ``jsonl`` or ``xlsx`` (needs the extra ``tables``); by default what the name
        of the file ends in. Vectors only go into ``parquet`` and ``jsonl``.
    :param on_unfinished: where shards are not done: ``fail``, or ``keep`` their rows with what there is, for instance
        after a sample. With ``trigger_rule="all_done"``, and after the shards in place of the report, there is a table
        whatever became of the shards; `OpenAIBatchTaskGroup` has what that takes.
    :param for_excel: of a CSV: with a byte order mark, so that Excel takes it for UTF-8.
    :param raw_csv: of a CSV: text as it is. By default an apostrophe stands before what a spreadsheet would run as a
        formula. Set it where a machine reads the file.
    :param overwrite: a file that is at ``output_uri`` already and was not written by this operator. By default that is
        an error, and one of ours that somebody has changed since is put aside under another name.
    :param max_rejected_fraction: the file is written, then the task fails where more than this part of the rows could
        not be asked about at all: mostly a prompt or a file that is not what was thought.
    :param long_text: of a workbook: a text beyond the 32,767 characters of a cell: ``fail``, or ``cut`` it.
    """

    template_fields: Sequence[str] = (
        "prepared",
        "job",
        "output_uri",
        "format",
        "on_unfinished",
        "for_excel",
        "raw_csv",
        "long_text",
        "max_rejected_fraction",
        "overwrite",
    )
    ui_color = "#e8f3ee"

    def __init__(
        self,
        *,
        prepared: str,
        job: str,
        output_uri: str,
        format: Literal["parquet", "csv", "jsonl", "xlsx"] | str | None = None,
        on_unfinished: Literal["fail", "keep"] | str = "fail",
        for_excel: bool | str = False,
        raw_csv: bool | str = False,
        long_text: Literal["fail", "cut"] | str = "fail",
        max_rejected_fraction: float | str = 0.05,
        overwrite: bool | str = False,
        retries: int = 3,
        retry_delay: timedelta | float = timedelta(minutes=1),
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, retry_delay=retry_delay, **kwargs)
        self.prepared = prepared
        self.job = job
        self.output_uri = output_uri
        self.format = format
        self.on_unfinished = on_unfinished
        self.for_excel = for_excel
        self.raw_csv = raw_csv
        self.long_text = long_text
        self.max_rejected_fraction = max_rejected_fraction
        self.overwrite = overwrite

    def execute(self, context: Context) -> dict[str, Any]:
        with task_failures():
            allowed = read_fraction("max_rejected_fraction", self.max_rejected_fraction)
            place = self._open_output(context)
            has_job = bool(self.job and self.job.strip())
            on_unfinished: OnUnfinished = read_choice("on_unfinished", self.on_unfinished, ("fail", "keep"))
            if on_unfinished == "keep" and not has_job and not _has_nothing_to_ask(self.prepared, context):
                raise AirflowSkipException(
                    "Nothing was sent in this run: the split pushed no job. See its log."
                )
            joined = join_answers(
                _open("prepared", self.prepared, find_giver(context, "prepared")),
                _open("job", self.job, find_giver(context, "job")) if has_job else None,
                place,
                format=self._read_format(place.uri),
                options=TableOptions(
                    for_excel=read_flag("for_excel", self.for_excel),
                    raw_csv=read_flag("raw_csv", self.raw_csv),
                    long_text=read_choice("long_text", self.long_text, ("fail", "cut")),
                ),
                on_unfinished=on_unfinished,
                overwrite=read_flag("overwrite", self.overwrite),
                progress=_ProgressLog(self.log),
            )
        for notice in joined.notices:
            self.log.warning("%s", notice)
        self.log.info("%s", joined)
        with task_failures():
            check_rejected(joined, allowed)
        return {
            "uri": joined.uri,
            "format": joined.format,
            "rows": joined.rows,
            "statuses": joined.statuses,
            "columns": list(joined.columns),
            "cost_usd": joined.cost_usd,
        }

    def _open_output(self, context: Context) -> Location:
        pattern = self.output_uri.strip()
        if not pattern or pattern.endswith("/"):
            raise ConfigError(
                f"output_uri={self.output_uri!r}: name the file to write, for instance s3://bucket/answers.parquet."
            )
        giver = find_giver(context, "output_uri")
        place = open_place(place_of_run(pattern, context["ti"], giver), "output", giver)
        check_folders_above(place, context["ti"].dag_id, giver)
        return place

    def _read_format(self, uri: str) -> TableFormat:
        if self.format is None or str(self.format).strip().lower() in ("", "none"):
            return find_format(uri)
        return read_choice("format", self.format, FORMATS)


def check_rejected(joined: Joined, allowed: float) -> None:
    """:raises JobError: if more than this part of the rows was rejected."""
    rejected = joined.statuses.get("rejected", 0)
    if rejected > allowed * joined.rows:
        raise JobError(
            f"{number_of(rejected, 'row')} of {joined.rows:,} could not be asked about: more than "
            f"max_rejected_fraction={allowed:g} allows. {joined.uri} is written all the same, with the reason beside "
            "each row. Mend the rows or the prompt and run again with another output_uri or on_existing=restart, or "
            "raise max_rejected_fraction."
        )


def _has_nothing_to_ask(prepared: str, context: Context) -> bool:
    """Whether there is a preparation, and no row of it could be asked about: the table then says why."""
    if not prepared or prepared.strip().lower() in ("", "none"):  # the task that prepares failed
        return False
    manifest = read_manifest(_open("prepared", prepared, find_giver(context, "prepared")))
    return manifest is not None and not manifest.counts.requests


def _open(name: str, uri: str, giver: Giver) -> Location:
    if not uri or not uri.strip():
        raise ConfigError(f"{name} is empty: the task before pushed none. Look at its log.")
    return open_place(uri.strip().rstrip("/"), "output", giver)


class _ProgressLog:
    """One line every ten seconds while a large table is written."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if (now := time.monotonic()) - self._last >= PROGRESS_EVERY_S:
            self._last = now
            self._log.info("Joined %s of %s rows.", f"{done:,}", f"{total:,}")
