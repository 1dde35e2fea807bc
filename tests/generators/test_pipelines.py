"""Real diffusers pipelines, tiny and with random weights: every engine image is what the plain call gives, in every family."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from packaging.version import Version
from PIL import Image

from synthforge.data.reading import Example
from synthforge.devices import alone_on_this_machine
from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import GENERATORS, RealGuidanceConfig, SamplingConfig, SchedulerConfig
from synthforge.generators.pipelines.generator import PipelineGenerator
from synthforge.generators.protocol import ImageRequest
from tests import tiny_models

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

PROMPTS = ["a cat", "a dog and a house", "a cat"]
LONGER = {"sd3": {"max_sequence_length": 32}, "flux": {"max_sequence_length": 32}}
TEXT = ["sd", "sdxl", "sd3", "flux"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def kind_of(name: str) -> str:
    return name if name in {"dit", "unconditional"} else "text-to-image"


def config_for(name: str, models: Path, **changes: Any) -> Any:
    kind = kind_of(name)
    fields = {"kind": kind, "model": str(tiny_models.save(name, models)), "arguments": LONGER.get(name, {})}
    return GENERATORS[kind](**(fields | changes))


def sampling_for(name: str, **changes: Any) -> SamplingConfig:
    fields: dict[str, Any] = {"steps": 4, "guidance": [1.0 if name == "unconditional" else 3.0]}
    if kind_of(name) == "text-to-image":
        fields["resolution"] = tiny_models.SIZE
    return SamplingConfig(**(fields | changes))


def loaded(config: Any, sampling: SamplingConfig) -> PipelineGenerator:
    files = config.files()
    config.check(files, sampling, ["207"])
    return config.build(files, sampling, "cpu")


def photo(seed: int = 0, size: tuple[int, int] = (24, 20)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def requests_for(sampling: SamplingConfig, negative: str | None = None, prompts: Sequence[str] = PROMPTS) -> list[ImageRequest]:
    guided = sampling.real_guidance
    return [
        ImageRequest(
            seed=100 + number,
            class_name="207",
            prompt=prompt,
            negative=negative,
            guidance=sampling.guidance[0],
            strength=guided.strength[0] if guided else None,
            source=Example("photo", "photo.png", "207", photo(number)) if guided else None,
        )
        for number, prompt in enumerate(prompts)
    ]


def plain(name: str, models: Path, sampling: SamplingConfig, requests: list[ImageRequest], **more: Any) -> np.ndarray:
    """What anybody would write with diffusers alone."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(models / name), use_safetensors=True)
    if sampling.scheduler is not None:
        scheduler = getattr(diffusers, sampling.scheduler.name)
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **sampling.scheduler.arguments)
    arguments: dict[str, Any] = {"guidance_scale": sampling.guidance[0], **LONGER.get(name, {}), **more}
    if name == "dit":
        arguments["class_labels"] = [int(request.class_name) for request in requests]
    elif name == "unconditional":
        arguments = {"batch_size": len(requests)}
    else:
        arguments["prompt"] = [request.prompt for request in requests]
        if requests[0].negative is not None:
            arguments["negative_prompt"] = [request.negative for request in requests]
        if sampling.real_guidance is None or name in {"sd3", "flux"}:
            arguments |= {"height": tiny_models.SIZE, "width": tiny_models.SIZE}
        if sampling.real_guidance is not None:
            pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
            whole = [Image.open(io.BytesIO(request.source.data)) for request in requests if request.source is not None]
            squares = [image.crop((2, 0, 22, 20)).resize((tiny_models.SIZE,) * 2, Image.Resampling.BICUBIC) for image in whole]
            arguments |= {"image": squares, "strength": requests[0].strength}
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(**arguments, num_inference_steps=sampling.steps, generator=generators).images
    return np.stack([np.asarray(image).reshape(image.height, image.width, -1) for image in images])


def assert_equal(made: torch.Tensor, wanted: np.ndarray) -> None:
    difference = np.abs(made.numpy().astype(int) - wanted.astype(int))
    assert made.shape == wanted.shape
    assert np.mean(difference <= 2) >= 0.999, difference.max()
    assert wanted.std() > 5  # a flat image would equal anything


