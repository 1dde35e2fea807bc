"""Devices: what a recipe's words mean on this machine, and when its memory is used up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from synthforge import devices
from synthforge.devices import alone_on_this_machine, cpu_threads, is_out_of_memory, one_worker_each, own_gpu, pick_device, pick_dtype
from synthforge.errors import RequestError


def test_a_device_that_is_not_there_is_refused_with_the_field() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(RequestError, match=r"^trainer.device: cuda:99 is not on this machine; use auto$"):
        pick_device("cuda:99", "trainer.device")


def test_precision_and_workers_follow_the_device() -> None:
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("float16", torch.device("cpu")) == torch.float16
    assert one_worker_each("cpu") == os.cpu_count()
    assert one_worker_each("cuda:1") == 1


def test_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_threads_are_set_within_and_put_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_only_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    code = f"from filelock import FileLock\nFileLock({str(tmp_path / 'compile.lock')!r}, timeout=0).acquire()"
    command = [sys.executable, "-c", code]
    with alone_on_this_machine("compile"):
        assert "Timeout" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("has_nvml", [True, False])
@pytest.mark.parametrize("visible", [None, "4,5,7"])
def test_workers_take_the_gpus_in_turns(has_nvml: bool, visible: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three GPUs as torch counts them: from the environment by NVML, or once and for all by CUDA itself."""

    def count() -> int:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        return len(listed.split(",")) if has_nvml and listed else 3

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is put back afterwards
    found = []
    for worker in range(4):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        devices._take_gpu.cache_clear()  # each worker is a process of its own
        device = own_gpu(worker, 4, "auto")
        assert own_gpu(worker, 4, "auto") == device
        found.append(os.environ["CUDA_VISIBLE_DEVICES"] if device == "auto" else device)
    listed = (visible or "0,1,2").split(",")
    assert found == ([*listed, listed[0]] if has_nvml else ["cuda:0", "cuda:1", "cuda:2", "cuda:0"])
    assert own_gpu(1, 4, "cuda:2") == "cuda:2"
    assert own_gpu(0, 1, "auto") == "auto"
    devices._take_gpu.cache_clear()
