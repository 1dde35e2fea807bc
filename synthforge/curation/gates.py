"""Gates: tests of single images, such as the label filter and the duplicate filter.

A gate is one class that is added to `GATES`. Its fields are its settings, and `test` is the test. Gates are applied in
the order in which they were added. Each gives a reason for dropping an image and a score for the record. Every image is
tested by all gates; the first gate that an image fails gives the reason.

Thresholds are set on the *validation* part of the reference, so that about a share `loss` of real images would fail
too. With fewer than 1 / loss validation images, none of them fails. Without a validation part, labels and manifold use
the fit images instead. Each is left out in turn, and judged by the model of the fold that has not seen it.

Gates are mild on purpose. Filters that maximise confidence destroy variety (Zhang et al. 2023, arXiv 2305.10118). Which
images make a good *set* is the task of the selection. Not covered: properties of the set as a whole.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.arrays import Bools
from synthforge.config import Config, identity
from synthforge.recipe.curation import GATES as GATES, CurationConfig

if TYPE_CHECKING:
    from synthforge.curation.evidence import Evidence


@dataclass(frozen=True)
class GateOutcome:
    """Result of one gate for the N images of a pool."""

    fails_N: Bools
    """Images that fail the gate."""
    reasons: dict[str, Bools]
    """The images that fail for each reason, (N,) each. They don't overlap, and their union is `fails_N`."""
    rule: str
    """The threshold in words, with its value."""
    scores: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    """Columns for decisions.parquet, (N,) each."""
    warning: str = ""
    """What the user must know, such as that no threshold could be set. Empty: nothing."""

    @classmethod
    def of(
        cls, reasons: dict[str, Bools], rule: str, scores: dict[str, NDArray[np.generic]] | None = None, warning: str = ""
    ) -> GateOutcome:
        """From reasons that may overlap; an image fails for the first of its reasons."""
        fails, apart = np.zeros_like(next(iter(reasons.values()))), {}
        for reason, marks in reasons.items():
            apart[reason] = marks & ~fails
            fails = fails | marks
        return cls(fails, apart, rule, scores or {}, warning)


class Gate(Config):
    """A test of single images."""

    title: ClassVar[str]
    """Name of the gate in the summary."""
    reasons: ClassVar[dict[str, tuple[str, str]]] = {}
    """For reports: each reason with a heading for such images and a sentence on why they are dropped."""

    on: bool = identity(True)
    """Whether the gate is applied."""

    @property
    def is_in_digests(self) -> bool:
        """Whether the settings were touched, or the gate is on. So a new gate that is off changes no digest."""
        return self.on or self != type(self)()

    @property
    def needs_texts(self) -> bool:
        """Whether it compares images with texts."""
        return False

    @abstractmethod
    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:
        """Test every image.

        Args:
            alive_N: images that passed the gates before. Gates that compare images with each other compare only these.
        """


@GATES.add("copies")
class CopiesGate(Gate):
    """Drops copies of real images. An image is a copy if its distance to a real image is at most `factor` times the
    natural distance. The natural distance is the `loss` quantile of the distances from validation images to their
    nearest other real image that differs. With few of these, it is taken over all real images, or only equal images are
    dropped, with a warning. An image-to-image sample is also compared with its own source image."""

    title: ClassVar[str] = "copy"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "copy of a real image": ("Copies of a real image", "They are nearly the same as a real image, and may reveal private data."),
        "copy of its source": ("Copies of the source image", "They started from a real image (image-to-image), and have hardly changed."),
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of validation images that have another real image within the natural distance."""
    factor: float = identity(0.5, gt=0, le=10)
    """An image counts as a copy within this multiple of the natural distance."""
    source: bool = identity(True)
    """Also drop image-to-image samples that hardly differ from their source image."""

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:  # noqa: ARG002 - real images stay the same
        limit, words, warning = _limit(evidence, self.loss, self.factor, "the nearest real image")
        nearest = evidence.nearest
        copies = nearest.distance_N <= limit
        unchanged = nearest.source_distance_N <= limit if self.source else np.zeros_like(copies)
        return GateOutcome.of(
            {"copy of a real image": copies, "copy of its source": unchanged},
            f"{words}{_by_strength(evidence, unchanged)}",
            {
                "nearest_real_distance": nearest.distance_N,
                "nearest_real": evidence.real_keys(nearest.real_N),
                "source_distance": nearest.source_distance_N,
            },
            warning and f"gate {self.title}: {warning}",
        )


def _limit(evidence: Evidence, loss: float, factor: float, other: str) -> tuple[float, str, str]:
    """The distance within which an image counts as the same, the rule in words, and a warning if it can't be set."""
    from synthforge.curation.evidence import FEWEST  # takes seconds to import

    natural = evidence.natural_distance(loss)
    if natural is None:
        warning = f"fewer than {FEWEST} real images differ from their nearest neighbour, so no limit can be set"
        return evidence.equal_distance, f"dropped if {other} is equal; {warning}", f"only equal images are found: {warning}"
    limit = factor * natural
    return limit, f"dropped if {other} is within {limit:.4g} ({factor:g} times the {loss:.0%} quantile among real images)", ""


