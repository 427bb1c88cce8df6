"""Every error this package raises on purpose.

::

    OpenAIBatchError
    ├── ConfigError              a setting or parameter cannot be used as it is
    │   ├── NoPlanError          the directory has no plan.json, seen from here
    │   ├── NotAllowedError      the configuration does not let this run use a place or connection
    │   └── OutOfBoundsError     a symbolic link leads outside
    ├── InputError               the input cannot be sent as it is
    │   ├── BadLinesError        lines that could not be requests, with on_bad_line=fail
    │   ├── EmptyInputError      no request in the input, with on_empty=fail
    │   ├── InputChangedError    the input is not what was planned
    │   └── UnreadableInputError the storage, or the way to it, said no
    ├── JobError                 the job directory does not allow the next step
    │   ├── JobExistsError       a plan is there already and may not be gone on with
    │   ├── ForeignJobError      another DAG has planned it
    │   ├── LedgerError          the ledger cannot be read; not the same as absent
    │   └── AccountingError      a request is in no row or in two
    ├── BudgetError              max_cost_usd or monthly_budget_usd would be exceeded, or cannot be kept
    ├── WorkerDiedError          a process that counts tokens ended
    └── RemoteError              OpenAI, or the way to it, said no
        ├── FatalAccountError    wrong key, no rights, no quota, billing limit
        │   └── BreakerOpenError another shard of the run has just met that
        ├── TransientError       worth another try: time-outs, resets, 408, 409, 429, 5xx
        │   └── NoCapacityError  flex has no room for the request now
        ├── NotFoundError        404: the file or batch is not known (any more)
        ├── RequestRefusedError  any other 4xx, and a redirect
        │   └── NoFlexError      the model has no flex, or the project does not allow it
        ├── AnswerError          a 2xx whose content is not what the call promises
        ├── BatchRejectedError   the batch failed validation; nothing ran, nothing was billed
        ├── ListError            a list cannot be read to its end
        └── DownloadError        a file did not arrive whole
            └── UnprovenError    a batch's results are not (yet) what it says they are

`sending.realtime.slots.RealtimeBusyError` is one, too: enough real-time sends are running.

A message says where, what, the limit and the way out, and never quotes a body or a key.
"""

from __future__ import annotations


class OpenAIBatchError(Exception):
    """Root of all errors of this package.

    ``permanent`` says whether trying again unchanged can help; operators fail the task without
    retries where it is true.
    """

    permanent = True


class ConfigError(OpenAIBatchError):
    """A setting or parameter cannot be used as it is."""


class NoPlanError(ConfigError):
    """The directory has no ``plan.json``: nothing was split into it, or it lies on the disk of another machine.

    :param uri: the job directory.
    :param way_out: what to do about it.
    """

    def __init__(self, uri: str, way_out: str = "split the input first.") -> None:
        super().__init__(f"{uri}: there is no plan.json; {way_out}")
        self.uri = uri


class NotAllowedError(ConfigError):
    """``[openai_batch]`` does not let this run use a place or a connection; the message says what would."""


class OutOfBoundsError(ConfigError):
    """A symbolic link leads from where files may be read or written to where they may not."""


class InputError(OpenAIBatchError):
    """The input cannot be sent as it is."""


class BadLinesError(InputError):
    """Lines that could not be requests; the message lists the first ten and counts all."""


class EmptyInputError(InputError):
    """There is no request in the input."""


class InputChangedError(InputError):
    """The input is not (any more) what was planned."""


class UnreadableInputError(InputError):
    """The storage of the input, or the way to it, said no; worth another try."""

    permanent = False


class JobError(OpenAIBatchError):
    """The job directory does not allow the next step."""


class JobExistsError(JobError):
    """A plan is there already and may not be gone on with."""


class ForeignJobError(JobError):
    """Another DAG has planned the job: it may be read, and nothing else."""


class LedgerError(JobError):
    """The ledger is there but cannot be read."""


class NewerReleaseError(JobError):
    """A newer release has written it. While a cluster is upgraded, the next try may run where that is installed."""

    permanent = False


class AccountingError(JobError):
    """A request stands in no row, or in two."""


class GivenUpError(JobError):
    """A thread comes too late: who waited for it has gone on without it."""


class TooLargeError(JobError):
    """More came than there is room for where it was asked for."""


class BudgetError(OpenAIBatchError):
    """What is about to be sent could cost more than a budget allows, or what it costs cannot be known."""


class WorkerDiedError(OpenAIBatchError):
    """A process that counts tokens ended before its work did, most likely for lack of memory."""

    permanent = False


class RemoteError(OpenAIBatchError):
    """OpenAI, or the way to it, said no.

    :param status_code: the HTTP status, if there was an answer.
    :param code: OpenAI's error code, for instance ``token_limit_exceeded``.
    :param retry_after_s: what the server asked to wait, in seconds.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.retry_after_s = retry_after_s


class FatalAccountError(RemoteError):
    """The account cannot pay or may not ask: 401, 403, insufficient_quota, billing limit."""


class BreakerOpenError(FatalAccountError):
    """Another shard of the run has just met an answer about the account, so nothing was asked."""


class TransientError(RemoteError):
    """Time-outs, resets, 408, 409, 429 and 5xx: worth another try."""

    permanent = False


class NoCapacityError(TransientError):
    """Flex has had no room for minutes; nothing of it was billed."""


class NotFoundError(RemoteError):
    """404: OpenAI does not know the file or the batch (any more)."""


class RequestRefusedError(RemoteError):
    """Any other 4xx, and a redirect that is not followed: the call had no effect."""


class NoFlexError(RequestRefusedError):
    """The model has no flex, or the account's project does not allow it; nothing was billed."""


class AnswerError(RemoteError):
    """A 2xx whose content is not what the call promises: the call may have had its effect."""


class BatchRejectedError(RemoteError):
    """The batch failed validation: nothing ran and nothing was billed."""


class DownloadError(RemoteError):
    """A file did not arrive whole."""

    permanent = False


class UnprovenError(DownloadError):
    """What a batch left is not there, or is not what its counts promise. Nothing may be sent again for what it lacks.

    :param code: one of `results_check`'s.
    """


class ListError(RemoteError):
    """A list cannot be read to its end: what was not found in it may be there all the same."""
