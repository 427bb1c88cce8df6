"""What to do where a plan is there already: go on with it, refuse, or put it aside and pay again.

A restart moves the files of the old generation below ``generations/``, its plan first. A crash in the middle
leaves a directory without a plan but with generations; whoever comes next finishes the move.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_openai_batch.job import directory
from airflow_openai_batch.job.open_plan import open_plan

if TYPE_CHECKING:
    from airflow_openai_batch.job.plan import PlanHead
    from airflow_openai_batch.storage.location import Location


def last_generation(output: Location) -> int:
    """The highest generation that was put aside; 0 where none was."""
    folder = output.child(directory.GENERATIONS)
    numbers = (name.split("/", 1)[0] for name in folder.names(recursive=True))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def read_last_head(output: Location) -> PlanHead | None:
    """Of the plan, or where a restart was cut off, of that which it had put aside already; None where there is neither.

    :raises JobError: as `open_plan`.
    """
    plan = open_plan(output)
    if plan is None and (generation := last_generation(output)):
        plan = open_plan(output.child(directory.generation_folder(generation)))
    return None if plan is None else plan.head


def put_aside(output: Location, generation: int) -> None:
    """Move all files of the job below ``generations/<generation>/``. May be repeated after a crash.

    Costs one rename per file on a disk, one copy within the store elsewhere.
    """
    target = output.child(directory.generation_folder(generation))
    names = [name for name in output.names(recursive=True) if _is_of_job(name)]
    for name in sorted(names, key=lambda name: (name != directory.PLAN, name)):
        _move(output.child(name), target.child(name))


def _is_of_job(name: str) -> bool:
    """Whether this package put the file there, and not a person or a generation before."""
    folder, slash, _ = name.partition("/")
    return folder in directory.FOLDERS - {directory.GENERATIONS} if slash else name in directory.FILES


def _move(old: Location, new: Location) -> None:
    """A copy that an earlier try completed is not overwritten."""
    if not new.exists():
        new.make_parent()
        with contextlib.suppress(FileNotFoundError):  # another task moves, too
            new.fs.mv(old.path, new.path)
    else:
        old.remove()