def _calibrated_on(evidence: Evidence) -> str:
    """The real images on which a threshold was set, in words."""
    num = len(evidence.calibration[0])
    return f"{num} validation images" if len(evidence.validation) else f"{num} real images of the fit part (leave-one-out)"


def _by_strength(evidence: Evidence, unchanged_N: Bools) -> str:
    """Share of images at each image-to-image strength that hardly differ from their source, in words."""
    levels = np.unique(evidence.strength_N[~np.isnan(evidence.strength_N)])
    shares = [f"{level:g}: {unchanged_N[evidence.strength_N == level].mean():.1%}" for level in levels]
    return f"; share of images too near to their source, by strength: {', '.join(shares)}" if shares else ""


@GATES.add("labels")
class LabelGate(Gate):
    """Label filter: drops images that don't look like their class. `vote`: the share of the nearest real images that
    have the label is below the `loss` quantile of that share among validation images, and below `most`. `zero-shot`:
    the encoder's text probability of the class is below chance, 1 / classes (He et al. 2022, arXiv 2210.07574)."""

    title: ClassVar[str] = "label"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "label disagrees": (
            "They look like another class",
            "Too few of the most similar real images have the same label, or the text of the class does not fit.",
        )
    }

    rule: Literal["vote", "zero-shot"] = identity("vote")
    """`vote`: compare with the nearest real images. `zero-shot`: compare with texts; needs an encoder with texts."""
    neighbours: int = identity(10, ge=1, le=64)
    """Nearest real images that vote."""
    loss: float = identity(0.02, ge=0, lt=1)
    """Share of validation images that may fail. It sets the threshold of `vote`."""
    most: float = identity(0.5, gt=0, le=1)
    """Largest threshold of `vote`: an image with at least this share of the votes always passes."""
    template: str = identity("a photo of a {class}", min_length=1)
    """Text of a class for `zero-shot`."""

    @property
    def needs_texts(self) -> bool:
        """Whether the rule is `zero-shot`."""
        return self.rule == "zero-shot"

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:  # noqa: ARG002
        if self.rule == "zero-shot":
            probability = evidence.text_probability(self.template)
            chance = 1 / len(evidence.classes)
            return GateOutcome.of(
                {"label disagrees": probability < chance},
                f"kept if the text probability of the class is at least {chance:.3g} (chance level)",
                {"label_probability": probability},
            )
        share, real = (likeness.own_share for likeness in evidence.likeness)
        limit = min(self.most, float(np.quantile(real, self.loss, method="lower"))) if len(real) else self.most
        limit = max(limit, 0.5 / self.neighbours)  # an image without any vote always fails
        # A class can't get more votes than it has real images.
        limit_N = np.minimum(limit, self.most * evidence.reachable_share[evidence.class_N])
        failing = f"{np.mean(real < limit):.1%} of {_calibrated_on(evidence)} fail" if len(real) else "no real image can be compared"
        words = f"kept if a share of at least {limit:.2f} of the {self.neighbours} nearest real images has the label; {failing}"
        return GateOutcome.of({"label disagrees": share < limit_N}, words, {"label_share": share})