@pytest.mark.parametrize("name", ["sd", "sd-checked", "sdxl", "sd3", "flux", "dit", "unconditional"])
def test_every_family_equals_the_plain_call(name: str, models: Path) -> None:
    sampling = sampling_for(name)
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts(sorted({(request.prompt, request.negative) for request in requests}))
    pixels, codes = generator.sample(generator.prepare(requests))
    assert codes.tolist() == [0, 0, 0]
    assert_equal(pixels, plain(name, models, sampling, requests))


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_starting_from_real_images_equals_the_plain_call(name: str, strength: float, models: Path) -> None:
    sampling = sampling_for(name, real_guidance=RealGuidanceConfig(reference="x", strength=[strength]))
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts(sorted({(request.prompt, request.negative) for request in requests}))
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert "Img2Img" in generator.identity()["class"]


@pytest.mark.parametrize(
    ("name", "scheduler", "guidance"),
    [
        ("sd", "EulerAncestralDiscreteScheduler", 3.0),
        ("sd", "LCMScheduler", 1.0),
        ("sd", "DPMSolverMultistepScheduler", 3.0),
        ("sd", "DDPMScheduler", 0.0),
        ("sdxl", "EulerAncestralDiscreteScheduler", 0.0),
        ("sdxl", "LCMScheduler", 1.0),
        ("dit", "DPMSolverMultistepScheduler", 3.0),
        ("unconditional", "DDIMScheduler", 1.0),
    ],
)
def test_other_schedulers_and_no_guidance_equal_the_plain_call(name: str, scheduler: str, guidance: float, models: Path) -> None:
    sampling = sampling_for(name, scheduler=SchedulerConfig(name=scheduler), guidance=[guidance])
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert generator.identity()["scheduler"] == scheduler


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_negative_prompts_and_guidance(name: str, models: Path) -> None:
    sampling = sampling_for(name, guidance=[7.5])
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling, negative="blurry")
    generator.learn_texts([("a cat", "blurry"), ("a dog and a house", "blurry")])
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert not np.array_equal(pixels.numpy(), plain(name, models, sampling, requests_for(sampling)))


def test_one_step_of_a_turbo_model(models: Path) -> None:
    sampling = sampling_for("sdxl", steps=1, guidance=[0.0])
    generator = loaded(config_for("sdxl", models), sampling)
    requests = requests_for(sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sdxl", models, sampling, requests))


def test_a_batch_is_the_same_whatever_it_is_made_with(models: Path) -> None:
    """Seeds belong to images: alone, in another order, or beside others, an image stays what it is."""
    sampling = sampling_for("sd", scheduler=SchedulerConfig(name="EulerAncestralDiscreteScheduler"))
    generator = loaded(config_for("sd", models), sampling)
    requests = requests_for(sampling)
    together = generator.sample(generator.prepare(requests))[0].numpy().astype(int)
    backwards = generator.sample(generator.prepare(requests[::-1]))[0].numpy().astype(int)
    alone = generator.sample(generator.prepare(requests[1:2]))[0].numpy().astype(int)
    assert np.abs(together - backwards[::-1]).max() <= 2
    assert np.abs(together[1:2] - alone).max() <= 2


def test_a_thousand_prompts_of_which_ten_are_distinct(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    runs = list[int]()
    original = transformers.CLIPTextModel.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.CLIPTextModel, "forward", counted)
    prompts = [f"thing {number % 10}" for number in range(1000)]
    sampling = sampling_for("sd", steps=1, guidance=[1.0])
    generator = loaded(config_for("sd", models), sampling)
    for first in range(0, 1000, 100):
        generator.sample(generator.prepare(requests_for(sampling, prompts=prompts[first : first + 100])))
    assert len(runs) == 10
    runs.clear()
    sampling = sampling_for("sd", steps=1, guidance=[2.0, 3.0])
    generator = loaded(config_for("sd", models), sampling)
    generator.learn_texts([(f"thing {number}", None) for number in range(10)])
    assert len(runs) == 11  # and the empty prompt that guidance moves away from, once
    assert generator.acceleration()["text_encoders"] == "unloaded"
    assert generator.pipeline.text_encoder is None
    generator.sample(generator.prepare(requests_for(sampling, prompts=prompts[:20])))
    assert len(runs) == 11


def test_encodings_that_do_not_fit_memory_keep_the_text_encoder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthforge.generators.pipelines import embeddings

    sampling = sampling_for("sd")
    monkeypatch.setattr(embeddings, "CACHE_BYTES", 1)
    monkeypatch.setattr(embeddings.PromptEncodings.__init__, "__defaults__", (1,))
    generator = loaded(config_for("sd", models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts([("a cat", None), ("a dog and a house", None)])
    assert generator.acceleration()["text_encoders"] == "kept"
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))


def test_decoding_in_parts_changes_rounding_only(models: Path) -> None:
    sampling = sampling_for("sd")
    requests = requests_for(sampling, prompts=PROMPTS * 2)
    generator = loaded(config_for("sd", models, decode_batch=2), sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))
    assert generator.decoder is not None
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


