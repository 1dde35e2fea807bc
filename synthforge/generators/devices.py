"""Which device and precision a recipe's words mean on this machine."""

from __future__ import annotations

import torch

from synthforge.errors import RequestError


def pick_device(name: str) -> torch.device:
    """The torch device that a recipe's `execution.device` means; raises RequestError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[wanted.type] or (wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count()):
        raise RequestError(f"execution.device: {name} is not on this machine; use --set execution.device=auto")
    return wanted


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision that a recipe's `generator.dtype` means on a device."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    found: torch.dtype = getattr(torch, name)
    return found
