"""Models and settings that are refused before weights are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import SamplingConfig, SchedulerConfig
from synthforge.generators.pixel.config import PixelConfig
from tests.generators.pixel.made import BUILTIN, load, loaded


def test_settings_that_do_not_fit_the_model_are_refused() -> None:
    config = PixelConfig(kind="pixel", model=BUILTIN)
    cases = {
        "the model makes 8 px, not 32": SamplingConfig(resolution=32),
        "use one of EDMDPMSolverMultistepScheduler, EDMEulerScheduler": SamplingConfig(scheduler=SchedulerConfig(name="DDIMScheduler")),
        "no such argument; did you mean 'rho'": SamplingConfig(scheduler=SchedulerConfig(name="EDMEulerScheduler", arguments={"roh": 1})),
    }
    for message, sampling in cases.items():
        with pytest.raises(RequestError, match=message):
            loaded(config, sampling)
    with pytest.raises(RequestError, match="no class 'ten'"):
        loaded(config, SamplingConfig(), labels=("1", "ten"))
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="is not on this machine"):
            loaded(config, SamplingConfig(), device="cuda")


def test_pickles_are_refused_by_name_and_by_content(model: Path) -> None:
    weights = model / "denoiser" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": torch.zeros(1)}, weights)  # a pickle under an honest name
    with pytest.raises(ModelError, match="can't be loaded"):
        load(model)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"as a pickle \(diffusion_pytorch_model.bin\).*only safetensors"):
        load(model)


@pytest.mark.parametrize("damage", ["truncated", "no index", "index", "config", "scheduler", "other class", "gone"])
def test_damaged_models_are_refused_in_one_line(model: Path, damage: str) -> None:
    weights = model / "denoiser" / "diffusion_pytorch_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no index":
        (model / "model_index.json").unlink()
    elif damage == "index":
        (model / "model_index.json").write_text("{")
    elif damage == "config":
        (model / "denoiser" / "config.json").write_text("{")
    elif damage == "scheduler":
        shutil.rmtree(model / "scheduler")
    elif damage == "other class":
        index = json.loads((model / "model_index.json").read_text())
        index["denoiser"] = ["diffusers", "UNet2DModel"]
        (model / "model_index.json").write_text(json.dumps(index))
    else:
        shutil.rmtree(model)
    with pytest.raises(ModelError, match=r"^generator\.model: ") as caught:
        load(model)
    assert "\n" not in str(caught.value)


def test_hub_ids_load_from_the_hubs_cache(tmp_path: Path) -> None:
    """The real hub code, on a cache laid out as the hub's own client does; the commit becomes the revision."""
    import os
    import subprocess
    import sys

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--digits"
    shutil.copytree(BUILTIN, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from synthforge.data.model_files import find_model\n"
        "files = find_model('someone/digits')\n"
        f"assert files.revision == '{commit}', files\n"
        "assert files.sha256 == find_model('builtin:digits/generator').sha256\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
