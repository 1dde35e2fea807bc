"""diffusers' schedulers by name, and building one from a model's own with some arguments changed."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import math
from pathlib import Path
from typing import Any

from pydantic import field_validator

from synthforge.config import Config, identity
from synthforge.errors import RequestError, did_you_mean


def diffusers_folder() -> Path:
    """The source of the installed diffusers, found without importing it."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@functools.cache
def scheduler_names() -> list[str]:
    """Names of the schedulers of the installed diffusers, read from its files without importing it."""
    source = (diffusers_folder() / "schedulers" / "__init__.py").read_text()
    names = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return sorted(name for name in names if name.endswith("Scheduler"))


class SchedulerConfig(Config):
    """A diffusers scheduler by its class name."""

    name: str = identity()
    """Class name, for example DPMSolverMultistepScheduler, LCMScheduler or FlowMatchEulerDiscreteScheduler."""
    arguments: dict[str, str | int | float | bool] = identity(dict)
    """Fields that replace those of the scheduler saved with the model."""

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in scheduler_names():
            hint = did_you_mean(name, scheduler_names(), "see diffusers' documentation for names")
            raise ValueError(f"diffusers has no scheduler {name!r}; {hint}")
        return name

    def check(self) -> None:
        """Raise RequestError for an unknown argument of the scheduler."""
        import diffusers

        known = set(inspect.signature(getattr(diffusers, self.name).__init__).parameters) - {"self"}
        for argument in self.arguments:
            if argument not in known:
                hint = did_you_mean(argument, known, "remove it")
                raise RequestError(f"sampling.scheduler.arguments.{argument}: {self.name} has no such argument; {hint}")

    def build(self, of_model: Any) -> Any:
        """The scheduler, with other fields from the model's own; raises RequestError if they don't fit."""
        import diffusers

        self.check()
        scheduler_class = getattr(diffusers, self.name)
        try:
            return scheduler_class.from_config(of_model.config, **self.arguments)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise RequestError(
                f"sampling.scheduler: {self.name} can't take the place of {type(of_model).__name__} here ({error})"
            ) from error


def describe(scheduler: Any) -> dict[str, Any]:
    """Class and configuration for records. JSON has no infinity, so it is written as a word."""
    config = {key: _in_json(value) for key, value in sorted(scheduler.config.items()) if not key.startswith("_")}
    return {"scheduler": type(scheduler).__name__, "scheduler_config": config}


def _in_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_in_json(item) for item in value]
    return value
