"""Metrics of the distance between two sets of images: pure functions of their features, and a table that says how to
read each.

Sources: unbiased MMD² (Gretton et al. 2012, JMLR 13) with a Gaussian kernel (as in CMMD, Jayasumana et al. 2024, arXiv
2401.09603) and a polynomial kernel (KID, Bińkowski et al. 2018, arXiv 1801.01401); Fréchet distance (Heusel et al.
2017, arXiv 1706.08500); precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991); density and coverage (Naeem
et al. 2020, arXiv 2002.09797); Vendi score (Friedman and Dieng 2022, arXiv 2210.02410). Any features will do: the
Fréchet distance is FID on features of Inception, and FD-DINOv2 on features of DINOv2.

The last part computes MMD² of weighted images, class by class, as a stratified U-statistic. gap.py makes its intervals
from it. The usual estimate leaves out pairs of an image with itself. That is unbiased only if classes are drawn at
random, too. With a fixed number of images per class, all pairs left out lie inside a class, so pairs across classes
would count too much. A set would look nearer than it is by about 1/n, and small sets nearest of all.

Sets must be of equal size where a metric says so. Nothing works in blocks, so sets can have some thousand images.
Shapes: M real images, N others, D features. Inputs are float32 or float64; computations are in float64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.arrays import Bools, Doubles, Floats, Ints
from synthforge.registry import Registry

Features = NDArray[np.floating[Any]]

BALL_NEIGHBOURS = 5
"""The ball around an image reaches to this nearest neighbour."""
FEWEST_FOR_MMD = 4
"""MMD² is not given with fewer images on either side."""
MOST_ALONE = 0.1
"""No figure of all classes together is given if a larger share of a side's images are the only ones of their class."""
_MEDIAN_OF = 2000
"""Most real images among which the median distance is taken."""


# Kernels


def squared_distances(one_ND: Features, other_MD: Features) -> Doubles:
    """Squared Euclidean distances (N, M)."""
    one_ND, other_MD = np.asarray(one_ND, np.float64), np.asarray(other_MD, np.float64)
    # Rounding errors are smaller near the origin.
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


def cubic_kernel(one_ND: Features, other_MD: Features, sigma: float = 1.0) -> Doubles:  # noqa: ARG001 - it has no width
    """(x·y / D + 1)³, (N, M)."""
    kernel_NM: Doubles = (np.asarray(one_ND, np.float64) @ np.asarray(other_MD, np.float64).T / one_ND.shape[1] + 1) ** 3
    return kernel_NM


def median_sigma(real_MD: Features) -> float:
    """The median distance between two real images, among at most 2,000 that are evenly spaced in order; 1 if there is
    none."""
    if len(real_MD) < 2:
        return 1.0
    rows = np.unique(np.linspace(0, len(real_MD) - 1, min(len(real_MD), _MEDIAN_OF)).astype(np.int64))
    squared_MM = squared_distances(real_MD[rows], real_MD[rows])
    median = float(np.median(squared_MM[np.triu_indices(len(rows), 1)]))
    return median**0.5 if median > 0 else 1.0


# Metrics that depend on the number of images


@dataclass(frozen=True)
class NormalFit:
    """Mean and covariance of a set of at least two images."""

    mean_D: Doubles
    factor: Doubles
    """A matrix F of at most D rows; the covariance (over n - 1) is FᵀF."""

    @classmethod
    def of(cls, features_ND: Features) -> NormalFit:
        rows = np.asarray(features_ND, np.float64)
        mean_D = rows.mean(axis=0)
        factor = (rows - mean_D) / np.sqrt(len(rows) - 1)
        return cls(mean_D, factor if len(factor) <= factor.shape[1] else np.asarray(np.linalg.qr(factor, mode="r")))

    def frechet(self, other: NormalFit) -> float:
        """|μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½).

        The trace of the root is the sum of singular values of F₁ F₂ᵀ. This avoids the root of a product that is only
        nearly symmetric, and is cheap where images are fewer than features.
        """
        root = np.linalg.svd(self.factor @ other.factor.T, compute_uv=False).sum()
        distance = ((self.mean_D - other.mean_D) ** 2).sum() + (self.factor**2).sum() + (other.factor**2).sum() - 2 * root
        return float(max(distance, 0.0))


