"""Small classifiers, cross-fitted on the reference: their penultimate features suit images unlike natural photographs.

K classifiers are fitted, each without one fold of the real images. So every real image is unseen by one of them.
Features of images that a network was fitted on must not be targets: the network is too sure of them.
Images of a class are dealt out to the folds in turn, in the order of a hash of their files. So scarce classes are
spread evenly, and copies of one file share a fold.
The loss is cross-entropy, with the logarithms of the class shares added to the logits (logit adjustment: Menon et al.
2021, arXiv 2007.07314). So probabilities hold for equally frequent classes, whatever the reference's shares.
Not covered: near-duplicates among real images (two files of one picture may fall in different folds); choosing the
number of steps on held-out images (averaged weights under a cosine schedule hardly depend on it).

Shapes: N images, C classes, D features, H = W = resolution.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from torch import Tensor, nn
from torch.nn import functional

from synthforge.config import identity_of
from synthforge.data.layout import canonical_json, digest_of
from synthforge.data.model_files import as_path, file_sha256, in_one_line, public_name, weights_in
from synthforge.data.reading import Labelled
from synthforge.devices import pick_device
from synthforge.errors import ModelError, PlaceError, RequestError
from synthforge.features.encoders.config import FittedConfig, PixelsConfig
from synthforge.features.encoders.folds import REPORT, folds_in, read_report
from synthforge.features.encoders.network import DeviceNetwork
from synthforge.features.encoders.pixels import PixelsEncoder
from synthforge.features.encoders.protocol import SEEN_DIGITS, Encoder, Loading
from synthforge.progress import Reporter
from synthforge.training.augmentation import augment
from synthforge.training.config import LoopConfig
from synthforge.training.data import DeviceImages
from synthforge.training.loop import Batch, TrainingLoop
from synthforge.training.networks import Classifier, resolution_for

WEIGHTS_FILE = "classifier.safetensors"
_MEAN, _STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
"""Pixels are scaled to -1 to 1, as in fitting."""
_AT_ONCE = 256


class FittedEncoder(Encoder):
    """The classifier of one fold. Implements `Encoder`."""

    def __init__(self, folder: Path, name: str, device: str, where: str) -> None:
        self.name = name
        report = read_report(folder, where)
        weights = weights_in(folder, (WEIGHTS_FILE,), where)
        with in_one_line(str(folder), where):
            self.seen = frozenset(report["seen"])
            with safe_open(weights, "pt") as file:
                shape = json.loads((file.metadata() or {})["classifier"])
            self.resolution = int(shape["resolution"])
            self.classes = [str(name) for name in shape["classes"]]
            classifier = Classifier(self.resolution, int(shape["width"]), len(self.classes))
            classifier.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
        self.network = DeviceNetwork(classifier, classifier.features, device=device, precision="float32", mean=_MEAN, std=_STD, where=where)
        self.dim = classifier.head.in_features
        self._head_CD = classifier.head.weight.detach().cpu().numpy()
        self._bias_C = classifier.head.bias.detach().cpu().numpy()
        self._weights_sha256 = file_sha256(weights, where)

    def identity(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {"kind": "fitted", "model": "classifier 1", "weights": self._weights_sha256, **self.network.identity(self.resolution)}

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """See `Encoder`; penultimate features, not normalised."""
        return self.network.features(images_NHWC).cpu()

    def classify(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Encoder`."""
        probabilities_NC: NDArray[np.float32] = softmax(np.asarray(features_ND, np.float32) @ self._head_CD.T + self._bias_C, axis=1)
        return probabilities_NC


def load(config: FittedConfig, loading: Loading) -> list[Encoder]:
    """The encoders of a Config: one for each fold, fitted first if necessary, and one of pixels.

    Raises: ModelError or RequestError.
    """
    where = loading.where
    if config.model is not None:
        folder = as_path(config.model)
        if folder is None or not (folds := folds_in(folder)):
            raise ModelError(
                f"{where}.model: no fitted classifiers at {config.model}; they lie in folders fold-0, fold-1, ...; check the path"
            )
        name = public_name(config.model, folder)
    else:
        if loading.reference is None:
            raise RequestError(f"{where}: kind fitted needs real images to be fitted on; give a reference, or name a fitted `model`")
        folder = loading.cache / f"fitted-{_digest_of(config, loading.reference)[:16]}"
        fit_folds(loading.reference, config, folder, device=loading.device, where=where, reporter=loading.reporter)
        folds, name = folds_in(folder), "fitted on the reference"
    encoders: list[Encoder] = [
        FittedEncoder(fold, f"{name}, fold {number + 1} of {len(folds)}", loading.device, where) for number, fold in enumerate(folds)
    ]
    if config.model is None and config.pixels is not None:
        encoders.append(PixelsEncoder(PixelsConfig(resolution=config.pixels)))
    return encoders


