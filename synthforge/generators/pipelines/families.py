"""Which diffusers pipelines belong to which kind.

The lists of text-to-image and image-to-image pipelines are read from the source of diffusers' AutoPipeline. So a newer
diffusers brings newer families, and a recipe is checked without importing diffusers.
"""

from __future__ import annotations

import ast
import functools

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