class RealSide:
    """Real images, more than k, with the quantities that don't depend on the other set."""

    def __init__(self, real_MD: Features, k: int = BALL_NEIGHBOURS) -> None:
        self.real_MD, self.k = real_MD, k
        squared_MM = squared_distances(real_MD, real_MD)
        self.radius_M, self.among_M = _kth_other(squared_MM, k), np.sqrt(_kth_other(squared_MM, 1))

    @functools.cached_property
    def normal(self) -> NormalFit:
        """Mean and covariance."""
        return NormalFit.of(self.real_MD)


class Pair:
    """Real images and a set, both of more than k images, with quantities that several metrics need. Each is computed
    once."""

    def __init__(self, real: RealSide, other_ND: Features) -> None:
        self.real, self.other_ND = real, other_ND

    @functools.cached_property
    def between_MN(self) -> Doubles:
        """Squared distances between real images and the set."""
        return squared_distances(self.real.real_MD, self.other_ND)

    @functools.cached_property
    def in_real_ball_MN(self) -> Bools:
        """Whether each image of the set lies in the ball around each real image."""
        return self.between_MN < self.real.radius_M[:, None]

    @functools.cached_property
    def nearest_N(self) -> Doubles:
        """Distance to the nearest real image."""
        nearest_N: Doubles = np.sqrt(self.between_MN.min(axis=0))
        return nearest_N

    def precision(self) -> float:
        """Share of the set's images that lie in the ball of a real image."""
        return float(self.in_real_ball_MN.any(axis=0).mean())

    def recall(self) -> float:
        """Share of the real images that lie in the ball of an image of the set."""
        in_ball_MN = self.between_MN < _kth_other(squared_distances(self.other_ND, self.other_ND), self.real.k)
        return float(in_ball_MN.any(axis=1).mean())

    def density(self) -> float:
        """Mean number of real balls around an image of the set, divided by k."""
        return float(self.in_real_ball_MN.sum(axis=0).mean() / self.real.k)

    def coverage(self) -> float:
        """Share of the real images whose ball contains an image of the set."""
        return float(self.in_real_ball_MN.any(axis=1).mean())

    def frechet(self) -> float:
        """Fréchet distance between the normal distributions with the means and covariances of both sides."""
        return self.real.normal.frechet(NormalFit.of(self.other_ND))

    def vendi(self) -> float:
        """Vendi score of the set: exp of the entropy of the eigenvalues of its cosine similarities over n.

        It lies between 1 (all images are the same) and n (all are different).
        """
        unit_ND = np.asarray(self.other_ND, np.float64)
        length_N1 = np.linalg.norm(unit_ND, axis=1, keepdims=True)
        unit_ND = unit_ND / np.where(length_N1 > 0, length_N1, 1)
        gram = unit_ND @ unit_ND.T if len(unit_ND) <= unit_ND.shape[1] else unit_ND.T @ unit_ND
        eigenvalues = np.linalg.eigvalsh(gram / len(unit_ND))
        eigenvalues = eigenvalues[eigenvalues > 1e-15]
        return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))

    def nearest(self) -> float:
        """Median distance from the set's images to the nearest real image, over the same median among real images."""
        usual = float(np.median(self.real.among_M))
        return float(np.median(self.nearest_N)) / usual if usual > 0 else 1.0

    def nearer_than(self, share: float) -> float:
        """Share of the set's images that are nearer to a real image than this share of real images are to another
        one."""
        return float((self.nearest_N < np.quantile(self.real.among_M, share)).mean())


def _kth_other(squared_NN: Doubles, k: int) -> Doubles:
    """Squared distance of each image to its k-th nearest other; changes the diagonal."""
    np.fill_diagonal(squared_NN, np.inf)
    kth_N: Doubles = np.partition(squared_NN, k - 1, axis=1)[:, k - 1]
    return kth_N


# The table of metrics

