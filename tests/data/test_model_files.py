"""Which files are a model: names, weights in a folder, digests, and what is refused."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from synthforge.data.model_files import (
    as_path,
    components_in,
    find_model,
    hub_id,
    in_one_line,
    is_hub_id,
    require_safetensors,
    weights_in,
)
from synthforge.errors import ModelError, PlaceError


def pipeline(place: Path, files: dict[str, bytes]) -> Path:
    """A folder that looks like a diffusers pipeline with a UNet."""
    place.mkdir()
    (place / "model_index.json").write_text(json.dumps({"_class_name": "Any", "unet": ["diffusers", "UNet2DModel"], "vae": [None, None]}))
    for name, content in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)
    return place


def test_names_of_the_hub_are_told_from_paths() -> None:
    assert is_hub_id("someone/model")
    assert not any(map(is_hub_id, ["builtin:digits/generator", "./someone/model", "/a/b", "~/model", "model", "a/b/c"]))
    assert hub_id("hf-hub:someone/model") == hub_id("someone/model") == "someone/model"
    assert hub_id("someone/model@main") == "someone/model@main"
    assert hub_id("resnet50") is None


def test_a_path_may_have_a_prefix(tmp_path: Path) -> None:
    assert as_path(f"local-dir:{tmp_path}") == as_path(str(tmp_path)) == tmp_path
    assert as_path(str(tmp_path / "nothing")) is None


def test_only_files_that_are_loaded_make_the_digest(tmp_path: Path) -> None:
    files = {"unet/config.json": b"{}", "unet/model.safetensors": b"weights"}
    first = find_model(str(pipeline(tmp_path / "first", files)))
    others = {"unet/model.fp16.safetensors": b"half", "unet/notes.md": b"notes", "other/model.safetensors": b"other"}
    second = find_model(str(pipeline(tmp_path / "second", files | others)))
    assert first.sha256 == second.sha256
    assert find_model(str(tmp_path / "second"), variant="fp16").sha256 != first.sha256
    assert find_model(str(tmp_path / "first"), variant="fp16").sha256 == first.sha256  # there are no others
    (tmp_path / "first" / "unet" / "model.safetensors").write_bytes(b"changed")
    assert find_model(str(tmp_path / "first")).sha256 != first.sha256
    assert first.public_name == "first"


def test_a_digest_that_is_known_is_not_computed_again(tmp_path: Path) -> None:
    place = pipeline(tmp_path / "model", {"unet/model.safetensors": b"weights"})
    assert find_model(str(place), known={"generator.model": "known"}).sha256 == "known"


def test_pickles_and_missing_models_are_refused(tmp_path: Path) -> None:
    pickled = pipeline(tmp_path / "pickled", {"unet/model.bin": b"pickle"})
    with pytest.raises(ModelError, match=r"keeps unet as a pickle \(model.bin\)"):
        find_model(str(pickled))
    with pytest.raises(ModelError, match="no model at nowhere"):
        find_model("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no model_index\.json"):
        find_model(str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        find_model(str(tmp_path / "empty"), kind="component")
    with pytest.raises(ModelError, match="longer than any path"):
        find_model("x" * 5000)


def test_one_file_of_weights_is_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    with pytest.raises(ModelError, match=r"holds 2 files of weights; say which with `file:`, such as a\.safetensors"):
        find_model(str(tmp_path), kind="weights")
    assert find_model(str(tmp_path), kind="weights", file="b.safetensors").folder == tmp_path / "b.safetensors"
    assert weights_in(tmp_path, ["b.safetensors"], "encoder") == tmp_path / "b.safetensors"
    with pytest.raises(ModelError, match=re.escape(f"encoder: {tmp_path} holds 2 files of weights; it needs c.safetensors")):
        weights_in(tmp_path, ["c.safetensors"], "encoder")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.pt is a pickle"):
        weights_in(tmp_path, ["c.safetensors"], "encoder")
    with pytest.raises(ModelError, match=r"is not a \.safetensors file"):
        require_safetensors(Path(__file__), "encoder")


def test_components_of_an_index() -> None:
    assert components_in({"_class_name": "Any", "unet": ["diffusers", "UNet2DModel"], "vae": [None, None]}) == {
        "unet": ("diffusers", "UNet2DModel")
    }
    with pytest.raises(ModelError, match=r"component 'unet' in model_index\.json is malformed"):
        components_in({"unet": ["diffusers"]})


ASKING = """
import sys
from synthforge.data.model_files import fetch_file, find_model
from synthforge.errors import HubUnreachable
for ask in (lambda: find_model("someone/model", "main"), lambda: find_model("someone/vae", kind="component", where="generator.vae"),
            lambda: fetch_file("someone/clip@main", "model.safetensors", "curation.encoder.model")):
    try:
        ask()
    except HubUnreachable as error:
        print(error)
"""


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_that_does_not_answer_is_asked_once_and_the_ways_out_are_named(offline: str, tmp_path: Path) -> None:
    """A server that takes connections and never answers: the worst a network can do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
            "HF_HUB_OFFLINE": offline,
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HOME": str(tmp_path),
        }
        done = subprocess.run([sys.executable, "-c", ASKING], capture_output=True, text=True, env=environment, check=True)
        server.settimeout(0.1)
        num_connections = 0
        with suppress(TimeoutError):
            while True:
                server.accept()[0].close()
                num_connections += 1
    assert num_connections == (0 if offline == "1" else 1)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["generator.model", "generator.vae", "curation.encoder.model"]
    why = "HF_HUB_OFFLINE is set" if offline == "1" else f"{environment['HF_ENDPOINT']} does not answer"
    for line in lines:
        assert f"is neither a folder here nor in the hub's cache, and the hub can't be reached ({why})" in line
        assert f"copy its cache to {tmp_path / 'hub'}" in line
        assert "HF_HUB_OFFLINE=1" in line
    assert "set generator.model to a folder on this disk, or run `synthforge plan` on a machine that reaches the hub" in lines[0]
    assert "set curation.encoder.model to a folder on this disk, or run `hf download someone/clip --revision main`" in lines[2]


def test_errors_of_libraries_become_one_line() -> None:
    with pytest.raises(ModelError, match=r"^encoder: x can't be loaded \(two lines\); check"), in_one_line("x", "encoder"):
        raise ValueError("two\nlines")
    with pytest.raises(PlaceError, match="ours"), in_one_line("x", "encoder"):
        raise PlaceError("ours")
