"""Devices of this machine: the device and precision that a recipe names, memory errors, one process at a time."""

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
    """The torch device with a name; `auto` is a GPU if there is one. Raises RequestError if it is not on this machine.

    Args:
        where: the field of the recipe, for messages.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.type] or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise RequestError(f"{where}: {name} is not on this machine; use auto")
    return device


def one_worker_each(device: str) -> int:
    """Number of processes for work that uses one GPU or one core each."""
    if device == "auto" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return os.cpu_count() or 1 if device in {"auto", "cpu"} else 1


def own_gpu(worker: int, workers: int, device: str) -> str:
    """The device of one of several worker processes. With `auto`, they take the GPUs in turns.

    Each worker sees only its own GPU, as its first device, so code that one has compiled fits the others.
    Without NVML, CUDA reads the environment once to count devices. Then the GPU is named by its number.
    """
    return device if workers == 1 or device != "auto" else _take_gpu(worker)


@functools.cache  # the environment is changed only once
def _take_gpu(worker: int) -> str:
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return "auto"
    number = worker % num_gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_gpus)))).split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number]
    return "auto" if torch.cuda.device_count() == 1 else f"cuda:{number}"


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype with a name. `auto` is bfloat16 on a GPU that supports it, and float32 otherwise."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory ran out. On a CPU, and from cuBLAS, it is a plain RuntimeError."""
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


@contextmanager
def alone_on_this_machine(name: str) -> Iterator[None]:
    """A context for one process at a time. The first compiles or measures something, and the others use it."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    cache = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir()) / f"synthforge-{user}")
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        yield


@contextmanager
def cpu_threads(num: int) -> Iterator[None]:
    """A context with this many threads for torch. The number of threads changes how sums are rounded."""
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
