"""How far one set of images is from another: pure functions of their features, and a row for each that says how to read it.

Sources: unbiased MMD² (Gretton et al. 2012, JMLR 13) with a Gaussian kernel (CMMD: Jayasumana et al. 2024, arXiv 2401.09603) and a
polynomial one (KID: Bińkowski et al. 2018, arXiv 1801.01401); Fréchet distance (Heusel et al. 2017, arXiv 1706.08500); precision and
recall (Kynkäänniemi et al. 2019, arXiv 1904.06991); density and coverage (Naeem et al. 2020, arXiv 2002.09797); Vendi score (Friedman
and Dieng 2022, arXiv 2210.02410). The features are the caller's: the same function is FID on one network's and FD-DINOv2 on another's.
At the end stands MMD² of weighted images, of which gap.py makes its intervals: a stratified U-statistic. Leaving out the pair of an image
with itself makes a mean over pairs unbiased for independent draws from all classes only. Where the number of images of each class is
fixed, as in a set that is balanced by class, the images left out are all pairs inside a class, so that pairs across classes would get
too much of the sum, a set would look nearer than it is by about 1/n, and small sets nearest of all.
Not covered: equal sizes, which are the caller's care; blocks, so sets of some thousand images at most.
Shapes: M real images, N others, D features; float32 or float64 in, computed in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.registry import Registry

Doubles = NDArray[np.float64]
Features = NDArray[np.floating[Any]]

BALL_NEIGHBOURS = 5
"""A ball around an image reaches to this neighbour."""
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
"""Of the CMMD paper; they are meant for CLIP features of length 1."""
FEWEST_FOR_MMD = 4
"""With fewer images on either side MMD² says nothing."""
MOST_ALONE = 0.1
"""If more of a side's images are the only ones of their class, nothing is said of all classes together."""
_MEDIAN_OF = 2000
"""Real images among which the median distance is taken."""


# Kernels


def squared_distances(one_ND: Features, other_MD: Features) -> Doubles:
    """Squared Euclidean distances (N, M)."""
    one_ND, other_MD = np.asarray(one_ND, np.float64), np.asarray(other_MD, np.float64)
    # From a common centre less is lost to rounding.
    centre_D = other_MD.sum(axis=0) / max(len(other_MD), 1)
    one_ND, other_MD = one_ND - centre_D, other_MD - centre_D
    squared_NM = one_ND @ other_MD.T
    squared_NM *= -2
    squared_NM += np.einsum("nd,nd->n", one_ND, one_ND)[:, None]
    squared_NM += np.einsum("md,md->m", other_MD, other_MD)
    return np.maximum(squared_NM, 0, out=squared_NM)


def gaussian_kernel(one_ND: Features, other_MD: Features, sigma: float) -> Doubles:
    """exp(-|x - y|² / 2σ²), (N, M)."""
    kernel_NM = squared_distances(one_ND, other_MD)
    kernel_NM /= -2 * sigma**2
    return np.exp(kernel_NM, out=kernel_NM)


def cubic_kernel(one_ND: Features, other_MD: Features) -> Doubles:
    """(x·y / D + 1)³, (N, M)."""
    kernel_NM: Doubles = (np.asarray(one_ND, np.float64) @ np.asarray(other_MD, np.float64).T / one_ND.shape[1] + 1) ** 3
    return kernel_NM


def median_sigma(real_MD: Features) -> float:
    """The median distance between two real images (of at most 2,000, evenly spaced in their order); 1 if there is none."""
    if len(real_MD) < 2:
        return 1.0
    rows = np.unique(np.linspace(0, len(real_MD) - 1, min(len(real_MD), _MEDIAN_OF)).astype(np.int64))
    squared_MM = squared_distances(real_MD[rows], real_MD[rows])
    median = float(np.median(squared_MM[np.triu_indices(len(rows), 1)]))
    return median**0.5 if median > 0 else 1.0


