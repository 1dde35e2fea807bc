"""`make robust` does change trainings: their weights, in every process, and by as little as it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TRAIN = """
import json, multiprocessing
def train(num_steps):
    import torch
    from synthforge.training.config import LoopConfig
    from synthforge.training.loop import TrainingLoop
    torch.set_num_threads(1)
    torch.manual_seed(0)
    def loss(network, batch, generator):
        return (network(torch.randn(64, 4, generator=generator)) - 1).square().mean()
    loop = TrainingLoop(torch.nn.Linear(4, 1), lambda step: (), loss, LoopConfig(images=64 * num_steps, batch=64, checks=1))
    begun = loop.network.weight.detach()[0].tolist()
    list(loop.run())
    return begun, loop.network.weight[0].tolist(), torch.get_num_threads()
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(json.dumps([train(20), pool.apply(train, (20,))]))
"""


@pytest.mark.slow
def test_a_perturbed_training_is_another_one_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(TRAIN)
    path = os.pathsep.join([str(ROOT / "tests" / "perturbed"), str(ROOT)])
    found = {}
    for perturb in (None, "0:2", "1:1"):
        environment = {name: value for name, value in os.environ.items() if name != "PERTURB"} | {"PYTHONPATH": path}
        environment |= {"PERTURB": perturb} if perturb else {}
        ran = subprocess.run([sys.executable, tmp_path / "train.py"], env=environment, capture_output=True, text=True, check=True)
        here, spawned = json.loads(ran.stdout)
        assert here == spawned
        found[perturb] = here
    (begun, ended, threads), (near_begun, near_ended, near_threads), (far_begun, _, far_threads) = found.values()
    assert near_begun != begun and near_begun == pytest.approx(begun, rel=1e-5)
    assert near_ended != ended and near_ended == pytest.approx(ended, abs=1e-4)
    assert far_begun != pytest.approx(begun, rel=0.01)
    assert (threads, near_threads, far_threads) == (1, 2, 1)
