"""Every training begins and goes on a little differently: what another processor, or another seed, would do to it.

Python imports this module when it starts with this folder on its path, so spawned processes do it too.
`PERTURB=SEED:THREADS` says how:
initial weights change by a relative 1e-6, seeds of trainings by SEED, and torch computes with so many threads, whatever
is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from typing import Any

LOOP = "synthforge.training.loop"
"""The one module by which all networks are trained."""


class _Finder(MetaPathFinder):
    """Perturbs the training loop as soon as somebody imports it; torch is not imported for that."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != LOOP:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), _perturb(module.TrainingLoop))
        return spec


def _perturb(loop: Any) -> None:
    import torch

    seed, threads = map(int, os.environ["PERTURB"].split(":"))
    torch.set_num_threads(threads)
    torch.set_num_threads = lambda num: None
    begin, manual_seed = loop.__init__, torch.manual_seed
    torch.manual_seed = lambda number: manual_seed(number + 1000 * seed)

    def perturbed(self: Any, network: Any, batch_of: Any, loss: Any, config: Any, *rest: Any, **options: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in filter(lambda one: one.requires_grad, network.parameters()):
                parameter.mul_(1 + 1e-6 * torch.randn(parameter.shape, generator=generator).to(parameter.device))
        begin(self, network, batch_of, loss, config.model_copy(update={"seed": config.seed + 1000 * seed}), *rest, **options)

    loop.__init__ = perturbed


if "PERTURB" in os.environ:
    sys.meta_path.insert(0, _Finder())