Better = Literal["lower", "higher", "near floor"]


@dataclass(frozen=True)
class Metric:
    """A metric of the gap: how it is computed, and how to read it. Give either `of_pair` or `kernel`."""

    name: str
    unit: str
    better: Better
    """Which values are better."""
    sentence: str
    """What it measures, for reports."""
    of_pair: Callable[[Pair], float] | None = None
    """Computes a metric that depends on the number of images. So only sets of equal size are compared. None: see
    `kernel`."""
    kernel: Callable[[Features, Features, float], Doubles] | None = None
    """Kernel of an MMD², which compares sets of any size. It maps features (n, D), (m, D) and sigma, the median
    distance between real images, to (n, m). None: see `of_pair`."""
    of_classes: bool = True
    """Whether it is also given for single classes."""

    def __post_init__(self) -> None:
        if (self.of_pair is None) == (self.kernel is None):
            raise ValueError(f"metric {self.name}: give either of_pair or kernel")

    @property
    def equal_sizes(self) -> bool:
        """Whether only sets of equal size can be compared."""
        return self.kernel is None


METRICS: Registry[Metric] = Registry("metric")
"""Every metric of the gap, in the order in which they are shown."""
_DISTANCE = "squared distance"
METRICS["mmd"] = Metric(
    "MMD²", _DISTANCE, "lower", "Distance between the two distributions under a Gaussian kernel; 0 if equal.", kernel=gaussian_kernel
)
METRICS["kid"] = Metric("KID", _DISTANCE, "lower", "The same with a cubic kernel, which gives outliers more weight.", kernel=cubic_kernel)
METRICS["frechet"] = Metric(
    "Fréchet distance", _DISTANCE, "lower", "Distance between mean and covariance of the two sets.", Pair.frechet, of_classes=False
)
METRICS["precision"] = Metric("precision", "share", "higher", "Share of images that lie where real images are.", Pair.precision)
METRICS["recall"] = Metric("recall", "share", "higher", "Share of real images that lie where the set has images.", Pair.recall)
METRICS["density"] = Metric(
    "density",
    "ratio",
    "near floor",
    "Mean number of real images' neighbourhoods that an image lies in, relative to real images.",
    Pair.density,
)
METRICS["coverage"] = Metric(
    "coverage", "share", "higher", "Share of real images with an image of the set in their neighbourhood.", Pair.coverage
)
METRICS["vendi"] = Metric(
    "Vendi score", "images", "near floor", "Variety: the effective number of completely different images.", Pair.vendi, of_classes=False
)
METRICS["nearest"] = Metric(
    "nearest real", "ratio", "near floor", "Median distance to the nearest real image, divided by the same among real images.", Pair.nearest
)
for percent in (1, 5):
    METRICS[f"copies{percent}"] = Metric(
        f"nearer than {percent} %",
        "share",
        "near floor",
        f"Share of images nearer to a real image than {percent} % of real images are to another.",
        functools.partial(Pair.nearer_than, share=percent / 100),
    )


def figures(pair: Pair, of_class: bool = False) -> dict[str, float]:
    """Every metric that needs equal sizes, by name; nan if it is not given for single classes, or is not finite.

    Args:
        of_class: whether the pair is of a single class.
    """
    values = {
        name: metric.of_pair(pair) if metric.of_classes or not of_class else np.nan
        for name, metric in METRICS.items()
        if metric.of_pair is not None
    }
    return {name: value if np.isfinite(value) else np.nan for name, value in values.items()}


# MMD² of weighted images, class by class: B replicates at once, C classes


@dataclass(frozen=True)
class Weighted:
    """Images of one side, sorted by class, with a weight for each image in each replicate."""

    blocks: list[tuple[int, slice]]
    """Each class that occurs (-1 included) and its rows."""
    weights_BN: Floats
    """The weights of a class sum to its number of images."""

    @classmethod
    def of(cls, class_N: Ints, weights_BN: Floats) -> Weighted:
        classes = np.unique(class_N).tolist()
        blocks = [(index, slice(*np.searchsorted(class_N, (index, index + 1)).tolist())) for index in classes]
        weights_BN = weights_BN.copy()
        for _, rows in blocks:
            weights_BN[:, rows] *= (rows.stop - rows.start) / weights_BN[:, rows].sum(axis=1, keepdims=True)
        return cls(blocks, weights_BN)

    def __len__(self) -> int:
        return int(self.weights_BN.shape[1])


