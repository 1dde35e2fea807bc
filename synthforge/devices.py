"""Devices of this machine: which a recipe's words mean, when their memory is used up, and who has them for himself."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock

from synthforge.errors import RequestError


def pick_device(name: str, where: str = "execution.device") -> torch.device:
    """The torch device that a recipe's field means (`auto` takes a GPU if there is one); raises RequestError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[wanted.type] or (wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count()):
        raise RequestError(f"{where}: {name} is not on this machine; use auto")
    return wanted


def one_worker_each(device: str) -> int:
    """Processes for work that takes one GPU, or one core: one for each."""
    if device == "auto" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return os.cpu_count() or 1 if device in {"auto", "cpu"} else 1


def own_gpu(worker: int, workers: int, device: str) -> str:
    """The device of one of several workers, each in a process of its own: on `auto` they take the GPUs in turns.

    Each sees its own GPU only, so that it is the first device of every worker, and what one has compiled fits the others. Where CUDA
    has looked at the environment already (that is how devices are counted without NVML), the GPU is named by its number instead.
    """
    return device if workers == 1 or device != "auto" else _taken(worker)


@functools.cache  # the environment is changed once, however often a worker asks
def _taken(worker: int) -> str:
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return "auto"
    number = worker % num_gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_gpus)))).split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number]
    return "auto" if torch.cuda.device_count() == 1 else f"cuda:{number}"


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision that a recipe means on a device; `auto` is bfloat16 where a GPU has it."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    found: torch.dtype = getattr(torch, name)
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory did not do; on a CPU, and from cuBLAS, it is a plain RuntimeError."""
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


@contextmanager
def alone_on_this_machine(name: str) -> Iterator[None]:
    """One process at a time: the first compiles or measures and keeps what it found, those that waited find it."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    cache = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir()) / f"synthforge-{user}")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        yield


@contextmanager
def cpu_threads(num: int) -> Iterator[None]:
    """So many threads for torch, since sums of more threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
