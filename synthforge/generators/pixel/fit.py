"""Fit a pixel pipeline to labelled real images, with a guard against memorising them.

Every check looks at the averaged weights. It measures the held-out loss: denoising loss on the validation part at
fixed noise levels. It also measures near-copies: generated images nearer to a fitted image than almost all fitted
images are to each other.
Weights are a candidate if near-copies are at most two standard errors above the natural rate.
The candidate with the lowest held-out loss is kept; without a validation part, the last candidate.
Fitting stops after `patience` checks in a row without a better candidate. If there is never a candidate, the weights
with the fewest near-copies are kept, and the report warns.

Shapes: B batch, C channels, H = W = resolution, D = C H W.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import diffusers
import torch
from torch import Tensor, nn

from synthforge.config import identity_of
from synthforge.data.layout import canonical_json, digest_of
from synthforge.data.reading import Labelled, read_labelled
from synthforge.devices import pick_device
from synthforge.errors import DatasetError, PlaceError
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit_report import REPORT, Check, FitReport, digest_of_images
from synthforge.generators.pixel.network import PixelDenoiser, body_for
from synthforge.generators.pixel.pipeline import PixelPipeline
from synthforge.training.augmentation import AUGMENT_DIM, augment
from synthforge.training.copies import coverage, memorising
from synthforge.training.data import DeviceImages, seeded, to_float
from synthforge.training.loop import Batch, Progress, TrainingLoop
from synthforge.training.networks import resolution_for

_WORK = "_fit"
_GENERATED_FOR_CHECK = 500
_NOISE_LEVELS_FOR_CHECK = 16
_STEPS_PER_BLOCK = 8
"""Steps whose images are prepared together. Steps of tiny networks take milliseconds, so every operation counts."""


def fit(
    data: str,
    out: str | Path,
    config: PixelFitConfig | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_check: Callable[[Check], None] = lambda check: None,
) -> FitReport:
    """Fit a pixel pipeline and save it to a new folder. An interrupted fit is resumed.

    Args:
        data: labelled images in any form that `data.opening.open_collection` reads, such as
            `builtin:digits/reference`.
        out: local folder for the model; refused if it already holds one.
    Raises: DatasetError for unreadable data, PlaceError for the folder, ModelError for a checkpoint of another fit.
    """
    config = config or PixelFitConfig()
    return _Fit(data, Path(out), config).run(on_progress, on_check)


class _Fit:
    def __init__(self, data: str, out: Path, config: PixelFitConfig) -> None:
        self.out = out.resolve()
        if (self.out / "model_index.json").exists():
            raise PlaceError(f"{self.out}: holds a model already; choose another --out, or remove it")
        if self.out.exists() and not self.out.is_dir():
            raise PlaceError(f"{self.out}: is a file; choose a folder")
        left = {path.name for path in self.out.iterdir()} if self.out.exists() else set()
        if left and _WORK not in left:  # left by a fit that was killed while it moved its model
            raise PlaceError(f"{self.out}: is not empty; choose a new folder with --out")
        parts = read_labelled(data, reading=config.reading)
        fitted, validation = parts["fit"], parts["validation"]
        if config.per_class is not None:
            fitted, validation = fitted.first_of_each(config.per_class), Labelled(validation.classes, [])
        if len(fitted.examples) < 2:
            raise DatasetError(f"{data}: {len(fitted.examples)} image(s) to fit; at least two are needed")
        first = fitted.examples[0].pixels()
        self.resolution = config.resolution or resolution_for(min(first.shape[:2]))
        self.channels: Literal[1, 3] = config.channels or (3 if first.shape[2] == 3 else 1)
        self.config = config = self._filled_in(config, len(fitted.examples))
        self.device = pick_device(config.device)
        if config.threads is not None and self.device.type == "cpu":
            torch.set_num_threads(config.threads)
        self.classes, self.notes, self.found = fitted.classes, fitted.notes, fitted.report
        self.fitted = self._on_device(fitted)
        self.validation = self._on_device(validation) if validation.examples else None
        used = [part for part in (self.fitted, self.validation) if part is not None]
        self.data_digest = digest_of([digest_of_images(part.images_NCHW.cpu().numpy(), part.labels_N.cpu().numpy()) for part in used])
        # measured, not the usual 0.5 of natural images
        self.sigma_data = float(to_float(self.fitted.images_NCHW).std())
        if self.sigma_data < 1e-3:
            raise DatasetError(f"{data}: all images are of one colour; there is nothing to learn from them")
        try:
            (self.out / _WORK).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlaceError(f"{self.out}: can't be written ({error.strerror}); choose another folder with --out") from error
        torch.manual_seed(config.loop.seed)
        self.network = self._new_network().to(self.device)
        if self.device.type == "cuda":
            self.network = self.network.to(memory_format=torch.channels_last)
        self._block: tuple[int, Batch] = -1, ()
        self.loop = TrainingLoop(self.network, self._batch, self._loss, config.loop, self.out / _WORK / "checkpoint.safetensors")
        identity = {"config": identity_of(config, lambda path, value: value), "data": self.data_digest}
        self.loop.notes = {"identity": identity, "checks": [], "kept": None}

    def _filled_in(self, config: PixelFitConfig, num_fitted: int) -> PixelFitConfig:
        changes: dict[str, Any] = {"resolution": self.resolution, "channels": self.channels}
        if config.loop.images is None:
            # Memorising takes longer with more data, so the fit may too. On the built-in digits (800 images) the loss
            # on held-out images was lowest after about 1,000 repetitions of each. The minimum is for small sets.
            images = min(20_000_000, max(300_000, 1_000 * num_fitted))
            changes["loop"] = config.loop.model_copy(update={"images": images})
        return config.model_copy(update=changes)

    def _on_device(self, part: Labelled) -> DeviceImages:
        images, labels = part.arrays(self.resolution, self.channels)
        return DeviceImages(torch.from_numpy(images), torch.from_numpy(labels), self.device)

    def _new_network(self) -> PixelDenoiser:
        config = self.config
        body = body_for(self.resolution)
        if config.body not in {"auto", body["body"]}:
            width, patch = 256 if config.body == "mlp" else 32, 1 if self.resolution < 24 else 2
            body = {"body": config.body, "width": width, "depth": 2, "patch": patch}
        body |= {name: value for name, value in (("width", config.width), ("depth", config.depth)) if value is not None}
        network: PixelDenoiser = PixelDenoiser(
            resolution=self.resolution,
            channels=self.channels,
            class_names=self.classes,
            augment_dim=AUGMENT_DIM if config.augment.share > 0 else 0,
            objective=config.objective,
            dropout=config.dropout,
            **body,
        )
        return network

    def _loss(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        images_BCHW, labels_B, *vectors = batch
        hidden_B = torch.rand(len(labels_B), generator=generator, device=self.device) < self.config.label_dropout
        labels_B = labels_B.masked_fill(hidden_B, len(self.classes))
        noise_BCHW = torch.randn(images_BCHW.shape, generator=generator, device=self.device)
        level_B = torch.randn(len(labels_B), generator=generator, device=self.device)
        vector_BA = vectors[0] if vectors else None
        return self._denoising_loss(network, images_BCHW, labels_B, vector_BA, noise_BCHW=noise_BCHW, level_B=level_B).mean()

    def _batch(self, step: int) -> Batch:
        """Images, labels and, with augmentation, vectors of a step. They are prepared for several steps at once.

        Batch j of a block takes every `_STEPS_PER_BLOCK`-th row from row j on. So each batch has its share of the
        augmented rows, which come first.
        """
        number, turn = divmod(step, _STEPS_PER_BLOCK)
        if self._block[0] != number:
            loop = self.config.loop
            images, labels = self.fitted.batch(number, loop.batch * _STEPS_PER_BLOCK, loop.seed)
            vectors: list[Tensor] = []
            if self.config.augment.share > 0:
                images, *vectors = augment(images, self.config.augment, seeded("augment", loop.seed, number, device=self.device))
            self._block = number, (images, labels, *vectors)
        return tuple(tensor[turn::_STEPS_PER_BLOCK] for tensor in self._block[1])

    def _denoising_loss(
        self, network: nn.Module, images_BCHW: Tensor, labels_B: Tensor, vector_BA: Tensor | None, *, noise_BCHW: Tensor, level_B: Tensor
    ) -> Tensor:
        """Loss of each image, (B,). `level_B` is standard normal and sets the noise level."""
        if self.config.objective == "edm":
            sigma_B111 = (level_B * self.config.noise_std + self.config.noise_mean).exp()[:, None, None, None]
            total = (sigma_B111**2 + self.sigma_data**2).sqrt()
            noised = images_BCHW + sigma_B111 * noise_BCHW
            # The weight of Karras et al. times c_out squared is one, so plain squares remain.
            c_skip, c_out = self.sigma_data**2 / total**2, sigma_B111 * self.sigma_data / total
            target, scaled, time_B = (images_BCHW - c_skip * noised) / c_out, noised / total, sigma_B111.flatten().log() / 4
        else:
            time_B111 = torch.sigmoid(level_B)[:, None, None, None]  # logit-normal (Esser et al. 2024, arXiv 2403.03206)
            scaled = torch.lerp(images_BCHW, noise_BCHW, time_B111)
            target, time_B = noise_BCHW - images_BCHW, time_B111.flatten() * 1000
        output: Tensor = network(scaled, time_B, labels_B, vector_BA)
        return (output.float() - target).square().flatten(1).mean(dim=1)

    def run(self, on_progress: Callable[[Progress], None], on_check: Callable[[Check], None]) -> FitReport:
        started = time.perf_counter()
        loop = self.loop
        if loop.resume():
            for check in loop.notes["checks"]:
                on_check(Check(**check))
        first_step, guide_step = loop.step, self._guide_step()
        stopped = "patience" if self._has_stopped() else "all images shown"
        if not self._has_stopped():
            for step in loop.run(on_progress):
                if step == guide_step:
                    self._snapshot("guide")
                check = self._check(step)
                on_check(check)
                self._assess(check)
                if self._has_stopped():
                    stopped = f"{self.config.patience} checks in a row gave nothing better"
                    loop.save()
                    break
        return self._save(stopped, time.perf_counter() - started, first_step)

    def _guide_step(self) -> int | None:
        if self.config.guide_at is None:
            return None
        wanted = self.config.guide_at * self.loop.num_steps
        return min(self.loop.check_steps(), key=lambda step: abs(step - wanted))

    def _snapshot(self, name: str) -> None:
        kept = {key: value for key, value in self.loop.extra.items() if not key.startswith(f"{name}.")}
        self.loop.extra = kept | {f"{name}.{key}": value.clone() for key, value in self.loop.ema.state_dict().items()}

    def _check(self, step: int) -> Check:
        """Look at the averaged weights: held-out loss, near-copies, coverage."""
        held_out = self._loss_at_fixed_noise(self.validation) if self.validation is not None else None
        like = len(self.validation) if self.validation is not None else len(self.fitted)
        generated = self._generate(_GENERATED_FOR_CHECK)
        seen = memorising(generated, self.fitted.images_NCHW.flatten(1))
        return Check(
            step=step,
            images_seen=step * self.config.loop.batch,
            held_out_loss=held_out,
            fit_loss=self._loss_at_fixed_noise(self.fitted, like),
            near_copies=seen.near_copies,
            near_copies_real=seen.near_copies_real,
            median_distance=seen.median_distance,
            median_distance_real=seen.median_distance_real,
            coverage=coverage(generated, self.validation.images_NCHW.flatten(1)) if self.validation is not None else None,
            is_candidate=seen.excess <= 2,
        )

    @torch.no_grad()
    def _loss_at_fixed_noise(self, images: DeviceImages, most: int | None = None) -> float:
        """The denoising loss, with the same noise and levels at every check."""
        images_NCHW, labels_N = to_float(images.images_NCHW[:most]), images.labels_N[:most]
        quantiles = (torch.arange(_NOISE_LEVELS_FOR_CHECK, device=self.device) + 0.5) / _NOISE_LEVELS_FOR_CHECK
        total = 0.0
        for number, level in enumerate(torch.special.ndtri(quantiles)):
            generator = seeded("held out", self.config.loop.seed, number, device=self.device)
            noise = torch.randn(images_NCHW.shape, generator=generator, device=self.device)
            vector = torch.zeros(len(labels_N), AUGMENT_DIM, device=self.device) if self.config.augment.share > 0 else None
            level_N = level.expand(len(labels_N))
            loss_N = self._denoising_loss(self.loop.ema, images_NCHW, labels_N, vector, noise_BCHW=noise, level_B=level_N)
            total += float(loss_N.mean())
        return total / _NOISE_LEVELS_FOR_CHECK

    def _generate(self, num: int) -> Tensor:
        """Images of the averaged weights without guidance, classes in turn: float (num, D) with values of uint8."""
        pipeline = self._pipeline(self.loop.ema, None)
        pipeline.set_progress_bar_config(disable=True)
        made = []
        for start in range(0, num, 250):
            labels = [index % len(self.classes) for index in range(start, min(num, start + 250))]
            generators = [seeded("check", self.config.loop.seed, start + index) for index in range(len(labels))]
            images = pipeline(class_labels=labels, generator=generators, output_type="pt", return_dict=False)[0]
            made.append((images * 255).round().flatten(1))
        return torch.cat(made)

    def _assess(self, check: Check) -> None:
        """Apply the rule in the module's docstring."""
        notes = self.loop.notes
        notes["checks"].append(asdict(check))
        kept = Check(**notes["kept"]) if notes["kept"] is not None else None
        if kept is None or _rank(check) > _rank(kept):
            notes["kept"] = asdict(check)
            self._snapshot("kept")

    def _has_stopped(self) -> bool:
        notes = self.loop.notes
        if notes["kept"] is None:
            return False
        since = [check for check in notes["checks"] if check["step"] > notes["kept"]["step"]]
        # Near-copies of a few steps' random network are noise, so patience begins with the first candidate.
        return len(since) >= self.config.patience

    def _pipeline(self, denoiser: Any, guide: Any) -> PixelPipeline:
        if self.config.objective == "edm":
            scheduler = diffusers.EDMDPMSolverMultistepScheduler(sigma_min=0.004, sigma_max=40.0, sigma_data=self.sigma_data)
        else:
            scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        return PixelPipeline(denoiser, scheduler, guide)

    def _save(self, stopped: str, seconds: float, first_step: int) -> FitReport:
        denoiser, guide = self._restored("kept"), self._restored("guide")
        assert denoiser is not None
        num_validation = len(self.validation) if self.validation is not None else 0
        kept = Check(**self.loop.notes["kept"])
        report = FitReport(
            model="PixelPipeline",
            images_fitted=len(self.fitted),
            images_validation=num_validation,
            real_budget=len(self.fitted) + num_validation,
            data_digest=self.data_digest,
            classes=self.classes,
            resolution=denoiser.config.resolution,
            channels=denoiser.config.channels,
            parameters=sum(parameter.numel() for parameter in denoiser.parameters()),
            sigma_data=self.sigma_data,
            images_seen=self.loop.step * self.config.loop.batch,
            seconds=round(seconds, 1),
            images_per_second=round((self.loop.step - first_step) * self.config.loop.batch / seconds, 1),
            kept_step=kept.step,
            stopped=stopped,
            warning=None
            if kept.is_candidate
            else f"memorising: {kept.near_copies:.1%} of generated images are near-copies of fitted ones, "
            f"where {kept.near_copies_real:.1%} is natural; lower loop.images, add real images, or strengthen augment",
            checks=[Check(**check) for check in self.loop.notes["checks"]],
            images_found=self.found.images if self.found is not None else None,
            unused=self.found.unused if self.found is not None else {},
            notes=self.notes,
            config=identity_of(self.config, lambda path, value: value),
            versions={"synthforge": version("synthforge"), "torch": torch.__version__, "diffusers": diffusers.__version__},
        )
        staging = self.out / _WORK / "model"
        shutil.rmtree(staging, ignore_errors=True)
        self._pipeline(denoiser, guide).save_pretrained(staging, safe_serialization=True)
        (staging / REPORT).write_bytes(canonical_json(asdict(report)))
        # model_index.json goes last: a folder without it is no model
        for path in sorted(staging.iterdir(), key=lambda path: path.name == "model_index.json"):
            target = self.out / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
        shutil.rmtree(self.out / _WORK)
        return report

    def _restored(self, name: Literal["kept", "guide"]) -> PixelDenoiser | None:
        state = {key.removeprefix(f"{name}."): value for key, value in self.loop.extra.items() if key.startswith(f"{name}.")}
        if not state:
            return None
        network = self._new_network()
        network.load_state_dict(state)
        nn.Module.to(network, getattr(torch, self.config.store))
        return cast("PixelDenoiser", network.eval())


def _rank(check: Check) -> tuple[bool, float]:
    """The rule of the module's docstring: the check with the larger rank is better."""
    if not check.is_candidate:
        return False, -check.near_copies
    return True, check.step if check.held_out_loss is None else -check.held_out_loss
