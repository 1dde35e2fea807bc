"""The part of an array that a job does."""

from __future__ import annotations

import pytest

from synthforge.errors import RequestError
from synthforge.executors.array import ArrayPart, parse_part, part_from_slurm


def test_parts_are_disjoint_and_together_everything() -> None:
    parts = [parse_part(f"{number}/3") for number in (1, 2, 3)]
    assert [sum(part.has(index) for part in parts) for index in range(20)] == [1] * 20
    assert parse_part("2/8") == ArrayPart(2, 8) and str(parse_part("2/8")) == "2/8"
    assert [index for index in range(20) if ArrayPart(2, 8).has(index)] == [1, 9, 17]
    assert all(parse_part("1/1").has(index) for index in range(5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0/4", "parts count from 1, so the first is 1/4"),
        ("5/4", "there are only 4 parts; the last is 4/4"),
        ("1/0", "there are no parts of 0"),
        ("-1/4", "give number and count, such as 2/8"),
        ("2of8", "give number and count"),
        ("٢/٨", "give number and count"),
        ("2/8\n", "give number and count"),
        ("", "give number and count"),
        ("slurm", "start it with sbatch --array or srun"),
    ],
)
def test_a_part_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_part(text, {})
    assert str(caught.value).startswith(f"--part {text}: ") and words in str(caught.value)


def slurm(task: object = None, low: int = 0, count: int = 8, step: int | None = None, **others: object) -> dict[str, str]:
    array = {} if task is None else {"ID": task, "MIN": low, "COUNT": count} | ({} if step is None else {"STEP": step})
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()} | {
        f"SLURM_{name}": str(value) for name, value in others.items()
    }


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        (slurm(0), ArrayPart(1, 8)),
        (slurm(7), ArrayPart(8, 8)),
        (slurm(1, low=1), ArrayPart(1, 8)),
        (slurm(8, low=1, step=1), ArrayPart(8, 8)),
        (slurm(7, low=1, count=4, step=3), ArrayPart(3, 4)),
        (slurm(PROCID=0, NTASKS=4, STEP_ID=0), ArrayPart(1, 4)),
        (slurm(PROCID=3, NTASKS=4), ArrayPart(4, 4)),
        (slurm(PROCID=1, NTASKS=16, STEP_NUM_TASKS=2, STEP_ID=0), ArrayPart(2, 2)),
        (slurm(PROCID=0, NTASKS=1), ArrayPart(1, 1)),
        (slurm(2, low=1, count=4, PROCID=1, NTASKS=3, STEP_ID=0), ArrayPart(5, 12)),
        (slurm(2, low=1, count=4, PROCID=0, NTASKS=3), ArrayPart(2, 4)),  # in the batch script, which runs once
        (slurm(2, low=1, count=4, PROCID=0), ArrayPart(2, 4)),
    ],
)
def test_slurm_says_the_part(environ: dict[str, str], part: ArrayPart) -> None:
    assert part_from_slurm(environ) == part == parse_part("slurm", environ)


def test_slurm_parts_cover_an_array_of_steps() -> None:
    parts = [
        part_from_slurm(slurm(task, low=2, count=3, step=2, PROCID=process, NTASKS=2, STEP_ID=0))
        for task in (2, 4, 6)
        for process in (0, 1)
    ]
    assert parts == [ArrayPart(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (slurm(5, low=1, count=3), "not evenly spaced; use sbatch --array=1-3"),
        (slurm(4, low=1, count=4, step=2), "not evenly spaced"),
        (slurm("x"), "SLURM_ARRAY_TASK_ID is 'x', not a number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is ''"),
        (slurm(PROCID=0, NTASKS=4), "this is its batch script; start it with srun"),
        (slurm(PROCID=4, NTASKS=4), "SLURM_PROCID is 4 of 4"),
    ],
)
def test_slurm_variables_that_make_no_sense_are_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        part_from_slurm(environ)
    assert words in str(caught.value) and "\n" not in str(caught.value)
