"""Appearance, content or labels: what of the accuracy that synthetic images lose comes of what.

The words are those of Wang, Schmedding and Huber (2024, arXiv 2311.03959); the measurement is an operational definition of our own. Beside
`real` and `random` (the pool) stand arms of the same size that differ from one of these in one thing:

- `rendered`: each real image as the generator renders it, by real guidance at low strength: real content, generated look.
- `resampled`: real images, each as often as the pool has images like it within its class: real look, generated content; and the same of
  rendered images.
- `label-filtered`: the pool, images that don't look like their class replaced by others that do; and `repeated`, some of these, as often as
  `resampled` has its images, but whichever they are.

The loss is real - random. *Labels* are label-filtered - random, *appearance* real - rendered. *Content* is real - resampled, less what
repeating images costs where content is the pool's, label-filtered - repeated (copies of some images of all kinds leave out more kinds than
copies of some images of the pool's, so that it would cost real images more). The *interaction* is what resampling costs rendered images
more than real ones. The *rest* is what these leave, which is rendered-resampled - repeated (resampled - repeated without renderings):
what is neither look, nor how often there is what, nor labels, such as images that lie between kinds.
Likeness is judged by the rendered images where there are some, so that the generated look does not pass for content.
Where a class's pool images can't be shown to be distributed otherwise than its real ones, nothing of it is repeated.
Not covered: content that no real image of the setting has, or that too few real images show (it is in the rest); looks that low strengths
leave as they were, and without renderings all looks, may open that test, and move images among the real ones. What repeating
costs is taken from the pool for want of real images of its content: if those are near copies of each other repeating costs nothing there,
and too little variety counts as content.
Shapes: N real images, M pool images, D features; D draws, S seeds, V holdout images where values are named so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import scipy
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances

from synthforge.data.collection import open_collection
from synthforge.data.layout import digest_of
from synthforge.data.pools import Table
from synthforge.errors import RequestError
from synthforge.evaluation.results.types import PARTS, Loss, LossPart, LossVerdict
from synthforge.evaluation.sets import Bools, Floats, Images, Ints
from synthforge.features.config import IndexConfig
from synthforge.features.embed import EmbedWork, Features, embed, facts_of, features_of, loaded
from synthforge.features.encoders.config import EncoderConfig
from synthforge.features.neighbours import Neighbours
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import REAL, DiagnosisConfig
from synthforge.statistics import Measured, Word, estimate, share, verdicts

RANDOM, LABEL_FILTERED, RENDERED = "random", "label-filtered", "rendered"
REPEATED, RESAMPLED, RENDERED_RESAMPLED = "repeated", "resampled", "rendered-resampled"
_FIRST_NAMES = {"believed": LABEL_FILTERED}
"""What arms were called in results of earlier versions."""
NEAREST = 16
"""Real images for which a pool image counts; of a class with few images a third of these."""
ABSENT = 0.7
"""A real image of which the pool has less than this share of what real ones have counts as absent."""
BY_CHANCE = 0.05
"""Images of a class are distributed otherwise than real ones if so large a difference would come by chance this seldom."""
DOUBTED_BY_CHANCE = 0.01
"""A pool has more doubtful labels than the real images if so many would come by chance this seldom."""
_STEPS = 20
_PERMUTATIONS = 99
_TESTED = (200, 600)
"""Real and pool images of a class that are tested for it at most."""
_ANY_NUMBER = 2**40


# What arms take from


@dataclass(frozen=True)
class Repeated(Images):
    """Images of which an arm takes each as often as its weight says, up to rounding; any number in all.

    Of a class whose images are of equal weight it takes those that `Images.draw` does.
    """

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images."""
        return self.take(_no_copy(self, is_copy))

    def reach(self, num_classes: int) -> Ints:
        """Any number of a class that is there."""
        return _any_number(self, num_classes)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        chooser, parts = np.random.default_rng(seed), []
        for number, wanted in enumerate(wanted_C.tolist()):
            order = chooser.permutation(np.flatnonzero(self.label_N == number))
            parts.append(np.repeat(order, _copies(self.weight_N[order], wanted, (*seed, number))))
        return _plain(self.take(np.sort(np.concatenate(parts))))