# --- weights: LoRA, VAE, learned words, variants, precision ---


def save_lora(folder: Path, models: Path, name: str = "sd", seed: int = 1, rank: int = 2) -> Path:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(tiny_models.save(name, models)))
    torch.manual_seed(seed)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    state = {key: value * 3 for key, value in get_peft_model_state_dict(network).items()}
    argument = "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers"
    type(pipeline).save_lora_weights(str(folder), **{argument: state})
    return folder


def test_loras_with_scales_equal_the_plain_call(models: Path, tmp_path: Path) -> None:
    sampling = sampling_for("sd")
    one, two = save_lora(tmp_path / "one", models), save_lora(tmp_path / "two", models, seed=2)
    loras = [{"model": str(one), "scale": 0.7}, {"model": str(two / "pytorch_lora_weights.safetensors"), "scale": -0.5}]
    generator = loaded(config_for("sd", models, loras=loras), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(models / "sd"))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(one), adapter_name="a")
    pipeline.load_lora_weights(str(two), adapter_name="b")
    pipeline.set_adapters(["a", "b"], [0.7, -0.5])
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=generators).images
    assert_equal(pixels, np.stack([np.asarray(image) for image in images]))
    assert not np.array_equal(pixels.numpy(), plain("sd", models, sampling, requests))
    assert [lora["scale"] for lora in generator.identity()["loras"]] == [0.7, -0.5]


def test_a_lora_that_does_not_fit(models: Path, tmp_path: Path) -> None:
    sampling = sampling_for("sdxl")
    for name in ("sd", "flux"):
        lora = save_lora(tmp_path / name, models, name)
        config = config_for("sdxl", models, loras=[{"model": str(lora)}])
        with pytest.raises(
            ModelError, match=r"^generator.loras.0.model: .* does not fit this model .*made for a StableDiffusionXLPipeline$"
        ) as e:
            loaded(config, sampling)
        assert "\n" not in str(e.value)
    with pytest.raises(ModelError, match=r"generator.loras.0.model: no weights at .*nowhere"):
        config_for("sd", models, loras=[{"model": "nowhere"}]).files()
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "lora.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"generator.loras.0.model: lora.bin is a pickle"):
        config_for("sd", models, loras=[{"model": str(tmp_path / "pickle")}]).files()


def test_another_vae(models: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = tiny_models.vae().eval()
    other.save_pretrained(tmp_path / "vae")
    sampling = sampling_for("sd")
    generator = loaded(config_for("sd", models, vae=str(tmp_path / "vae")), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(models / "sd"), vae=other)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=generators).images
    assert_equal(pixels, np.stack([np.asarray(image) for image in images]))
    with pytest.raises(ModelError, match=r"generator.vae: .* is a UNet2DConditionModel, not a VAE"):
        loaded(config_for("sd", models, vae=str(models / "sd" / "unet")), sampling)


