"""Gates: yes/no tests of single images, each with a reason, a score for the record, and a threshold set on the reference.

A gate is one class, added to `GATES`: its fields are its settings, `test` is its test; gates are applied in the order in which they were
added. Thresholds come from the reference's *validation* part by
the rule that stands in each docstring, so that about a share `loss` of real images would fail the gate too: with fewer than 1 / loss
validation images none of them fails, and of others some 1 in as many. For labels and the manifold a reference without that part
has its fit images in its place, each left out in turn and judged by the views that have not seen it. Gates are light: which images
make a good *set* is the selection's business, and filters that maximise confidence destroy variety (Zhang et al. 2023, arXiv 2305.10118).
All are applied to every image, for the record; the reason that counts is that of the first that fails.
Not covered: anything about the set as a whole.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.config import Config, identity
from synthforge.recipe.curation import GATES as GATES
from synthforge.recipe.curation import CurationConfig

if TYPE_CHECKING:
    from synthforge.curation.evidence import Evidence

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What one gate says of the N images of a pool."""

    fails_N: Bools
    reasons: dict[str, Bools]
    """Reason to the images that fail for it; their union is `fails_N`."""
    rule: str
    """The threshold in words, with its value."""
    scores: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    """Columns for the record."""

    @classmethod
    def of(cls, reasons: dict[str, Bools], rule: str, scores: dict[str, NDArray[np.generic]] | None = None) -> Verdict:
        """From reasons that may overlap; the first one counts."""
        fails, apart = np.zeros_like(next(iter(reasons.values()))), {}
        for reason, marks in reasons.items():
            apart[reason] = marks & ~fails
            fails = fails | marks
        return cls(fails, apart, rule, scores or {})


class Gate(Config):
    """A test of single images."""

    title: ClassVar[str]
    """What the summary calls it."""
    reasons: ClassVar[dict[str, tuple[str, str]]] = {}
    """For reports: each reason to what such images are called, and why they are dropped, without the words of gates."""

    on: bool = identity(True)
    """Whether such images are dropped."""

    @property
    def needs_texts(self) -> bool:
        """Whether it compares images with texts."""
        return False

    @abstractmethod
    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:
        """Test every image; `alive_N` are those that passed the gates before, for gates that compare images with each other."""


@GATES.add("copies")
class CopiesGate(Gate):
    """Copies of real images: nearer to one than `factor` times the distance at which a share `loss` of the validation images has its
    nearest other real image. An image made by real guidance is judged apart against the real image that it started from."""

    title: ClassVar[str] = "copy"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "copy of a real image": (
            "Copies of a real image",
            "So near to a real image that they show nothing else, and may give away what is private.",
        ),
        "copy of its source": ("Hardly changed real images", "They started from a real image, and still are nearly that one."),
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of the validation images that lie nearer to another real image than the distance that `factor` multiplies."""
    factor: float = identity(0.5, gt=0, le=10)
    """Part of that distance within which an image counts as a copy."""
    source: bool = identity(True)
    """Also drop images that hardly changed the real image that they started from."""

    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:  # noqa: ARG002 - real images stay the same
        limit = self.factor * evidence.natural_distance(self.loss)
        copies = evidence.nearest_N <= limit
        unchanged = evidence.source_distance_N <= limit if self.source else np.zeros_like(copies)
        words = f"distance to the nearest real image at most {limit:.4g}: {self.factor:g} of the {self.loss:.0%} quantile between real ones"
        return Verdict.of(
            {"copy of a real image": copies, "copy of its source": unchanged},
            words + _by_strength(evidence, unchanged),
            {
                "nearest_real_distance": evidence.nearest_N,
                "nearest_real": evidence.real_keys(evidence.nearest_real_N),
                "source_distance": evidence.source_distance_N,
            },
        )


def _calibrated_on(evidence: Evidence) -> str:
    """By what real images a threshold was set, in words."""
    num = len(evidence.calibration[0])
    return f"{num} validation images" if len(evidence.validation) else f"{num} fit images, each left out in turn,"


def _by_strength(evidence: Evidence, unchanged_N: Bools) -> str:
    """How many images of each strength of real guidance hardly changed their source."""
    levels = np.unique(evidence.strength_N[~np.isnan(evidence.strength_N)])
    shares = [f"{level:g}: {unchanged_N[evidence.strength_N == level].mean():.1%}" for level in levels]
    return f"; unchanged sources by strength: {', '.join(shares)}" if shares else ""


@GATES.add("labels")
class LabelGate(Gate):
    """Images that don't look like their class. `vote`: the share of the `neighbours` nearest real images that have the label is below
    the `loss` quantile of that share among validation images, and below `most`. `zero-shot`: the encoder's text probability of the class
    among all classes is below chance, 1 / classes (He et al. 2022, arXiv 2210.07574)."""

    title: ClassVar[str] = "label"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "label disagrees": (
            "They look like another class",
            "Too few of the real images that they resemble are of their class, or its words fit them badly.",
        )
    }

    rule: Literal["vote", "zero-shot"] = identity("vote")
    """Nearest real images, or texts."""
    neighbours: int = identity(10, ge=1, le=64)
    """Real images that vote."""
    loss: float = identity(0.02, ge=0, lt=1)
    """Share of the validation images that may fail."""
    most: float = identity(0.5, gt=0, le=1)
    """An image with at least this share of the votes always passes."""
    template: str = identity("a photo of a {class}", min_length=1)
    """Of `zero-shot`: the text of a class."""

    @property
    def needs_texts(self) -> bool:
        """Where texts take the place of real images."""
        return self.rule == "zero-shot"

    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:  # noqa: ARG002
        if self.rule == "zero-shot":
            probability = evidence.text_probability(self.template)
            chance = 1 / len(evidence.classes)
            return Verdict.of(
                {"label disagrees": probability < chance},
                f"text probability of the class at least {chance:.3g}, which is chance",
                {"label_probability": probability},
            )
        share, real = evidence.own_share()
        limit = min(self.most, float(np.quantile(real, self.loss, method="lower"))) if len(real) else self.most
        limit = max(limit, 0.5 / self.neighbours)  # no vote at all always disagrees
        # A class with few real images can't get more votes than it has.
        limit_N = np.minimum(limit, self.most * evidence.reachable_share[evidence.class_N])
        failing = f"{np.mean(real < limit):.1%} of {_calibrated_on(evidence)} fail" if len(real) else "no real image can be compared"
        words = f"at least {limit:.2f} of the {self.neighbours} nearest real images have the label; {failing}"
        return Verdict.of({"label disagrees": share < limit_N}, words, {"label_share": share})


@GATES.add("manifold")
class ManifoldGate(Gate):
    """Images unlike any real one: outside the balls around the real images that reach to their k-th neighbours (the manifold of
    Kynkaanniemi et al. 2019, arXiv 1904.06991), scaled so that a share `loss` of the validation images lies outside."""

    title: ClassVar[str] = "off-manifold"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "off-manifold": ("Unlike any real image", "Farther from every real image than almost any real image is from the others.")
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of the validation images outside."""
    most: float = identity(0.6, gt=0, le=1)
    """Largest share of a class that may be dropped, the farthest first: a pool far away is to be reported, not emptied."""

    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:
        score, real = evidence.manifold()
        if not len(real):
            return Verdict.of({"off-manifold": np.zeros_like(alive_N)}, "not tested: the encoder was fitted on every real image")
        limit = float(np.quantile(real, 1 - self.loss, method="higher"))
        outside = score > limit
        for number in range(len(evidence.classes)):
            rows = np.flatnonzero(alive_N & (evidence.class_N == number))
            bound = int(self.most * len(rows))
            farthest = rows[np.argsort(-score[rows], kind="stable")]
            outside[farthest[bound:]] = False
        return Verdict.of(
            {"off-manifold": outside},
            f"at most {limit:.3g} radii from the nearest real image; {np.mean(real > limit):.1%} of {_calibrated_on(evidence)} "
            f"lie beyond; at most {self.most:.0%} of a class",
            {"manifold_radii": score},
        )