@dataclass(frozen=True)
class LabelFiltered(Images):
    """A pool of which an arm takes images of weight 1: those that `Images.draw` takes of the whole pool, the others replaced."""

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images."""
        return self.take(_no_copy(self, is_copy))

    def reach(self, num_classes: int) -> Ints:
        """Any number: where there are too few, they are taken again."""
        return _any_number(self, num_classes)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """In the order in which `Images.draw` takes them."""
        chooser, parts = np.random.default_rng(seed), []
        for number, wanted in enumerate(wanted_C.tolist()):
            order = chooser.permutation(np.flatnonzero(self.label_N == number))
            parts.append(np.resize(order[self.weight_N[order] > 0], wanted))
        return _plain(self.take(np.sort(np.concatenate(parts))))


@dataclass(frozen=True)
class RepeatedAtRandom(LabelFiltered):
    """The same of which the first are taken as often as the weights say, whichever they are; images of weight -1 fail the filter."""

    @classmethod
    def like(cls, pool: Images, passes_M: Bools, pattern: Images) -> RepeatedAtRandom:
        """With the weights that the images of another set have, class by class."""
        weights = {number: pattern.weight_N[pattern.label_N == number] for number in np.unique(pattern.label_N)}
        return cls(**{**pool.__dict__, "weight_N": _spread(pool.label_N, passes_M, weights)})

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images; their weights go to others."""
        weights = {number: self.weight_N[self.label_N == number] for number in np.unique(self.label_N)}
        kept = self.take(_no_copy(self, is_copy))
        return replace(kept, weight_N=_spread(kept.label_N, kept.weight_N >= 0, weights))

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """Of those that `LabelFiltered.draw` takes."""
        chooser, parts = np.random.default_rng(seed), []
        for number, wanted in enumerate(wanted_C.tolist()):
            order = chooser.permutation(np.flatnonzero(self.label_N == number))
            weights = np.sort(self.weight_N[order][self.weight_N[order] > 0])[::-1]
            passing = order[self.weight_N[order] >= 0][: len(weights)]
            parts.append(np.repeat(passing, _copies(weights, wanted, (*seed, number))))
        return _plain(self.take(np.sort(np.concatenate(parts))))


def _copies(weight_N: Floats, wanted: int, seed: tuple[int, ...]) -> Ints:
    """Systematic sampling: a weight of w gives floor(w) or ceil(w) copies, on average w, times what makes them so many as are wanted.

    Of equal weights the first have a copy each.
    """
    if not wanted:
        return np.zeros(len(weight_N), np.int64)
    if (weight_N == weight_N[0]).all():
        return np.bincount(np.arange(wanted) % len(weight_N), minlength=len(weight_N)).astype(np.int64)
    ends = np.cumsum(weight_N)
    copies_N: Ints = np.diff(np.floor(ends / ends[-1] * wanted + np.random.default_rng(seed).random()), prepend=0).astype(np.int64)
    return copies_N


def _spread(label_M: Ints, passes_M: Bools, weights: Mapping[int, Floats]) -> Floats:
    """The largest weights of each class for images that pass the filter, 0 for the rest of these, -1 for images that fail it."""
    weight_M = np.where(passes_M, 0.0, -1.0)
    for number, of_class in weights.items():
        rows = np.flatnonzero(passes_M & (label_M == number))
        largest = np.sort(of_class[of_class > 0])[::-1][: len(rows)]
        weight_M[rows[: len(largest)]] = largest
    return weight_M


def _any_number(images: Images, num_classes: int) -> Ints:
    """Of each class of which an image has weight, as many as are wanted."""
    return np.where(np.bincount(images.label_N[images.weight_N > 0], minlength=num_classes) > 0, _ANY_NUMBER, 0)