def test_learned_words(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(6)
    save_file({"<mine>": torch.randn(32)}, tmp_path / "word.safetensors")
    sampling = sampling_for("sd")
    words = [{"model": str(tmp_path / "word.safetensors"), "token": "<mine>"}]
    generator = loaded(config_for("sd", models, textual_inversions=words), sampling)
    with_word = generator.sample(generator.prepare(requests_for(sampling, prompts=["a <mine>"])))[0]
    without = loaded(config_for("sd", models), sampling)
    plainly = without.sample(without.prepare(requests_for(sampling, prompts=["a <mine>"])))[0]
    assert not torch.equal(with_word, plainly)
    save_file({"<mine>": torch.randn(48)}, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match=r"^generator.textual_inversions.0: .* does not fit this model"):
        loaded(config_for("sd", models, textual_inversions=[{"model": str(tmp_path / "wide.safetensors"), "token": "<mine>"}]), sampling)


def test_variant_and_precision(models: Path, tmp_path: Path) -> None:
    """A folder with plain weights and a variant: only the files that are loaded count, and the precision is the one asked for."""
    place = Path(shutil.copytree(tiny_models.save("sd", models), tmp_path / "sd"))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(place), dtype=torch.float16)
    pipeline.save_pretrained(place, variant="fp16")
    for original in (models / "sd").rglob("*.json"):  # saving notes the precision in some of them
        shutil.copyfile(original, place / original.relative_to(models / "sd"))
    plainly = config_for("sd", models)
    assert plainly.files().model.sha256 == config_for("sd", models, model=str(place)).files().model.sha256
    config = config_for("sd", models, model=str(place), variant="fp16", dtype="bfloat16")
    assert config.files().model.sha256 != plainly.files().model.sha256
    generator = loaded(config, sampling_for("sd"))
    assert generator.pipeline.unet.dtype == torch.bfloat16
    assert generator.identity()["dtype"] == "bfloat16"
    pixels, codes = generator.sample(generator.prepare(requests_for(sampling_for("sd"))))
    assert codes.tolist() == [0, 0, 0]
    assert pixels.float().std() > 5


def test_lossy_shortcuts_are_identity_and_change_the_image(models: Path) -> None:
    sampling = sampling_for("flux", steps=8)
    requests = requests_for(sampling)
    wanted = plain("flux", models, sampling, requests)
    cached = loaded(config_for("flux", models, step_cache={"name": "FirstBlockCache", "arguments": {"threshold": 0.9}}), sampling)
    assert not np.array_equal(cached.sample(cached.prepare(requests))[0].numpy(), wanted)
    quantised = loaded(config_for("flux", models, quantization={"backend": "layerwise_float8"}), sampling)
    pixels = quantised.sample(quantised.prepare(requests))[0].numpy().astype(int)
    assert not np.array_equal(pixels, wanted)
    assert np.abs(pixels - wanted).mean() < 20
    assert quantised.identity()["quantization"]["backend"] == "layerwise_float8"
    with pytest.raises(RequestError, match=r"generator.step_cache: StableDiffusionPipeline has no transformer"):
        loaded(config_for("sd", models, step_cache={"name": "FirstBlockCache"}), sampling_for("sd"))
    with pytest.raises(RequestError, match=r"generator.quantization.components: FluxPipeline has no 'unet'; it has .*transformer"):
        loaded(config_for("flux", models, quantization={"backend": "layerwise_float8", "components": ["unet"]}), sampling)


# --- verdicts ---


