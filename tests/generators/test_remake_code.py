"""Code that makes an image again, from its record alone. `tests/test_text_to_image.py` runs such code for real
pipelines."""

from __future__ import annotations

import ast
from typing import Any

from synthforge.generators.remake_code import remake_code

GENERATOR: dict[str, Any] = {
    "class": "StableDiffusionPipeline",
    "model": "some/model",
    "revision": "abc",
    "sha256": "0" * 64,
    "scheduler": "DDIMScheduler",
    "scheduler_config": {"sigma_max": "inf", "clip": None},
    "steps": 7,
    "resolution": 64,
    "dtype": "float32",
    "arguments": {"height": 64},
}
RECORD: dict[str, Any] = {
    "class": "cat",
    "prompt": "a 'cat'",
    "negative": "dog",
    "seed": 5,
    "guidance": 3.0,
    "source": None,
    "generator": GENERATOR,
}


def call_of(code: str) -> dict[str, str]:
    """Arguments of the pipeline's call."""
    (call,) = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "pipeline"]
    return {str(keyword.arg): ast.unparse(keyword.value) for keyword in call.keywords}


def test_the_call_has_what_the_record_says() -> None:
    code = remake_code(RECORD, {}, None)
    assert call_of(code) == {
        "prompt": repr(["a 'cat'"]),
        "negative_prompt": "['dog']",
        "guidance_scale": "3.0",
        "num_inference_steps": "7",
        "height": "64",
        "generator": "[noise]",
    }
    assert "manual_seed(5)" in code
    assert "revision='abc'" in code
    assert "float('inf')" in code, "JSON has no infinity"


def test_files_of_this_machine_are_named_by_their_place(tmp_path: Any) -> None:
    code = remake_code(RECORD, {"0" * 64: str(tmp_path)}, None)
    assert repr(str(tmp_path)) in code
    assert "revision" not in code


def test_a_record_of_others_says_so() -> None:
    assert remake_code({"generator": None}, {}, None).startswith("#")


def test_a_source_is_read_from_the_reference() -> None:
    code = remake_code(RECORD | {"source": "cat/1", "strength": 0.4}, {}, "photos")
    ast.parse(code)
    assert call_of(code)["image"] == "source"
    assert "Sources.read('photos').find('cat/1')" in code