def unbiased_mmd2(kernel_MM: Doubles, kernel_NN: Doubles, kernel_NM: Doubles) -> float:
    """MMD² without the pairs of an image with itself; it can come out below 0. At least two images on each side."""
    within = sum((kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in (kernel_MM, kernel_NN))
    return float(within - 2 * kernel_NM.mean())


def mmd2(real_MD: Features, other_ND: Features, sigma: float | None = None) -> float:
    """Unbiased MMD² under a Gaussian kernel; its width is the median distance between real images unless given."""
    sigma = sigma or median_sigma(real_MD)
    return unbiased_mmd2(
        gaussian_kernel(real_MD, real_MD, sigma), gaussian_kernel(other_ND, other_ND, sigma), gaussian_kernel(other_ND, real_MD, sigma)
    )


def cmmd(real_MD: Features, other_ND: Features) -> float:
    """CMMD with the paper's constants, on features brought to length 1, without bias (the paper's code keeps it)."""
    return CMMD_SCALE * mmd2(normalised(real_MD), normalised(other_ND), CMMD_SIGMA)


def kid(real_MD: Features, other_ND: Features) -> float:
    """Unbiased MMD² under the cubic kernel, of all images at once."""
    return unbiased_mmd2(cubic_kernel(real_MD, real_MD), cubic_kernel(other_ND, other_ND), cubic_kernel(other_ND, real_MD))


def normalised(features_ND: Features) -> Doubles:
    """Rows of length 1; a row of zeros stays."""
    features_ND = np.asarray(features_ND, np.float64)
    length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
    unit_ND: Doubles = features_ND / np.where(length_N1 > 0, length_N1, 1)
    return unit_ND


# Metrics that depend on the number of images


@dataclass(frozen=True)
class Moments:
    """Mean, and a factor F of the covariance FᵀF (over n - 1) with at most D rows. At least two images."""

    mean_D: Doubles
    factor: Doubles

    @classmethod
    def of(cls, features_ND: Features) -> Moments:
        rows = np.asarray(features_ND, np.float64)
        mean_D = rows.mean(axis=0)
        factor = (rows - mean_D) / np.sqrt(len(rows) - 1)
        return cls(mean_D, factor if len(factor) <= factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r")))

    def frechet(self, other: Moments) -> float:
        """|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½).

        The trace of the root is the sum of singular values of F₁ F₂ᵀ: no root of a product that is only nearly symmetric, and cheap
        where images are fewer than features.
        """
        root = np.linalg.svd(self.factor @ other.factor.T, compute_uv=False).sum()
        distance = ((self.mean_D - other.mean_D) ** 2).sum() + (self.factor**2).sum() + (other.factor**2).sum() - 2 * root
        return float(max(distance, 0.0))


def frechet(real_MD: Features, other_ND: Features) -> float:
    """Fréchet distance between the normal distributions with the sets' means and covariances. At least two images on each side."""
    return Moments.of(real_MD).frechet(Moments.of(other_ND))


def vendi(features_ND: Features) -> float:
    """exp of the entropy of the eigenvalues of the cosine similarities over n: from 1 (all the same) to n (all different)."""
    unit_ND = normalised(features_ND)
    gram = unit_ND @ unit_ND.T if len(unit_ND) <= unit_ND.shape[1] else unit_ND.T @ unit_ND
    eigenvalues = np.linalg.eigvalsh(gram / len(unit_ND))
    eigenvalues = eigenvalues[eigenvalues > 1e-15]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


class RealSide:
    """Real images with what does not depend on the set that they are compared with. More than k of them."""

    def __init__(self, real_MD: Features, k: int = BALL_NEIGHBOURS) -> None:
        self.real_MD, self.k = real_MD, k
        squared_MM = squared_distances(real_MD, real_MD)
        self.radius_M, self.among_M = _kth_other(squared_MM, k), np.sqrt(_kth_other(squared_MM, 1))

    @functools.cached_property
    def moments(self) -> Moments:
        """Mean and covariance."""
        return Moments.of(self.real_MD)


class Pair:
    """Real images and others, more than k, with what several metrics need, each computed once."""

    def __init__(self, real: RealSide, other_ND: Features) -> None:
        self.real, self.other_ND = real, other_ND

    @functools.cached_property
    def between_MN(self) -> Doubles:
        """Squared distances."""
        return squared_distances(self.real.real_MD, self.other_ND)

    @functools.cached_property
    def in_real_ball_MN(self) -> NDArray[np.bool_]:
        """Whether each image lies in the ball around each real one."""
        return self.between_MN < self.real.radius_M[:, None]

    @functools.cached_property
    def in_other_ball_MN(self) -> NDArray[np.bool_]:
        """Whether each real image lies in the ball around each of the others."""
        return self.between_MN < _kth_other(squared_distances(self.other_ND, self.other_ND), self.real.k)

    @functools.cached_property
    def nearest_N(self) -> Doubles:
        """Distance to the nearest real image."""
        nearest_N: Doubles = np.sqrt(self.between_MN.min(axis=0))
        return nearest_N

    def precision(self) -> float:
        """Share of the images in a real ball."""
        return float(self.in_real_ball_MN.any(axis=0).mean())

    def recall(self) -> float:
        """Share of the real images in another's ball."""
        return float(self.in_other_ball_MN.any(axis=1).mean())

    def density(self) -> float:
        """Real balls around an image, over k."""
        return float(self.in_real_ball_MN.sum(axis=0).mean() / self.real.k)

    def coverage(self) -> float:
        """Share of the real balls with an image."""
        return float(self.in_real_ball_MN.any(axis=1).mean())

    def frechet(self) -> float:
        """Fréchet distance."""
        return self.real.moments.frechet(Moments.of(self.other_ND))

    def vendi(self) -> float:
        """Vendi score of the others."""
        return vendi(self.other_ND)

    def nearest(self) -> float:
        """Median distance to the nearest real image against that among real images."""
        usual = float(np.median(self.real.among_M))
        return float(np.median(self.nearest_N)) / usual if usual > 0 else 1.0

    def nearer_than(self, share: float) -> float:
        """Share of the images nearer to a real one than this share of the real images is to another."""
        return float((self.nearest_N < np.quantile(self.real.among_M, share)).mean())


def _kth_other(squared_NN: Doubles, k: int) -> Doubles:
    """Squared distance of each to its k-th nearest other; changes the diagonal."""
    np.fill_diagonal(squared_NN, np.inf)
    kth_N: Doubles = np.partition(squared_NN, k - 1, axis=1)[:, k - 1]
    return kth_N


# What is measured

Better = Literal["lower", "higher", "near floor"]


@dataclass(frozen=True)
class Metric:
    """How a figure is computed, and how to read it."""

    name: str
    unit: str
    better: Better
    sentence: str
    of_pair: Callable[[Pair], float] | None = None
    """From two sets to the figure. It depends on the number of images, so only sets of one size are compared."""
    kernel: Callable[[Features, Features, float], Doubles] | None = None
    """In its place, for an MMD², which compares sets of any sizes: from two sets and sigma, the median distance between real
    images, to (n, m)."""
    of_classes: bool = True
    """Whether it is given for single classes too."""

    def __post_init__(self) -> None:
        if (self.of_pair is None) == (self.kernel is None):
            raise ValueError(f"metric {self.name}: give either of_pair or kernel")

    @property
    def equal_sizes(self) -> bool:
        """Whether only sets of one size can be compared."""
        return self.kernel is None


METRICS: Registry[Metric] = Registry("metric")
"""Every metric of the gap, in the order in which they are shown."""
METRICS["mmd"] = Metric(
    "MMD²",
    "squared distance",
    "lower",
    "Distance between the two distributions under a Gaussian kernel; 0 if equal.",
    kernel=gaussian_kernel,
)
METRICS["kid"] = Metric(
    "KID",
    "squared distance",
    "lower",
    "The same under a cubic kernel, which weighs outliers more.",
    kernel=lambda one, other, _: cubic_kernel(one, other),
)
METRICS["frechet"] = Metric(
    "Fréchet distance", "squared distance", "lower", "Distance between mean and covariance of the two sets.", Pair.frechet, of_classes=False
)
METRICS["precision"] = Metric("precision", "share", "higher", "Share of images that lie where real images are.", Pair.precision)
METRICS["recall"] = Metric("recall", "share", "higher", "Share of real images that lie where the set has images.", Pair.recall)
METRICS["density"] = Metric(
    "density", "ratio", "near floor", "How many real images' neighbourhoods an image lies in, against what is usual.", Pair.density
)
METRICS["coverage"] = Metric(
    "coverage", "share", "higher", "Share of real images that have one of the set in their neighbourhood.", Pair.coverage
)
METRICS["vendi"] = Metric(
    "Vendi score", "images", "near floor", "How many wholly different images the set is worth: its variety.", Pair.vendi, of_classes=False
)
METRICS["nearest"] = Metric(
    "nearest real", "ratio", "near floor", "Median distance to the nearest real image, against that among real ones.", Pair.nearest
)
for percent in (1, 5):
    METRICS[f"copies{percent}"] = Metric(
        f"nearer than {percent} %",
        "share",
        "near floor",
        f"Share nearer to a real image than {percent} % of real ones are to another.",
        functools.partial(Pair.nearer_than, share=percent / 100),
    )


def figures(pair: Pair, of_class: bool = False) -> dict[str, float]:
    """Every metric that needs equal sizes; nan where it is not given for single classes, or gives no finite number."""
    values = {
        name: metric.of_pair(pair) if metric.of_classes or not of_class else np.nan
        for name, metric in METRICS.items()
        if metric.of_pair is not None
    }
    return {name: value if np.isfinite(value) else np.nan for name, value in values.items()}


# MMD² of weighted images, class by class: B replicates at once, C classes


@dataclass(frozen=True)
class Weighted:
    """Images of one side, sorted by class, with a weight for each in each replicate; those of a class sum to its number of images."""

    blocks: list[tuple[int, slice]]
    """Each class that occurs (-1 included) and its rows."""
    weights_BN: NDArray[np.float32]

    @classmethod
    def of(cls, class_N: NDArray[np.int64], weights_BN: NDArray[np.float32]) -> Weighted:
        found, starts = np.unique(class_N, return_index=True)
        ends = np.append(starts, len(class_N))[1:].tolist()
        blocks = [(int(index), slice(start, end)) for index, start, end in zip(found, starts.tolist(), ends, strict=True)]
        weights_BN = weights_BN.copy()
        for _, rows in blocks:
            weights_BN[:, rows] *= (rows.stop - rows.start) / weights_BN[:, rows].sum(axis=1, keepdims=True)
        return cls(blocks, weights_BN)

    def __len__(self) -> int:
        return int(self.weights_BN.shape[1])


def within(kernel_NN: Doubles, images: Weighted, num_classes: int) -> Doubles:
    """Mean of the kernel over two independent draws, of a class and of all classes in their shares, (1 + B, C + 1); zeroes its diagonal.

    Of all: Σ_c p_c² (mean over pairs of different images of c) + Σ_{c≠d} p_c p_d (mean over pairs of c and d), whatever the weights. For
    a class with one image, which has no pair, the mean inside the other classes stands in; its image's weight never varies. With more than
    `MOST_ALONE` of such images there is no figure of all.
    """
    np.fill_diagonal(kernel_NN, 0)
    found = np.full((1 + len(images.weights_BN), num_classes + 1), np.nan)
    paired = [(index, rows, rows.stop - rows.start) for index, rows in images.blocks if rows.stop - rows.start > 1]
    num_paired = sum(num for _, _, num in paired)
    num_alone = len(images) - num_paired
    for part, weights, kernel in _both(images.weights_BN, kernel_NN):
        total, own = _dot(weights @ kernel, weights), np.zeros(len(weights))
        for index, rows, num in paired:
            inside = _dot(weights[:, rows] @ kernel[rows, rows], weights[:, rows])
            mean = inside / (weights[:, rows].sum(axis=1, dtype=np.float64) ** 2 - _dot(weights[:, rows], weights[:, rows]))
            total += num**2 * mean - inside
            own += num * mean
            if index >= 0 and num >= FEWEST_FOR_MMD:
                found[part, index] = mean
        if len(images) >= FEWEST_FOR_MMD and num_alone <= MOST_ALONE * len(images):
            found[part, -1] = (total + num_alone * own / num_paired) / len(images) ** 2
    return found


def between(kernel_NM: Doubles, one: Weighted, other: Weighted, num_classes: int) -> Doubles:
    """Mean of the kernel over pairs of one and the other, (1 + B, C + 1)."""
    found = np.full((1 + len(one.weights_BN), num_classes + 1), np.nan)
    blocks = dict(other.blocks)
    for (part, weights, kernel), (_, other_weights, _) in zip(
        _both(one.weights_BN, kernel_NM), _both(other.weights_BN, kernel_NM), strict=True
    ):
        found[part, -1] = _dot(weights @ kernel, other_weights) / (len(one) * len(other))
        for index, rows in one.blocks:
            if index >= 0 and index in blocks:
                columns = blocks[index]
                pairs = (rows.stop - rows.start) * (columns.stop - columns.start)
                found[part, index] = _dot(weights[:, rows] @ kernel[rows, columns], other_weights[:, columns]) / pairs
    return found


def _both(weights_BN: NDArray[np.float32], kernel: Doubles) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Rows of the result, weights and kernel: for the images as they are in float64, for the replicates in float32."""
    yield slice(0, 1), np.ones((1, weights_BN.shape[1])), kernel
    yield slice(1, None), weights_BN, kernel.astype(np.float32)


def _dot(one_BN: NDArray[Any], other_BN: NDArray[Any]) -> Doubles:
    """Row by row, summed in float64."""
    products: Doubles = np.einsum("bn,bn->b", one_BN, other_BN, dtype=np.float64)
    return products


def spread_within(kernel_MM: Doubles, images: Weighted) -> NDArray[np.float32]:
    """Kernel of the images' deviations from their class's mean, (M, M), without the bias that comes of taking the mean from them.

    The diagonal is 0: the sum of squares over pairs of different images estimates the spread of the null without the square of the trace,
    which would make it too wide where images are few and their deviations have many dimensions.
    """
    spread_MM = kernel_MM.copy()
    for _, rows in images.blocks:
        num = rows.stop - rows.start
        spread_MM[rows] = (spread_MM[rows] - spread_MM[rows].mean(axis=0)) * (num / max(num - 1, 1)) ** 0.5
    for _, rows in images.blocks:
        num = rows.stop - rows.start
        spread_MM[:, rows] = (spread_MM[:, rows] - spread_MM[:, rows].mean(axis=1, keepdims=True)) * (num / max(num - 1, 1)) ** 0.5
    np.fill_diagonal(spread_MM, 0)
    return spread_MM.astype(np.float32)


def null_draws(spread_MM: NDArray[np.float32], one_BM: NDArray[np.float32], num_other: int, rng: np.random.Generator) -> Doubles:
    """MMD² between M and `num_other` draws from the distribution of the M, (B,): quadratic forms in standard normal variables.

    Those of the M are given; the others are drawn and brought in the order of their own term, so that draws with equal numbers agree as
    far as they can across several kernels, as they do when the same images are seen by several encoders.
    """
    num_real = len(spread_MM)
    spread_MM = (spread_MM / num_real).astype(np.float32)
    other_BM = rng.standard_normal(one_BM.shape, np.float32)
    own_B = _dot(other_BM @ spread_MM, other_BM)
    order_B = np.argsort(own_B)
    image_BM = one_BM @ spread_MM
    draws: Doubles = _dot(image_BM, one_BM) / num_real + own_B[order_B] / num_other
    draws -= 2 * _dot(image_BM, other_BM[order_B]) / (num_real * num_other) ** 0.5
    return draws
