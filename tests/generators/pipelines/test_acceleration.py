"""Decoding in parts and compilation change images by rounding only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from synthforge.devices import alone_on_this_machine
from tests.generators.pipelines.made import (
    PROMPTS,
    assert_equal,
    config_for,
    loaded,
    plain,
    requests_for,
    sampling_for,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def test_decoding_in_parts_changes_rounding_only(models: Path) -> None:
    sampling = sampling_for("sd")
    requests = requests_for(sampling, prompts=PROMPTS * 2)
    generator = loaded(config_for("sd", models, decode_batch=2), sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))
    found = generator.decoder.tune(lambda: generator.sample(generator.prepare(requests)))
    assert set(found) == {6, 4, 2, 1}
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_compiled_equals_the_plain_call(name: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regional compilation by inductor; on the CPU here, so that the code of the GPU path runs."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    sampling = sampling_for(name)
    generator = loaded(config_for(name, models, compile=True), sampling)
    requests = requests_for(sampling)
    generator.compile(generator.prepare(requests))
    assert generator.acceleration()["compiled"]
    assert_equal(generator.sample(generator.prepare(requests))[0], plain(name, models, sampling, requests))
    torch._dynamo.reset()


def test_only_one_process_compiles_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with alone_on_this_machine("x"), pytest.raises(filelock.Timeout):
        filelock.FileLock(tmp_path / "x.lock", timeout=0).acquire()


def test_tuning_a_decoder_that_is_widened_for_the_call(models: Path) -> None:
    """As SDXL's, which decodes in float32 while its weights stay in half precision otherwise."""
    generator = loaded(config_for("sdxl", models, dtype="bfloat16"), sampling_for("sdxl"))
    original = generator.decoder._decode
    generator.decoder._decode = lambda latents, *args, **kwargs: original(latents.to(torch.bfloat16), *args, **kwargs)
    generator.decoder.keeps_latents = True
    generator.decoder(torch.randn(2, 4, 8, 8), return_dict=False)
    generator.decoder._decode = original
    kept = generator.decoder._last_latents
    assert kept is not None

    def run() -> None:
        generator.decoder._last_latents = kept  # type: ignore[union-attr]

    assert set(generator.decoder.tune(run)) == {2, 1}


@pytest.mark.slow
def test_compilation_that_fails_falls_back(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampling = sampling_for("sd")
    generator = loaded(config_for("sd", models, compile=True), sampling)
    requests = requests_for(sampling)

    def no_compiler(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C compiler found")

    monkeypatch.setattr(generator, "_warm_up", no_compiler)
    generator.compile(generator.prepare(requests))
    assert generator.acceleration()["compiled"] == "failed: no C compiler found"
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))


@pytest.mark.slow
def test_a_step_cache_compiles(models: Path) -> None:
    sampling = sampling_for("flux")
    cache = {"name": "FirstBlockCache", "arguments": {"threshold": 0.1}}
    generator = loaded(config_for("flux", models, compile=True, step_cache=cache), sampling)
    batch = generator.prepare(requests_for(sampling))
    generator.compile(batch)
    assert isinstance(generator.acceleration()["compiled"], dict), generator.acceleration()["compiled"]
    assert generator.sample(batch)[1].tolist() == [0, 0, 0]
    torch._dynamo.reset()