def within(kernel_NN: Doubles, images: Weighted, num_classes: int) -> Doubles:
    """Mean of the kernel over two independent draws from each class, and from all classes in their shares. Zeroes the
    diagonal.

    All classes: Σ_c p_c² (mean over pairs of different images of c) + Σ_{c≠d} p_c p_d (mean over pairs of c and d). A
    class with a single image has no pair: the mean inside the other classes takes its place. With more than
    `MOST_ALONE` of such images there is no figure for all classes.

    Returns: (1 + B, C + 1): first without weights, then the replicates; first each class, last all classes.
    """
    np.fill_diagonal(kernel_NN, 0)
    means = np.full((1 + len(images.weights_BN), num_classes + 1), np.nan)
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
                means[part, index] = mean
        if len(images) >= FEWEST_FOR_MMD and num_alone <= MOST_ALONE * len(images):
            means[part, -1] = (total + num_alone * own / num_paired) / len(images) ** 2
    return means


def between(kernel_NM: Doubles, one: Weighted, other: Weighted, num_classes: int) -> Doubles:
    """Mean of the kernel over pairs of an image of one side and one of the other, (1 + B, C + 1) as in `within`."""
    means = np.full((1 + len(one.weights_BN), num_classes + 1), np.nan)
    blocks = dict(other.blocks)
    for (part, weights, kernel), (_, other_weights, _) in zip(
        _both(one.weights_BN, kernel_NM), _both(other.weights_BN, kernel_NM), strict=True
    ):
        means[part, -1] = _dot(weights @ kernel, other_weights) / (len(one) * len(other))
        for index, rows in one.blocks:
            if index >= 0 and index in blocks:
                columns = blocks[index]
                pairs = (rows.stop - rows.start) * (columns.stop - columns.start)
                means[part, index] = _dot(weights[:, rows] @ kernel[rows, columns], other_weights[:, columns]) / pairs
    return means


def _both(weights_BN: Floats, kernel: Doubles) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Rows of the result, weights and kernel: first the unweighted images in float64, then the replicates in
    float32."""
    yield slice(0, 1), np.ones((1, weights_BN.shape[1])), kernel
    yield slice(1, None), weights_BN, kernel.astype(np.float32)


def _dot(one_BN: NDArray[Any], other_BN: NDArray[Any]) -> Doubles:
    """Row by row, summed in float64."""
    products: Doubles = np.einsum("bn,bn->b", one_BN, other_BN, dtype=np.float64)
    return products


def spread_within(kernel_MM: Doubles, images: Weighted) -> Floats:
    """Kernel of the images' deviations from the mean of their class, (M, M), corrected for estimating the mean from the
    same images.

    The diagonal is 0: pairs of different images estimate the spread of the null distribution. The square of the trace
    would make it too wide where images are few and their deviations have many dimensions.
    """
    spread_MM = kernel_MM.copy()
    for side in (spread_MM, spread_MM.T):  # rows, then columns
        for _, rows in images.blocks:
            num = rows.stop - rows.start
            side[rows] = (side[rows] - side[rows].mean(axis=0)) * (num / max(num - 1, 1)) ** 0.5
    np.fill_diagonal(spread_MM, 0)
    return spread_MM.astype(np.float32)


def null_draws(spread_MM: Floats, one_BM: Floats, num_other: int, rng: np.random.Generator) -> Doubles:
    """Draws of MMD² between M and `num_other` images of one distribution, (B,): quadratic forms in standard normal
    variables.

    Args:
        spread_MM: from `spread_within`.
        one_BM: the normal variables of the M images. Those of the others are drawn here, and sorted by their own term.
            So draws of the same number agree across kernels as far as possible, as when several encoders see the same
            images.
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