def test_the_safety_checkers_verdict_is_a_code(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    sampling = sampling_for("sd")
    generator = loaded(config_for("sd-checked", models), sampling)
    original = StableDiffusionSafetyChecker.forward

    def flags_second(self: Any, clip_input: Any, images: Any) -> Any:
        images, _ = original(self, clip_input, images)
        images[1] = 0
        return images, [False, True, False]

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", flags_second)
    _, codes = generator.sample(generator.prepare(requests_for(sampling)))
    assert codes.tolist() == [0, 2, 0]
    unchecked = loaded(config_for("sd-checked", models, safety_checker=False), sampling)
    assert unchecked.sample(unchecked.prepare(requests_for(sampling)))[1].tolist() == [0, 0, 0]
    assert unchecked.identity()["safety_checker"] is False


def test_images_that_are_not_finite_are_named(models: Path) -> None:
    sampling = sampling_for("sd")
    generator = loaded(config_for("sd", models), sampling)
    assert generator.decoder is not None
    original = generator.decoder._decode

    def broken(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sample = original(latents, *args, **kwargs)[0].clone()
        sample[0, 0, 0, 0], sample[2, 1, 3, 3] = float("nan"), float("inf")
        return (sample,)

    generator.decoder._decode = broken
    assert generator.sample(generator.prepare(requests_for(sampling)))[1].tolist() == [1, 0, 1]


# --- what does not fit is refused before anything is loaded ---


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("dit", "text-to-image", "is a DiTPipeline, which is what `kind: dit` takes"),
        ("sd", "dit", "is a StableDiffusionPipeline, which is what `kind: text-to-image` takes"),
        ("sd", "unconditional", "is what `kind: text-to-image` takes"),
        ("unconditional", "text-to-image", "is what `kind: unconditional` takes"),
    ],
)
def test_a_model_of_another_kind_is_told_apart_without_loading(
    name: str, kind: str, words: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)
    config = GENERATORS[kind](kind=kind, model=str(tiny_models.save(name, models)))
    with pytest.raises(ModelError, match=r"generator\.model") as caught:
        config.check(config.files(), SamplingConfig(), ["a"])
    assert words in str(caught.value)


def edited_index(models: Path, place: Path, name: str, **changes: Any) -> Path:
    shutil.copytree(tiny_models.save(name, models), place)
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps(index | changes))
    return place


def test_strange_models_are_refused_before_loading(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)

    def refusal(sampling: SamplingConfig | None = None, labels: Sequence[str] = ("1",), name: str = "sd", **changes: Any) -> str:
        config = config_for(name, models, **changes)
        with pytest.raises((ModelError, RequestError)) as caught:
            config.check(config.files(), sampling or sampling_for(name), labels)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    code = edited_index(models, tmp_path / "code", "sd", unet=["os", "system"])
    assert "wants system from os for its unet" in refusal(model=str(code))
    control = edited_index(models, tmp_path / "control", "sd", _class_name="StableDiffusionControlNetPipeline")
    assert "is a StableDiffusionControlNetPipeline, which can't be used here" in refusal(model=str(control))
    pixart = edited_index(models, tmp_path / "pixart", "sd", _class_name="PixArtSigmaPipeline")
    guided = sampling_for("sd", real_guidance=RealGuidanceConfig(reference="x"))
    assert "PixArtSigmaPipeline has no image-to-image form; those of" in refusal(guided, model=str(pixart))
    assert "sampling.resolution: 15 is no multiple of 2" in refusal(sampling_for("sd", resolution=15))
    assert "classes: the model knows no class '1000', its numbers go from 0 to 999" in refusal(labels=["7", "1000"], name="dit")
    assert "did you mean 'golden retriever'?" in refusal(labels=["golden retreiver"], name="dit")
    assert "sampling.resolution: the model makes 16 px, not 64" in refusal(sampling_for("dit", resolution=64), name="dit")


def test_arguments_of_the_call(models: Path) -> None:
    sampling = sampling_for("sd")
    requests = requests_for(sampling)
    more = {"guidance_rescale": 0.7}
    generator = loaded(config_for("sd", models, arguments=more), sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests, **more))
    with pytest.raises(RequestError, match=r"generator.arguments.guidance_rescal: .* did you mean 'guidance_rescale'"):
        loaded(config_for("sd", models, arguments={"guidance_rescal": 1}), sampling)
    with pytest.raises(RequestError, match=r"generator.arguments.num_inference_steps: other fields of the recipe decide it"):
        loaded(config_for("sd", models, arguments={"num_inference_steps": 1}), sampling)