@GATES.add("manifold")
class ManifoldGate(Gate):
    """Drops images unlike any real image. They lie outside the balls around real images that reach to the k-th
    neighbour (the manifold of Kynkaanniemi et al. 2019, arXiv 1904.06991). The balls are scaled so that a share `loss`
    of validation images lies outside."""

    title: ClassVar[str] = "off-manifold"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "off-manifold": ("Unlike any real image", "They are farther from the nearest real image than almost all real images are.")
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of validation images that lie outside. It sets the threshold."""
    most: float = identity(0.6, gt=0, le=1)
    """Largest share of a class that may be dropped, the farthest images first. A pool that is far away is not
    emptied."""

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:
        score, real = (likeness.radii for likeness in evidence.likeness)
        if not len(real):
            return GateOutcome.of(
                {"off-manifold": np.zeros_like(alive_N)},
                "not applied: the encoder was trained on all real images, so there is none to set the threshold",
            )
        limit = float(np.quantile(real, 1 - self.loss, method="higher"))
        outside = score > limit
        for number in range(len(evidence.classes)):
            rows = np.flatnonzero(alive_N & (evidence.class_N == number))
            bound = int(self.most * len(rows))
            farthest = rows[np.argsort(-score[rows], kind="stable")]
            outside[farthest[bound:]] = False
        return GateOutcome.of(
            {"off-manifold": outside},
            f"kept within {limit:.3g} radii of a real image; {np.mean(real > limit):.1%} of {_calibrated_on(evidence)} lie outside; "
            f"never more than {self.most:.0%} of a class is dropped",
            {"manifold_radii": score},
        )


@GATES.add("content")
class ContentGate(Gate):
    """Drops unwanted content: images that match any of `words`. Their text probability, among the words and the
    classes, is above `least` and above the 1 - `loss` quantile of validation images. Needs an encoder with texts, and
    is only as good as the encoder."""

    title: ClassVar[str] = "content"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "unwanted content": ("Unwanted content", "They match a text that the recipe lists as unwanted.")
    }

    on: bool = identity(False)
    """Whether the gate is applied."""
    action: Literal["drop", "record"] = identity("drop")
    """`drop`: drop such images. `record`: only write the probability to decisions.parquet."""
    words: list[str] = identity(lambda: ["pornography", "a naked person", "gore, blood and violence"], min_length=1, max_length=100)
    """Texts of unwanted content."""
    template: str = identity("a photo of a {class}", min_length=1)
    """Text of a class."""
    least: float = identity(0.5, gt=0, lt=1)
    """Smallest threshold: no image with a lower probability is dropped."""
    loss: float = identity(0.01, ge=0, lt=1)
    """Share of validation images that may fail. It sets the threshold."""

    @property
    def is_in_digests(self) -> bool:
        """Always: this gate was in digests before gates that are off were left out. Others need no such exception."""
        return True

    @property
    def needs_texts(self) -> bool:
        """Always."""
        return True

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:  # noqa: ARG002
        probability, validation = evidence.flagged(self.template, self.words)
        limit = max(self.least, float(np.quantile(validation, 1 - self.loss))) if len(validation) else self.least
        flagged = probability > limit if self.action == "drop" else np.zeros(len(probability), bool)
        return GateOutcome.of(
            {"unwanted content": flagged},
            f"kept if the text probability of unwanted words is at most {limit:.3g}",
            {"content_probability": probability},
        )


@GATES.add("duplicates")
class DuplicatesGate(Gate):
    """Drops duplicates within the pool: images with equal pixels, and images of a class within `factor` times the
    natural distance. The natural distance is the `loss` quantile of the distances from validation images to their
    nearest other real image. Of duplicates, the one nearest to the real images stays (as in SemDeDup, Abbas et al.
    2023, arXiv 2303.09540, without its clusters)."""

    title: ClassVar[str] = "duplicate"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "exact duplicate": ("Exact duplicates", "Another image has the same pixels. Only that one was considered for selection."),
        "near duplicate": (
            "Near-duplicates",
            "Another image of the class is nearly the same, and nearer to the real images. Only that one was considered.",
        ),
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of validation images that have another real image within the natural distance."""
    factor: float = identity(0.5, gt=0, le=10)
    """Two images count as duplicates within this multiple of the natural distance."""

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:
        limit, words, warning = _limit(evidence, self.loss, self.factor, "another image")
        exact, near, kept = evidence.duplicates(limit, alive_N)
        return GateOutcome.of(
            {"exact duplicate": exact, "near duplicate": near},
            words,
            {"duplicate_of": kept},
            warning and f"gate {self.title}: {warning}",
        )


@GATES.add("pictures")
class PicturesGate(Gate):
    """Drops copies of real images and duplicates by their pixels, also mirrored, cropped by up to a fifth, scaled or
    encoded again. Two images are the same if the correlation of their band-passed grey pictures is at least 0.95. The
    limit rises until at most 0.1 % of different real images pass for the same. Of duplicates, the one nearest to the
    real images stays."""

    title: ClassVar[str] = "same picture"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "same picture as a real image": (
            "The same picture as a real image",
            "They are a real image that was mirrored, cropped, scaled or encoded again.",
        ),
        "same picture as another": (
            "The same picture as another",
            "Another image of the pool is the same picture. Only that one was considered.",
        ),
    }

    on: bool = identity(False)
    """Whether the gate is applied."""

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:
        from synthforge.features.pictures import Pictures, limit_for, repeated  # takes seconds to import

        pool_NTT, real_MTT = evidence.thumbnails
        real = Pictures(real_MTT, evidence.index)
        limit, num_equal = limit_for(real.most_like(real_MTT, np.arange(len(real_MTT))).correlation_N)
        found = real.most_like(pool_NTT, evidence.source_N)
        copies = found.correlation_N >= limit
        rows = np.flatnonzero(alive_N & ~copies)
        rows = rows[np.lexsort((rows, evidence.nearest.distance_N[rows]))]  # best first
        dropped = repeated(pool_NTT[rows], limit, evidence.index)
        duplicates = np.zeros_like(copies)
        duplicates[rows[dropped]] = True
        equal = f"; {num_equal:,} real images have an equal one" if num_equal else ""
        return GateOutcome.of(
            {"same picture as a real image": copies, "same picture as another": duplicates},
            f"dropped if the correlation with a real image, or another image, is at least {limit:.4g}{equal}",
            {"picture_correlation": found.correlation_N, "picture_of": evidence.real_keys(found.row_N)},
        )


def in_order(config: CurationConfig) -> list[Gate]:
    """The gates that are on, in the order in which they are applied."""
    return [gate for gate in config.gates.values() if isinstance(gate, Gate) and gate.on]


def heading_and_text(reason: str) -> tuple[str, str]:
    """How reports show a reason: a heading and a sentence; the reason itself and an empty text if no gate has it."""
    return next((gate.reasons[reason] for gate in GATES.values() if reason in gate.reasons), (reason, ""))