def folds_of(reference: Labelled, num_folds: int) -> list[int]:
    """The fold of each example: images of a class are dealt out in turn, in the order of a hash of their files."""
    ranked = sorted({(example.class_name, example.sha256) for example in reference.examples}, key=lambda item: (item[0], _hash(item[1])))
    start = {name: number for number, name in enumerate(reference.classes)}  # so that single leftovers do not all go to fold 0
    fold_by_file: dict[str, int] = {}
    dealt: Counter[str] = Counter()
    for class_name, sha256 in ranked:
        if sha256 not in fold_by_file:  # one file under two classes stays in one fold
            fold_by_file[sha256] = (start[class_name] + dealt[class_name]) % num_folds
            dealt[class_name] += 1
    return [fold_by_file[example.sha256] for example in reference.examples]


def _hash(sha256: str) -> str:
    return hashlib.blake2b(sha256.encode(), digest_size=8).hexdigest()


def seen_in(reference: Labelled) -> list[str]:
    """`Encoder.seen` of a model fitted on these images, sorted."""
    return sorted({example.sha256[:SEEN_DIGITS] for example in reference.examples})


def without_fold(reference: Labelled, fold: int, num_folds: int) -> tuple[Labelled, Labelled]:
    """The images to fit on, and the images of the fold left out."""
    folds = folds_of(reference, num_folds)
    inside = [example for example, its in zip(reference.examples, folds, strict=True) if its == fold]
    outside = [example for example, its in zip(reference.examples, folds, strict=True) if its != fold]
    return Labelled(reference.classes, outside), Labelled(reference.classes, inside)


