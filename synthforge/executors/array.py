"""One part of the work for each job of an array. There is no coordinator: the jobs share only the dataset folder.

Parts are fixed by number and count, so jobs need not know of each other.
If a job never runs, a later run makes its part.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from synthforge.errors import RequestError

SLURM = "slurm"


@dataclass(frozen=True)
class ArrayPart:
    """One of several equal parts. Shards are dealt out in turns, so parts stay equal when a dataset is extended."""

    number: int
    """From 1."""
    of: int

    def has(self, index: int) -> bool:
        """Whether a unit belongs to this part, by its number from 0."""
        return index % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_part(text: str, environ: Mapping[str, str] = os.environ) -> ArrayPart:
    """Parse the value of `--part`: `2/8`, or `slurm` to take it from Slurm's variables; raises RequestError."""
    if text == SLURM:
        return part_from_slurm(environ)
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    if match is None:
        raise RequestError(f"--part {text}: give number and count, such as 2/8, or {SLURM}")
    number, of = map(int, match.groups())
    if of == 0:
        raise RequestError(f"--part {text}: there are no parts of 0; give number and count, such as 1/8")
    if number == 0:
        raise RequestError(f"--part {text}: parts count from 1, so the first is 1/{of}")
    if number > of:
        raise RequestError(f"--part {text}: there are only {of} parts; the last is {of}/{of}")
    return ArrayPart(number, of)


def part_from_slurm(environ: Mapping[str, str]) -> ArrayPart:
    """The part of this process, from its task in the job array and its process in the `srun` step.

    Raises: RequestError if it is in neither.
    """
    array, step = _array_task(environ), _step_process(environ)
    if array is None and step is None:
        raise RequestError(f"--part {SLURM}: neither SLURM_ARRAY_TASK_ID nor SLURM_PROCID is set; start it with sbatch --array or srun")
    (task, tasks), (process, processes) = array or (0, 1), step or (0, 1)
    return ArrayPart(task * processes + process + 1, tasks * processes)


def _array_task(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Number of this task in the job array, from 0, and number of tasks. None: there is no array."""
    if "SLURM_ARRAY_TASK_ID" not in environ:
        return None
    number, lowest, count = (_number(environ, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "COUNT"))
    step = _number(environ, "SLURM_ARRAY_TASK_STEP", 1)
    index, rest = divmod(number - lowest, max(step, 1))
    if rest or not 0 <= index < count:
        raise RequestError(
            f"--part {SLURM}: task {number} of {count} from {lowest} in steps of {step}: the ids are not evenly spaced; "
            f"use sbatch --array=1-{max(count, 1)}"
        )
    return index, count


def _step_process(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """Number of this process in the `srun` step, from 0, and number of processes. None: there is no step.

    A batch script also has a SLURM_PROCID, which is 0, and the SLURM_NTASKS of the whole job, but it runs only once.
    """
    if "SLURM_PROCID" not in environ:
        return None
    process = _number(environ, "SLURM_PROCID")
    count = _number(environ, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS", 1)
    if process == 0 and count > 1 and not {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"} & environ.keys():
        if "SLURM_ARRAY_TASK_ID" in environ:
            return None
        raise RequestError(f"--part {SLURM}: the job has {count} tasks but this is its batch script; start it with srun, once per task")
    if process >= count:
        raise RequestError(f"--part {SLURM}: SLURM_PROCID is {process} of {count} tasks; start it with srun")
    return process, count


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name, "" if default is None else str(default))
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None:
        raise RequestError(f"--part {SLURM}: {name} is {text!r}, not a number; give --part NUMBER/COUNT yourself")
    return int(text)
