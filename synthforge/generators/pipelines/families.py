"""Which diffusers pipelines belong to which kind.

The lists of text-to-image and image-to-image pipelines are read from the source of diffusers' AutoPipeline. So a newer
diffusers brings newer families, and a recipe is checked without importing diffusers.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping

from synthforge.generators.schedulers import diffusers_folder

DIT = frozenset({"DiTPipeline"})
UNCONDITIONAL = frozenset({"DDPMPipeline", "DDIMPipeline", "PNDMPipeline", "LDMPipeline", "ConsistencyModelPipeline"})


@functools.cache
def _mapping(task: str) -> dict[str, str]:
    """Family to pipeline class, from AutoPipeline's table for a task (TEXT2IMAGE, IMAGE2IMAGE)."""
    for node in ast.walk(ast.parse((diffusers_folder() / "pipelines" / "auto_pipeline.py").read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == f"AUTO_{task}_PIPELINES_MAPPING":
            pairs = [pair for pair in ast.walk(node.value) if isinstance(pair, ast.Tuple) and len(pair.elts) == 2]
            return {ast.literal_eval(pair.elts[0]): pair.elts[1].id for pair in pairs if isinstance(pair.elts[1], ast.Name)}
    return {}


def text_to_image_classes() -> dict[str, str]:
    """Pipeline class to family, without pipelines that need a control image or make videos."""
    return {name: family for family, name in _mapping("TEXT2IMAGE").items() if "Control" not in name and "Helios" not in name}


def image_to_image_class(text_class: str) -> str | None:
    """The image-to-image form of a text-to-image pipeline; None if diffusers has none."""
    return _mapping("IMAGE2IMAGE").get(text_to_image_classes().get(text_class, ""))


@functools.cache
def call_parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a pipeline's call. This imports diffusers."""
    import diffusers

    return inspect.signature(getattr(diffusers, name).__call__).parameters


@functools.cache
def guides_above(name: str, scale: str) -> float | None:
    """The value above which an argument of a pipeline's call guides, read from its source. None: it does not say."""
    import diffusers

    values = [
        float(node.comparators[0].value)  # type: ignore[arg-type]
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(getattr(diffusers, name)))))
        if isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Gt)
        and isinstance(node.comparators[0], ast.Constant)
        and str(getattr(node.left, "attr", getattr(node.left, "id", ""))).lstrip("_") == scale
    ]
    return min(values, default=None)