def fit_folds(
    reference: Labelled,
    config: FittedConfig,
    out: Path,
    *,
    validation: Labelled | None = None,
    device: str = "auto",
    half: bool = False,
    command: str | None = None,
    where: str = "encoder",
    reporter: Reporter | None = None,
) -> None:
    """Fit a classifier for each fold that is missing in `out`. A folder appears when its classifier is finished.

    Args:
        validation: only its accuracy is reported; None: not reported.
        half: store weights as float16.
        command: the command that makes this model, for the report; None: not reported.
    Raises: DatasetError for unreadable images, RequestError for too few of them, PlaceError for `out`.
    """
    if all((out / f"fold-{fold}").exists() for fold in range(config.folds)):
        return
    reporter = reporter or Reporter()
    # Sorted, so that the same images give the same classifiers wherever they come from.
    reference = Labelled(reference.classes, sorted(reference.examples, key=lambda example: (example.class_name, example.sha256)))
    if len({example.sha256 for example in reference.examples}) < 2 * config.folds:
        raise RequestError(
            f"{where}: {len(reference.examples)} real images are too few for {config.folds} folds; use another kind of encoder"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(out.parent / f".{out.name}.lock"):  # processes that want the same encoder wait for the first
            out.mkdir(exist_ok=True)
            for fold in range(config.folds):
                if not (out / f"fold-{fold}").exists():
                    _FoldFit(reference, config, fold, device, where).run(out, validation, half, command, reporter)
    except OSError as error:
        raise PlaceError(f"{out}: can't be written ({error.strerror or error}); choose another cache") from error


@dataclass
class _FoldFit:
    """The fit of one classifier on all but one fold."""

    reference: Labelled
    config: FittedConfig
    fold: int
    device: str
    where: str

    def run(self, out: Path, validation: Labelled | None, half: bool, command: str | None, reporter: Reporter) -> None:
        fitted, left_out = without_fold(self.reference, self.fold, self.config.folds)
        present = {example.class_name for example in fitted.examples}
        fitted = Labelled([name for name in self.reference.classes if name in present], fitted.examples)
        resolution = self.config.resolution or resolution_for(min(self.reference.examples[0].pixels().shape[:2]))
        checkpoint = out / f".fold-{self.fold}.checkpoint.safetensors"
        classifier = self._fit(fitted, resolution, checkpoint, reporter)
        work = Path(tempfile.mkdtemp(prefix=".fold-", dir=out))
        shape = {"resolution": resolution, "width": _width(self.config, resolution), "classes": fitted.classes}
        tensors = {key: (value.half() if half else value).contiguous() for key, value in classifier.state_dict().items()}
        save_file(tensors, work / WEIGHTS_FILE, {"classifier": json.dumps(shape)})
        report = {
            "seen": seen_in(fitted),
            "images_fitted": len(fitted.examples),
            "classes": fitted.classes,
            "parameters": sum(parameter.numel() for parameter in classifier.parameters()),
            "config": identity_of(self.config, lambda path, value: value),
            "versions": {"synthforge": version("synthforge"), "torch": torch.__version__},
        }
        if command is not None:
            report["command"] = command
        (work / REPORT).write_bytes(canonical_json(report))
        loaded = FittedEncoder(work, "", self.device, self.where)
        report["accuracy"] = {
            name: accuracy(loaded, part)
            for name, part in (("left_out_fold", left_out), ("validation", validation))
            if part is not None and part.examples
        }
        (work / REPORT).write_bytes(canonical_json(report))
        work.chmod(0o755)
        os.replace(work, out / f"fold-{self.fold}")
        checkpoint.unlink(missing_ok=True)

    def _fit(self, fitted: Labelled, resolution: int, checkpoint: Path, reporter: Reporter) -> nn.Module:
        images_NCHW, labels_N = fitted.arrays(resolution, 3)
        seed = self.config.loop.seed + self.fold
        loop_config = _filled_in(self.config.loop, len(labels_N)).model_copy(update={"seed": seed})
        torch.manual_seed(seed)
        place = pick_device(self.device, self.where)
        network = Classifier(resolution, _width(self.config, resolution), len(fitted.classes)).to(place)
        if place.type == "cuda":
            network = network.to(memory_format=torch.channels_last)
        data = DeviceImages(torch.from_numpy(images_NCHW), torch.from_numpy(labels_N), place)
        log_share_C = torch.from_numpy(np.log(np.bincount(labels_N, minlength=len(fitted.classes)) / len(labels_N))).float().to(place)

        def batch_of(step: int) -> Batch:
            return data.batch(step, loop_config.batch, seed)

        def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            images_BCHW, labels_B = batch
            moved_BCHW, _ = augment(images_BCHW, self.config.augment, generator)
            return functional.cross_entropy(network(moved_BCHW).float() + log_share_C, labels_B)

        loop = TrainingLoop(network, batch_of, loss, loop_config, checkpoint)
        loop.notes = {"identity": digest_of(seen_in(fitted))}
        loop.resume()
        task = f"fit encoder {self.fold + 1} of {self.config.folds}"
        reporter.begin(task, loop.num_steps * loop_config.batch, loop.step * loop_config.batch)
        for _ in loop.run(lambda progress: reporter.advance(progress.num_new * loop_config.batch)):
            pass
        reporter.end()
        return loop.ema.cpu()


def accuracy(encoder: FittedEncoder, labelled: Labelled) -> float:
    """Share of images that are classified correctly, to four decimals."""
    images_NCHW, labels_N = labelled.arrays(encoder.resolution, 3)
    images_NHWC = np.ascontiguousarray(images_NCHW.transpose(0, 2, 3, 1))
    features = [encoder.embed(images_NHWC[start : start + _AT_ONCE]).numpy() for start in range(0, len(images_NHWC), _AT_ONCE)]
    predicted_N = encoder.classify(np.concatenate(features)).argmax(axis=1)
    right = [encoder.classes[index] == labelled.classes[label] for index, label in zip(predicted_N, labels_N, strict=True)]
    return round(float(np.mean(right)), 4)


def _filled_in(loop: LoopConfig, num: int) -> LoopConfig:
    """The Config with its number of training images; few images are each shown more often than many."""
    if loop.images is not None:
        return loop
    return loop.model_copy(update={"images": min(2_000_000, 20_000 + 40 * min(num, 1000) + 20 * max(num - 1000, 0))})


def _width(config: FittedConfig, resolution: int) -> int:
    return config.width or (16 if resolution <= 12 else 32)


def _digest_of(config: FittedConfig, reference: Labelled) -> str:
    content = {
        "config": identity_of(config.model_copy(update={"pixels": None}), lambda path, value: value),
        "classes": reference.classes,
        "images": sorted((example.class_name, example.sha256) for example in reference.examples),
        "decoder": reference.examples[0].reading.decoder,
        "version": 2,  # raised when equal settings and images give other classifiers
    }
    return digest_of(content)