def _no_copy(images: Images, is_copy: Mapping[str, bool]) -> Bools:
    return np.array([not is_copy.get(sha256, False) for sha256 in images.sha256_N], np.bool_)


def _plain(images: Images) -> Images:
    return Images(images.address, images.row_N, images.label_N, images.sha256_N, images.is_real, np.ones(len(images)))


def as_source(key: str, images: Images) -> Images:
    """A set that was read from its file, as its arm takes from it."""
    kinds = {LABEL_FILTERED: LabelFiltered, REPEATED: RepeatedAtRandom} | dict.fromkeys((RENDERED, RESAMPLED, RENDERED_RESAMPLED), Repeated)
    return kinds[key](**images.__dict__) if key in kinds else images


def in_new_names(by_arm: Mapping[str, str]) -> dict[str, str]:
    """What an earlier version wrote by name of the arm, by the name that the arm has now."""
    return {_FIRST_NAMES.get(name, name): value for name, value in by_arm.items()}


# Labels and content, by features


@dataclass(frozen=True)
class Doubts:
    """Images that don't look like their class."""

    doubted_M: Bools
    share: float
    """Of the pool."""
    share_of_real: float
    """Of the real images, each judged by the others."""
    p_value: float
    """Of as many in the pool by chance, if its rate were that of the real images (`_more_by_chance`); which classes are doubted at all
    depends on the same images where classes overlap."""


def doubts(real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints, neighbours: int, loss: float) -> Doubts:
    """Pool images of which fewer of the nearest real images have their label than of all but a share `loss` of their class's real ones.

    In a class of whose real images more than that share, and more than one, have no such neighbour at all, those of the pool that have none
    either are doubted only if most of them must be wrong, since there are more than twice as many, and more than chance would make them.

    Args:
        real_ND: rendered where that is possible, so that looks are alike.
        neighbours: real images that vote; a class that has fewer can't have all votes, and needs fewer.
    """
    votes = max(1, min(neighbours, len(real_class_N) - 1))
    index = Neighbours(np.asarray(real_ND, np.float32), IndexConfig())
    of_real = (real_class_N[index.exclude_self(votes)[1]] == real_class_N[:, None]).mean(axis=1)
    of_pool = (real_class_N[index.search(np.asarray(pool_MD, np.float32), votes)[1]] == pool_class_M[:, None]).mean(axis=1)
    limit_C = np.zeros(int(max(real_class_N.max(), pool_class_M.max(initial=0))) + 1)
    for number in np.unique(real_class_N):
        own = of_real[real_class_N == number]
        most = min(len(own) - 1, votes) / votes
        limit_C[number] = min(0.5 * most, float(np.quantile(own, loss, method="lower")))
        is_rare = (own == 0).sum() <= max(1, loss * len(own))
        if is_rare or _are_mostly_wrong(of_pool[pool_class_M == number] == 0, own == 0, len(np.unique(real_class_N))):
            limit_C[number] = max(limit_C[number], 0.5 / votes)
    doubted_M, real_doubted_N = of_pool < limit_C[pool_class_M], of_real < limit_C[real_class_N]
    p_value = _more_by_chance(doubted_M, real_doubted_N)
    return Doubts(doubted_M, float(doubted_M.mean()) if len(doubted_M) else 0.0, float(real_doubted_N.mean()), p_value)


def _are_mostly_wrong(pool_M: Bools, real_N: Bools, num_classes: int) -> bool:
    """Whether of marked images there are more than twice as many in the pool, in one of so many classes, and not by chance."""
    is_more = len(pool_M) > 0 and pool_M.mean() > 2 * real_N.mean()
    return bool(is_more) and _more_by_chance(pool_M, real_N) <= DOUBTED_BY_CHANCE / num_classes