@GATES.add("content")
class ContentGate(Gate):
    """Images whose text probability of any of `words`, among those and the classes, is above `least` and above what all but a share
    `loss` of the validation images reach. Needs an encoder with texts, and is only as good as that one."""

    title: ClassVar[str] = "content"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "unwanted content": ("Unwanted content", "They look like what the recipe does not want to be shown.")
    }

    on: bool = identity(False)
    """Whether images are looked at for this."""
    action: Literal["drop", "record"] = identity("drop")
    """`record` only writes the probability into the decisions."""
    words: list[str] = identity(lambda: ["pornography", "a naked person", "gore, blood and violence"], min_length=1, max_length=100)
    """What is not wanted, in words."""
    template: str = identity("a photo of a {class}", min_length=1)
    """The text of a class."""
    least: float = identity(0.5, gt=0, lt=1)
    """No image below this probability is dropped."""
    loss: float = identity(0.01, ge=0, lt=1)
    """Share of the validation images that may fail."""

    @property
    def needs_texts(self) -> bool:
        """Always."""
        return True

    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:  # noqa: ARG002
        probability, validation = evidence.flagged(self.template, self.words)
        limit = max(self.least, float(np.quantile(validation, 1 - self.loss))) if len(validation) else self.least
        flagged = probability > limit if self.action == "drop" else np.zeros(len(probability), bool)
        return Verdict.of(
            {"unwanted content": flagged}, f"text probability of unwanted words at most {limit:.3g}", {"content_probability": probability}
        )


@GATES.add("duplicates")
class DuplicatesGate(Gate):
    """Near duplicates within the pool: of images of a class nearer to each other than `factor` times the distance at which a share
    `loss` of the validation images has its nearest other real image, and of images with equal pixels, the one nearest to the real data
    stays (as in SemDeDup, Abbas et al. 2023, arXiv 2303.09540, without its clusters)."""

    title: ClassVar[str] = "duplicate"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {
        "exact duplicate": ("The same image twice", "Another one has the same pixels, and was looked at in its place."),
        "near duplicate": (
            "Nearly the same image twice",
            "Another one of the class is as good as the same, and nearer to the real ones, so that one was looked at in its place.",
        ),
    }

    loss: float = identity(0.01, gt=0, lt=1)
    """Share of the validation images that lie nearer to another real image than the distance that `factor` multiplies."""
    factor: float = identity(0.5, gt=0, le=10)
    """Part of that distance within which two images count as the same."""

    def test(self, evidence: Evidence, alive_N: Bools) -> Verdict:
        limit = self.factor * evidence.natural_distance(self.loss)
        exact, near, kept = evidence.duplicates(limit, alive_N)
        return Verdict.of(
            {"exact duplicate": exact, "near duplicate": near},
            f"distance to another of the class at most {limit:.4g}: {self.factor:g} of the {self.loss:.0%} quantile between real ones",
            {"duplicate_of": kept},
        )


def in_order(config: CurationConfig) -> list[Gate]:
    """The gates that are on, in the order in which they are applied."""
    return [gate for gate in config.gates.values() if isinstance(gate, Gate) and gate.on]


def in_words(reason: str) -> tuple[str, str]:
    """What a report calls images that were dropped for a reason, and why; the reason itself where no gate has it."""
    return next((gate.reasons[reason] for gate in GATES.values() if reason in gate.reasons), (reason, ""))
