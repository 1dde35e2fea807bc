"""Schedulers by name, with arguments."""

from __future__ import annotations

import pytest

from synthforge.generators.config import SamplingConfig, SchedulerConfig
from synthforge.generators.pixel.config import PixelConfig
from tests.generators.pixel.made import BUILTIN, loaded, requests


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_schedulers_by_name_with_arguments(name: str) -> None:
    sampling = SamplingConfig(steps=4, scheduler=SchedulerConfig(name=name, arguments={"rho": 5.0}))
    generator = loaded(PixelConfig(kind="pixel", model=BUILTIN), sampling)
    assert type(generator.pipeline.scheduler).__name__ == name
    assert generator.identity()["scheduler_config"]["rho"] == 5.0
    assert generator.sample(generator.prepare(requests(1, 2)))[0].float().std() > 10