def test_noise_that_no_seed_decides_is_refused(models: Path) -> None:
    with pytest.raises(RequestError, match=r"sampling.scheduler: DiTPipeline hands no random generator to DDPMScheduler"):
        loaded(config_for("dit", models), sampling_for("dit", scheduler=SchedulerConfig(name="DDPMScheduler")))
    sampling = sampling_for(
        "sd3", scheduler=SchedulerConfig(name="FlowMatchEulerDiscreteScheduler", arguments={"stochastic_sampling": True})
    )
    generator = loaded(config_for("sd3", models), sampling)
    with pytest.raises(RequestError, match=r"draws noise that no seed decides"):
        generator.sample(generator.prepare(requests_for(sampling)))


def test_a_negative_prompt_where_none_is_taken(models: Path) -> None:
    sampling = sampling_for("flux", real_guidance=None)
    generator = loaded(config_for("flux", models), sampling)
    generator._parameters = {name: value for name, value in generator._parameters.items() if name != "negative_prompt"}  # type: ignore[assignment]
    with pytest.raises(RequestError, match=r"prompts.negative: FluxPipeline takes no negative prompt"):
        generator.learn_texts([("a", "b")])


def test_dit_labels_by_name_and_number(models: Path) -> None:
    sampling = sampling_for("dit")
    generator = loaded(config_for("dit", models), sampling)
    by_name = generator.prepare([ImageRequest(1, "Golden Retriever", "", None, 3.0), ImageRequest(1, "tabby", "", None, 3.0)])
    assert by_name.arguments["class_labels"] == [207, 281]


# --- found by review ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_image_to_image_form_keeps_precision_and_quantisation(dtype: str, models: Path) -> None:
    sampling = sampling_for("flux", real_guidance=RealGuidanceConfig(reference="x", strength=[0.5]))
    generator = loaded(config_for("flux", models, dtype=dtype), sampling)
    assert generator.pipeline.transformer.dtype == generator.pipeline.vae.dtype == getattr(torch, dtype)
    quantised = loaded(config_for("flux", models, dtype=dtype, quantization={"backend": "layerwise_float8"}), sampling)
    assert any(value.dtype == torch.float8_e4m3fn for value in quantised.pipeline.transformer.parameters())


def test_two_loras_of_one_folder_are_two(models: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        saved = save_lora(tmp_path / str(number), models, seed=number) / "pytorch_lora_weights.safetensors"
        saved.rename(tmp_path / f"{number}.safetensors")
    loras = [{"model": str(tmp_path), "file": f"{number}.safetensors"} for number in (1, 2)]
    generator = loaded(config_for("sd", models, loras=loras), sampling_for("sd"))
    one, two = generator.identity()["loras"]
    assert (one["file"], two["file"]) == ("1.safetensors", "2.safetensors")
    assert one["sha256"] != two["sha256"]
    twice = loaded(config_for("sd", models, loras=[loras[1], loras[1]]), sampling_for("sd"))
    requests = requests_for(sampling_for("sd"))
    assert not torch.equal(generator.sample(generator.prepare(requests))[0], twice.sample(twice.prepare(requests))[0])


@pytest.mark.skipif(
    Version(version("transformers")) >= Version("5") and Version(version("peft")) < Version("0.22"),
    reason="transformers 5 takes adapters of text encoders from peft 0.22 on",
)
def test_a_flux_lora_reaches_the_text_encoder(models: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = diffusers.FluxPipeline.from_pretrained(str(tiny_models.save("flux", models)))
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(3)
    states = []
    for module in (pipeline.transformer, pipeline.text_encoder):
        targets = ["to_q", "to_v"] if module is pipeline.transformer else ["q_proj", "v_proj"]
        module.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets))
        states.append({key: value * 3 for key, value in get_peft_model_state_dict(module).items()})
    diffusers.FluxPipeline.save_lora_weights(str(tmp_path), transformer_lora_layers=states[0], text_encoder_lora_layers=states[1])
    sampling = sampling_for("flux")
    generator = loaded(config_for("flux", models, loras=[{"model": str(tmp_path)}]), sampling)
    requests = requests_for(sampling)
    plainly = diffusers.FluxPipeline.from_pretrained(str(models / "flux"))
    plainly.set_progress_bar_config(disable=True)
    plainly.load_lora_weights(str(tmp_path))
    noise = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = plainly(
        PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=noise, max_sequence_length=32
    ).images
    assert_equal(generator.sample(generator.prepare(requests))[0], np.stack([np.asarray(image) for image in images]))