def _more_by_chance(pool_M: Bools, real_N: Bools) -> float:
    """How probable it is that so many more of the pool's images are marked by chance (Fisher's exact test, one-sided)."""
    counts = [[int(pool_M.sum()), int((~pool_M).sum())], [int(real_N.sum()), int((~real_N).sum())]]
    return float(scipy.stats.fisher_exact(counts, alternative="greater").pvalue)


def content_weights(
    real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints
) -> tuple[Floats, dict[int, float]]:
    """How often the pool has images like each real image of its class, over how often real images have, mean 1 in each class; (N,).

    Also, of each class that could be tested, the probability of its pool by chance (`_by_chance`); above `BY_CHANCE` all weights are 1.
    Clusters are small and overlap: around each real image those that have it among their `NEAREST` real images. The pool is counted by
    these, and the weights are such that the real images, so weighted, would be counted alike (by as many steps of Richardson's (1972) and
    Lucy's (1974) deconvolution as gather the weight where the pool's images are). Weights below `ABSENT` become 0, since a trace of a
    kind that the pool lacks brings back much of the accuracy that lacking it costs.
    On planted pools more of the weight came to lie where these were than with k-means of 5 to a cluster, kernel mean matching, or
    a classifier of real and pool images.
    """
    weight_N, by_chance = np.ones(len(real_ND)), {}
    for number in np.unique(real_class_N):
        of_real, of_pool = real_class_N == number, pool_class_M == number
        num = int(of_real.sum())
        nearest = min(NEAREST, num // 3)
        if of_pool.sum() < 2 or nearest < 1:
            continue
        by_chance[int(number)] = _by_chance(real_ND[of_real], pool_MD[of_pool], nearest, int(number))
        if by_chance[int(number)] > BY_CHANCE:
            continue
        index = Neighbours(np.asarray(real_ND[of_real], np.float32), IndexConfig())
        found = index.search(np.asarray(pool_MD[of_pool], np.float32), nearest)[1]
        share_N = np.bincount(found.ravel(), minlength=num) / found.size
        own_N = np.arange(num)[:, None]  # of which real images each would be counted for: itself, and its nearest others
        for_Nk = np.concatenate([own_N, index.exclude_self(nearest - 1)[1]], axis=1) if nearest > 1 else own_N
        places = np.repeat(np.arange(num), nearest), for_Nk.ravel()
        counts_NN = scipy.sparse.csr_array((np.full(for_Nk.size, 1 / nearest), places), shape=(num, num))
        of_class = np.full(num, 1 / num)
        for _ in range(_STEPS):
            of_class *= counts_NN @ (share_N / np.maximum(counts_NN.T @ of_class, 1e-12))
        of_class /= of_class.mean()
        of_class[of_class < ABSENT] = 0
        weight_N[of_real] = of_class / of_class.mean()
    return weight_N, by_chance


def _by_chance(real_ND: NDArray[Any], pool_MD: NDArray[Any], nearest: int, seed: int) -> float:
    """How probable it is that pool and real images of a class are counted so differently by their nearest real ones by chance.

    By a permutation test: of all the images together others, as many, count as the real ones.
    """
    chooser = np.random.default_rng(seed)
    real, pool = (
        np.asarray(images[chooser.permutation(len(images))[:most]], np.float64)
        for images, most in zip((real_ND, pool_MD), _TESTED, strict=True)
    )
    both = np.concatenate([real, pool])
    apart = euclidean_distances(both, squared=True)
    np.fill_diagonal(apart, -1)  # a real image counts for itself first

    def difference(of_real: Ints, of_pool: Ints) -> float:
        of_real, of_pool = of_real.astype(np.int64), of_pool.astype(np.int64)
        counts = [
            np.bincount(np.argpartition(apart[np.ix_(rows, of_real)], nearest - 1, axis=1)[:, :nearest].ravel(), minlength=len(of_real))
            / len(rows)
            for rows in (of_real, of_pool)
        ]
        return float(((counts[0] - counts[1]) ** 2).sum())

    sides = np.arange(len(real)), np.arange(len(real), len(both))
    return float(
        scipy.stats.permutation_test(
            sides, difference, n_resamples=_PERMUTATIONS, alternative="greater", vectorized=False, rng=chooser
        ).pvalue
    )


def variety(real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints, tries: int = 5) -> float:
    """How far as many pool images of a class lie from their nearest among each other, over how far real ones do; mean over classes.

    Below 1 the pool has less variety than the real images. 1 where no class has two images of each side.
    """
    ratios = []
    for number in np.unique(real_class_N):
        of_real, of_pool = np.flatnonzero(real_class_N == number), np.flatnonzero(pool_class_M == number)
        num = min(len(of_real), len(of_pool))
        if num < 2:
            continue
        chooser = np.random.default_rng(int(number))
        distances = [
            [
                float(np.sqrt(Neighbours(np.asarray(side, np.float32), IndexConfig()).exclude_self(1)[0]).mean())
                for side in (real_ND[chooser.permutation(of_real)[:num]], pool_MD[chooser.permutation(of_pool)[:num]])
            ]
            for _ in range(tries)
        ]
        apart_real, apart_pool = np.mean(distances, axis=0)
        if apart_real > 0:
            ratios.append(apart_pool / apart_real)
    return float(np.mean(ratios)) if ratios else 1.0


@dataclass(frozen=True)
class Rendered:
    """The real images of a draw as a generator renders them."""

    address: str
    row_N: Ints
    """In that set, of each real image of the draw; -1 where it has no rendering."""


def sources_of(
    reference: Table,
    real: Images,
    pool: str,
    rendered: Rendered | None,
    classes: list[str],
    encoder: EncoderConfig,
    config: DiagnosisConfig,
    curation: CurationConfig,
) -> tuple[dict[str, Images], dict[str, float], list[str]]:
    """What the arms take from, by key, what is known besides, and what is to be noted.

    Known are the shares of `Doubts`; `variety`; as `differing` the share of classes that are distributed otherwise, if any can be tested;
    as `compared` the share of real images that can be compared, of which there is a rendering where any are; and as `recognised` the share
    of renderings that are nearest to the real image that they started from, which falls where the strength is too high to keep content.
    Raises RequestError if images of less than two classes can be compared.

    Args:
        reference: all real images.
        real: those of the draw.
        encoder: of one view, that has seen no more than the arms may have.
    """
    cache = cache_folder(curation)

    def embedded(table: Table) -> tuple[Features, Bools]:
        (collection,) = table.collections
        address, device = collection.address, curation.device
        (model,) = loaded((encoder,), device, address, cache)
        work = EmbedWork(address, curation.classes, (encoder,), cache, device, curation.batch, curation.decoders, address, ready=[model])
        digest = digest_of(model.identity())
        embed(collection, [digest], work, 1, Reporter())
        problems = facts_of(collection, cache).column("problem").to_pylist()
        return features_of([collection], digest, cache), np.array([problem is None for problem in problems])

    features, is_readable = embedded(reference)
    has = is_readable[real.row_N]
    like_ND, like_class_N = features[real.row_N[has]], real.label_N[has]
    if rendered is not None:
        table = Table.of([open_collection(rendered.address, cache)])
        of_looks, is_readable = embedded(table)
        is_there = is_readable & (table.class_indices(classes) >= 0)
        has &= (rendered.row_N >= 0) & is_there[rendered.row_N]
        looks = Images.of(table, rendered.row_N[has], classes, is_real=False)
        like_ND, like_class_N = of_looks[looks.row_N], looks.label_N
    if len(np.unique(like_class_N)) < 2:
        raise RequestError(f"{reference.collections[0].address}: too few images can be compared; a diagnosis needs two classes or more")
    table = Table.of([open_collection(pool, cache)])
    everything = Images.of(table, np.arange(len(table)), classes, is_real=False)
    of_pool, is_readable = embedded(table)
    readable = is_readable[everything.row_N]
    pool_MD, pool_class_M = of_pool[everything.row_N[readable]], everything.label_N[readable]
    labels = doubts(like_ND, like_class_N, pool_MD, pool_class_M, config.neighbours, config.loss)
    passes_M = readable.copy()
    passes_M[readable] = ~labels.doubted_M
    notes = []
    for number in np.unique(pool_class_M):
        of_class = readable & (everything.label_N == number)
        if not passes_M[of_class].any():
            passes_M |= of_class
            notes.append(f"no image of class {classes[number]} in {pool} looks like it; its wrong labels count as the rest")
    weight_N = np.ones(len(real))
    weight_N[has], by_chance = content_weights(like_ND, like_class_N, pool_MD[~labels.doubted_M], pool_class_M[~labels.doubted_M])
    resampled = replace(real, weight_N=weight_N)
    found = {
        REAL: real,
        RANDOM: everything,
        LABEL_FILTERED: replace(everything, weight_N=passes_M.astype(np.float64)),
        REPEATED: RepeatedAtRandom.like(everything, passes_M, resampled),
        RESAMPLED: resampled,
    }
    if rendered is not None:
        found |= {RENDERED: looks, RENDERED_RESAMPLED: replace(looks, weight_N=weight_N[has])}
    facts = {"doubted": labels.share, "doubted_real": labels.share_of_real, "doubted_p": labels.p_value}
    facts["variety"] = variety(like_ND, like_class_N, pool_MD, pool_class_M)
    if by_chance:
        facts["differing"] = float(np.mean([p_value <= BY_CHANCE for p_value in by_chance.values()]))
    facts["compared"] = float(has.mean())
    if rendered is not None:
        of_real = np.asarray(features[real.row_N[has]], np.float32)
        nearest = Neighbours(of_real, IndexConfig()).search(np.asarray(like_ND, np.float32), 1)[1][:, 0]
        facts["recognised"] = float(np.mean(nearest == np.arange(len(nearest))))
    return found, facts, notes


# Parts of the loss


def losses(
    settings: Sequence[Mapping[str, Floats]], margin: float, unshown: Sequence[Collection[str]] = (), taken: Sequence[float] = ()
) -> list[Loss]:
    """Of each setting, and last the mean over all of them; verdicts of the settings allow for each other, and so do those of the means.

    In the mean a part counts as 0 where it was not shown. Where there is one draw of the real images, intervals of the whole and the rest
    allow for others, if the pool tells how they would vary (`_of_other_draws`).

    Args:
        settings: for each the values (D, S, V) of its arms, right or wrong; arms that could not be made are missing.
        margin: a loss below this one does not count.
        unshown: for each setting the parts whose arms are the same, since images can't be shown to differ in them.
        taken: for each setting the share of the pool that `random` takes; 1, or none at all, where other real images are not allowed for.
    """
    unshown = unshown or [()] * len(settings)
    each = [_contrasts(correct) for correct in settings]
    common = [name for name in each[0] if name != "rest" and all(name in found for found in each)]
    mean = {name: np.mean([found[name] for found in each], axis=0) for name in common}
    mean["rest"] = mean["whole"] - sum(mean[name] for name in PARTS if name in mean)
    nowhere = set.intersection(*map(set, unshown))
    taken = taken or [1.0] * len(settings)
    others = [_of_other_draws(correct, share) for correct, share in zip(settings, taken, strict=True)]
    mean_of = {name: np.mean([correct[name] for correct in settings], axis=0) for name in set.intersection(*map(set, settings))}
    of_mean = _of_other_draws(mean_of, max(taken))
    return [*_with_verdicts(each, margin, unshown, others), *_with_verdicts([mean], margin, [nowhere], [of_mean])]


def _contrasts(correct: Mapping[str, Floats]) -> dict[str, Floats]:
    """The whole loss and its parts, paired by draw, seed and image."""
    found = {"whole": correct[REAL] - correct[RANDOM]}
    if RENDERED in correct:
        found["appearance"] = correct[REAL] - correct[RENDERED]
    if {RESAMPLED, LABEL_FILTERED, REPEATED} <= correct.keys():
        found["content"] = correct[REAL] - correct[RESAMPLED] - (correct[LABEL_FILTERED] - correct[REPEATED])
    if LABEL_FILTERED in correct:
        found["labels"] = correct[LABEL_FILTERED] - correct[RANDOM]
    if RENDERED_RESAMPLED in correct and "content" in found:
        found["interaction"] = correct[RENDERED] - correct[RENDERED_RESAMPLED] - (correct[REAL] - correct[RESAMPLED])
    found["rest"] = found["whole"] - sum(found[name] for name in PARTS if name in found)
    return found


def _with_verdicts(
    each: Sequence[Mapping[str, Floats]],
    margin: float,
    unshown: Sequence[Collection[str]],
    of_other_draws: Sequence[Mapping[str, float]],
) -> list[Loss]:
    shown = [{name: found[name] for name in found if name not in lacks} for found, lacks in zip(each, unshown, strict=True)]
    largest = [_LARGEST.get(name, 1.0) for found in shown for name in found]
    varying = [others.get(name, 0.0) for found, others in zip(shown, of_other_draws, strict=True) for name in found]
    told = iter(verdicts([values_DSV for found in shown for values_DSV in found.values()], margin, largest, varying))
    results = []
    for found, lacks, others in zip(shown, unshown, of_other_draws, strict=True):
        parts = dict.fromkeys(lacks, LossPart(loss=None, verdict="not shown"))
        for name, values_DSV in found.items():
            most, varies = _LARGEST.get(name, 1.0), others.get(name, 0.0)
            ratio = share(values_DSV, found["whole"], (varies, others.get("whole", 0.0))) if name != "whole" else None
            loss = Measured.difference(estimate(values_DSV, largest=most, of_other_draws=varies), most)
            parts[name] = LossPart(loss=loss, verdict=_VERDICTS[next(told).word], share=ratio.rounded(4) if ratio is not None else None)
        unmeasured = LossPart(loss=None, verdict="not measured")
        results.append(Loss(whole=parts["whole"], parts={name: parts.get(name, unmeasured) for name in PARTS}))
    return results


MOST_TAKEN = 2 / 3
"""Share of a pool up to which what arms take of it varies enough to say how other draws would."""


def _of_other_draws(correct: Mapping[str, Floats], taken: float) -> dict[str, float]:
    """Variance of the whole loss, and of the rest, by other real images, where there is one draw of them, which may be a lucky one.

    Only these two compare the pool with real images; other parts compare these, or the pool, with what was made of the same. Judged by the
    pool, of which each seed takes other images: as much as accuracy varies by such a choice, another draw of real images is taken to vary
    it. It varies by the training as well, so that this is too much for a pool of the variety of the real images, and may be too little for
    one of less. Of N images of a pool of M a choice varies by 1 - N / M of what it would of an endless pool.
    """
    random_DSV = correct[RANDOM]
    if len(random_DSV) > 1 or random_DSV.shape[1] < 2 or taken > MOST_TAKEN:
        return {}
    by_part = {"whole": random_DSV, "rest": correct.get(REPEATED, random_DSV)}
    return {name: float(values_DSV[0].mean(axis=1).var(ddof=1)) / (1 - taken) for name, values_DSV in by_part.items()}


_LARGEST = {"content": 2.0, "interaction": 2.0}
"""What a part can be on one image, of two differences; others are of one."""
_VERDICTS: dict[Word, LossVerdict] = {"helped": "loss", "hurt": "gain", "did not help": "none", "cannot tell": "cannot tell"}
"""By that of the difference which is a loss."""