def test_a_resolution_that_the_pipeline_rounds_is_refused(models: Path) -> None:
    sampling = sampling_for("flux", resolution=18)
    generator = loaded(config_for("flux", models), sampling)
    with pytest.raises(RequestError, match=r"sampling.resolution: FluxPipeline makes 16 x 16 where 18 is asked for"):
        generator.sample(generator.prepare(requests_for(sampling)))


def test_texts_that_the_pipeline_can_not_take_are_one_line(models: Path) -> None:
    generator = loaded(config_for("flux", models, arguments={"max_sequence_length": 1024}), sampling_for("flux"))
    with pytest.raises(RequestError, match=r"^generator: FluxPipeline does not take what the recipe asks of it \(.*1024"):
        generator.learn_texts([("a cat", None)])


class Encoder:
    """Stands for a pipeline of an unusual family; what it encodes can be chosen."""

    def __init__(self, encode: Any) -> None:
        self.encode_prompt = encode
        self.prepare_latents = lambda: None
        self.components: dict[str, Any] = {}


def test_encodings_of_unusual_families() -> None:
    from synthforge.generators.pipelines.embeddings import PromptEncodings

    def by_length(prompt: list[str]) -> torch.Tensor:
        width = max(map(len, prompt))
        return torch.stack([torch.tensor([*map(ord, text), *[0] * (width - len(text))]) for text in prompt])

    pipeline = Encoder(by_length)
    encodings = PromptEncodings([pipeline])
    assert torch.equal(pipeline.encode_prompt(prompt=["ab", "abc"]), by_length(["ab", "abc"]))
    assert not encodings.is_whole  # so the text encoder stays

    def in_lists(prompt: list[str]) -> list[torch.Tensor]:
        return [torch.full((5, 2), float(ord(text[0]))) for text in prompt]

    pipeline = Encoder(in_lists)
    encodings = PromptEncodings([pipeline])
    found = pipeline.encode_prompt(prompt=["a", "b", "a"])
    assert [float(entry[0, 0]) for entry in found] == [97.0, 98.0, 97.0]
    assert encodings.is_whole

    def with_instructions(prompt: list[str], instructions: list[str]) -> torch.Tensor:
        return torch.tensor([[len("".join(instructions)) + ord(text[0])] for text in prompt])

    pipeline = Encoder(with_instructions)
    PromptEncodings([pipeline])
    lines = ["x" * number for number in range(1, 4)]
    wanted = with_instructions(["a", "b", "c"], lines)
    assert torch.equal(pipeline.encode_prompt(prompt=["a", "b", "c"], instructions=lines), wanted)


def test_unloaded_text_encoders_are_gone(models: Path) -> None:
    import weakref

    generator = loaded(config_for("sd", models), sampling_for("sd"))
    gone = weakref.ref(generator.pipeline.text_encoder)
    generator.learn_texts([("a cat", None)])
    assert gone() is None


def test_tuning_a_decoder_that_is_widened_for_the_call(models: Path) -> None:
    """As SDXL's, which decodes in float32 while its weights stay in half precision otherwise."""
    generator = loaded(config_for("sdxl", models, dtype="bfloat16"), sampling_for("sdxl"))
    assert generator.decoder is not None
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


def test_mistakes_are_found_before_loading(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)

    def refusal(name: str, sampling: SamplingConfig, **changes: Any) -> str:
        config = config_for(name, models, **changes)
        with pytest.raises(RequestError) as caught:
            config.check(config.files(), sampling, ["1"])
        return str(caught.value)

    assert "takes no such argument" in refusal("sd", sampling_for("sd"), arguments={"bogus": 1})
    assert "has no transformer" in refusal("sd", sampling_for("sd"), step_cache={"name": "FirstBlockCache"})
    bogus = SchedulerConfig(name="EulerDiscreteScheduler", arguments={"bogus": 1})
    assert "EulerDiscreteScheduler has no such argument" in refusal("sd", sampling_for("sd", scheduler=bogus))
