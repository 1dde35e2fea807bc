"""Is it the same picture? Told by pixels, whatever an encoder thinks.

A picture counts as the same after it was encoded again, scaled, made lighter or darker, mirrored, or cropped by up to a
fifth of each side. Two steps:

1. Candidates. Grey thumbnails of 16 x 16 pixels with mean 0 and length 1, so that products are correlations. A query
   and its mirror image are compared with each reference picture and with windows of it.
2. Verdict. The correlation of band-passed pictures of 32 x 32 pixels, the best over mirror and windows. A band-pass
   (difference of Gaussians, Marr and Hildreth 1980) takes away the large areas of light and dark that different
   pictures share, and the single pixels that encoding changes.

Not covered: rotation, crops by more than a fifth, and a GPU.
Shapes: N queries, M reference pictures, P pairs, T = 64 pixels of a stored thumbnail, S = 32 of a compared one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from synthforge.arrays import Floats, Ints
from synthforge.data.images import Uint8
from synthforge.features.config import IndexConfig
from synthforge.features.neighbours import Neighbours

THUMBNAIL = 64
"""Height and width of a stored thumbnail, T. The whole image is squeezed into the square."""
LIMIT = 0.95
"""Correlation from which two pictures are the same, unless real pictures are alike by nature; see `limit_for`."""
EQUAL = 0.998
"""Correlation above which pictures are equal, also where different ones are alike by nature."""
SHARE = 0.001
"""Largest share of different real pictures that may pass for the same."""
CANDIDATES = 5
"""Windows of reference pictures that are compared, for each query and for its mirror image."""
_COARSE, _FINE = 16, 32
_CLOSE = 3
"""Candidates of each query in which it is looked for as a part."""
_HOPE = 0.6
"""Pairs whose correlation is below this in all windows to start from are not looked at more closely."""
_LEAST_COARSE = 0.5
"""Pairs whose coarse correlation is below this are not looked at."""
_SHARP, _WIDE = 0.7, 4.0
"""Standard deviations of the two Gaussians, in pixels of the compared picture."""
_FLAT = 0.5
"""Standard deviation in grey levels below which a picture has nothing to compare, also once it is band-passed."""
_AT_ONCE = 2048
"""Pictures that are compared at once."""


def thumbnail(image: Uint8) -> Uint8:
    """A grey thumbnail of an image, uint8 (T, T)."""
    grey = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("L")
    return np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR))


def _windows(scales: Sequence[float], places: Sequence[tuple[float, float]]) -> Floats:
    """Windows as (top, bottom, left, right) in shares of the side, (W, 4): the whole, then squares of each scale at
    each place; (0, 0) is top left and (1, 1) bottom right."""
    found = [(0.0, 1.0, 0.0, 1.0)]
    for scale, (down, right) in itertools.product(scales, places):
        top, left = down * (1 - scale), right * (1 - scale)
        found.append((top, top + scale, left, left + scale))
    return np.array(found, np.float32)


_WINDOWS = _windows((0.875, 0.75), ((0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)))
"""Windows in which a part of a picture is looked for first."""
_STARTS = _windows((0.9, 0.8), tuple(itertools.product((0, 0.5, 1), (0, 0.5, 1))))
"""Windows from which the best one is looked for."""


def _sampling(first_P: Tensor, last_P: Tensor, size: int) -> Tensor:
    """Operators that sample a part of a side of T pixels at `size` places, (P, size, T): triangles as wide as the
    step."""
    step_P = (last_P - first_P) * THUMBNAIL / size
    centres_PS = first_P[:, None] * THUMBNAIL + (torch.arange(size) + 0.5) * step_P[:, None]
    distance_PST = (torch.arange(THUMBNAIL) + 0.5 - centres_PS[:, :, None]).abs()
    weights_PST = (1 - distance_PST / step_P.clamp(min=1)[:, None, None]).clamp(min=0)
    return weights_PST / weights_PST.sum(dim=2, keepdim=True)


def _gaussian(size: int, deviation: float) -> Tensor:
    """The operator of a Gaussian blur, (size, size); weights that fall outside are given to those inside."""
    places = torch.arange(size, dtype=torch.float32)
    weights = torch.exp(-((places[:, None] - places) ** 2) / (2 * deviation**2))
    return weights / weights.sum(dim=1, keepdim=True)


_BLURS = (_gaussian(_FINE, _SHARP), _gaussian(_FINE, _WIDE))


def _unit(pictures_PSS: Tensor) -> Tensor:
    """With mean 0 and length 1, flattened, (P, S * S); 0 for pictures of one colour."""
    flat = pictures_PSS.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    length = flat.norm(dim=1, keepdim=True)
    return torch.where(length > _FLAT * flat.shape[1] ** 0.5, flat / length.clamp(min=1e-6), torch.zeros_like(flat))


def _band(thumbnails_PTT: Tensor, window_P4: Tensor) -> Tensor:
    """Band-passed windows of thumbnails, of length 1, (P, S * S)."""
    rows_PST = _sampling(window_P4[:, 0], window_P4[:, 1], _FINE)
    columns_PST = _sampling(window_P4[:, 2], window_P4[:, 3], _FINE)
    sampled_PSS = rows_PST @ thumbnails_PTT @ columns_PST.transpose(1, 2)
    sharp, wide = (blur @ sampled_PSS @ blur.T for blur in _BLURS)
    return _unit(sharp - wide)


def _coarse(thumbnails_NTT: Uint8, window_4: Floats) -> Floats:
    """Coarse windows of thumbnails, of length 1, float32 (N, 256)."""
    first, last = torch.from_numpy(window_4[::2]), torch.from_numpy(window_4[1::2])
    rows, columns = _sampling(first, last, _COARSE)
    found = np.empty((len(thumbnails_NTT), _COARSE**2), np.float32)
    for start in range(0, len(found), _AT_ONCE):
        part = torch.from_numpy(thumbnails_NTT[start : start + _AT_ONCE]).float()
        found[start : start + len(part)] = _unit(rows @ part @ columns.T)
    return found


@dataclass(frozen=True)
class Matches:
    """The reference picture that each of N queries is most like."""

    correlation_N: Floats
    """Between -1 and 1; 0 if no reference picture came near enough to be looked at."""
    row_N: Ints
    """Row of the reference picture; -1 if none was looked at."""


class Pictures:
    """Reference pictures that can be looked up.

    Args:
        thumbnails_MTT: uint8 (M, T, T), of `thumbnail`.
        crops: also find queries that are a part of a reference picture.
    """

    def __init__(self, thumbnails_MTT: Uint8, index: IndexConfig | None = None, *, crops: bool = True) -> None:
        self._thumbnails_MTT = thumbnails_MTT
        self._windows = _WINDOWS if crops else _WINDOWS[:1]
        self._neighbours = Neighbours(np.concatenate([_coarse(thumbnails_MTT, window) for window in self._windows]), index)
        self._fine_MD = _whole(thumbnails_MTT)

    def most_like(self, queries_NTT: Uint8, own_N: Ints | None = None) -> Matches:
        """The reference picture that each query is most like.

        Args:
            own_N: a reference picture for each query that does not count, such as itself; -1: none.
        """
        own_N = own_N if own_N is not None else np.full(len(queries_NTT), -1, np.int64)
        found = Matches(np.zeros(len(queries_NTT), np.float32), np.full(len(queries_NTT), -1, np.int64))
        for start in range(0, len(queries_NTT), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            for mirrored in (False, True):
                queries = queries_NTT[part, :, ::-1].copy() if mirrored else queries_NTT[part]
                self._look(queries, own_N[part], Matches(found.correlation_N[part], found.row_N[part]))
        return found

    def _look(self, queries_NTT: Uint8, own_N: Ints, found: Matches) -> None:
        """Put better matches into `found`."""
        fine_ND = _whole(queries_NTT)
        query_P, row_P, squared_P = self._candidates(queries_NTT, own_N)
        value_P = np.einsum("pd,pd->p", fine_ND[query_P], self._fine_MD[row_P])
        if len(self._windows) > 1:
            # The nearest of each query are looked at closely, until one is the same: the query may be a part of it.
            order = np.lexsort((squared_P, query_P))
            rank_P = np.empty(len(order), np.int64)
            rank_P[order] = np.arange(len(order)) - np.searchsorted(query_P[order], query_P[order])
            best_N = np.zeros(len(queries_NTT), np.float32)
            for rank in range(_CLOSE):
                np.maximum.at(best_N, query_P, value_P)
                close = np.flatnonzero((rank_P == rank) & (best_N[query_P] < LIMIT))
                value_P[close] = self._refined(fine_ND[query_P[close]], row_P[close])
        better = value_P > found.correlation_N[query_P]
        order = np.argsort(value_P[better], kind="stable")  # of several, the last one stays
        found.correlation_N[query_P[better][order]] = value_P[better][order]
        found.row_N[query_P[better][order]] = row_P[better][order]

    def _candidates(self, queries_NTT: Uint8, own_N: Ints) -> tuple[Ints, Ints, Floats]:
        """Query, reference picture, and squared distance of pairs that may be the same, (P,) each."""
        num_rows, spare = len(self._thumbnails_MTT), len(self._windows) if (own_N >= 0).any() else 0
        k = min(CANDIDATES + spare, len(self._neighbours))
        squared, places = self._neighbours.search(_coarse(queries_NTT, _WINDOWS[0]), k)
        near = (squared <= 2 - 2 * _LEAST_COARSE) & (places % num_rows != own_N[:, None])
        query_P, rank_P = np.nonzero(near)
        place_P = places[query_P, rank_P]
        _, first = np.unique(query_P * num_rows + place_P % num_rows, return_index=True)  # the first is the nearest
        return query_P[first], place_P[first] % num_rows, squared[query_P, rank_P][first]

    @torch.inference_mode()
    def _refined(self, asked_PD: Floats, row_P: Ints) -> Floats:
        """Correlation of each pair, the best over windows, (P,)."""
        asked, best = torch.from_numpy(asked_PD), torch.full((len(row_P),), -1.0)
        there = torch.from_numpy(self._thumbnails_MTT[row_P]).float()
        window = torch.zeros(len(row_P), 4)
        for one in torch.from_numpy(_STARTS):
            best, window = _better(best, window, asked, there, one.expand(len(row_P), 4))
        hope = best >= _HOPE
        best_of, window, asked, there = best[hope], window[hope], asked[hope], there[hope]
        for step, move in itertools.product(_STEPS, _MOVES):
            best_of, window = _better(best_of, window, asked, there, (window + step * move).clamp(0, 1))
        best[hope] = best_of
        return np.asarray(best)


_STEPS = (1 / 16, 1 / 32, 1 / 32, 1 / 64)
_MOVES = torch.cat([torch.eye(4), -torch.eye(4), torch.tensor([[1.0, 1, 0, 0], [-1, -1, 0, 0], [0, 0, 1, 1], [0, 0, -1, -1]])])
"""Each side of a window moved alone, then the whole window."""


def _better(best_P: Tensor, window_P4: Tensor, asked_PD: Tensor, there_PTT: Tensor, tried_P4: Tensor) -> tuple[Tensor, Tensor]:
    """Best correlations and their windows, once other windows are tried."""
    value_P = (asked_PD * _band(there_PTT, tried_P4)).sum(dim=1)
    is_better_P = value_P > best_P
    return torch.where(is_better_P, value_P, best_P), torch.where(is_better_P[:, None], tried_P4, window_P4)


def _whole(thumbnails_NTT: Uint8) -> Floats:
    """Whole thumbnails, band-passed, of length 1, float32 (N, S * S)."""
    found = np.empty((len(thumbnails_NTT), _FINE**2), np.float32)
    for start in range(0, len(found), _AT_ONCE):
        part = torch.from_numpy(thumbnails_NTT[start : start + _AT_ONCE]).float()
        found[start : start + len(part)] = _band(part, torch.from_numpy(_WINDOWS[:1]))
    return found


def limit_for(correlation_M: Floats) -> tuple[float, int]:
    """The limit from which two pictures are the same, and the number of real pictures that have an equal one.

    It is `LIMIT`, and rises where different real pictures are alike by nature, until at most `SHARE` of them pass for
    the same.

    Args:
        correlation_M: of each real picture with the most like other one.
    """
    equal = correlation_M >= EQUAL
    different = np.sort(correlation_M[~equal])
    allowed = int(SHARE * len(different))
    natural = float(different[len(different) - 1 - allowed]) if len(different) > allowed else 0.0
    return min(max(LIMIT, natural + 1e-4), EQUAL), int(equal.sum())


def repeated(thumbnails_NTT: Uint8, limit: float, index: IndexConfig | None = None) -> Ints:
    """The pictures that an earlier one is the same as, rows in order.

    The search is repeated among those that are left until it finds none, since each picture is compared with few.
    """
    left, gone = np.arange(len(thumbnails_NTT)), list[int]()
    while len(left) > 1:
        found = Pictures(thumbnails_NTT[left], index, crops=False).most_like(thumbnails_NTT[left], np.arange(len(left)))
        same = np.flatnonzero(found.correlation_N >= limit)
        pairs = np.sort(np.stack([found.row_N[same], same], axis=1), axis=1)  # either may be the other's nearest
        dropped: set[int] = set()
        for earlier, later in sorted(map(tuple, pairs.tolist()), key=lambda pair: pair[1]):
            if earlier not in dropped:  # else the later one may be like nothing that stays; the next round tells
                dropped.add(later)
        if not dropped:
            break
        gone += left[sorted(dropped)].tolist()
        left = np.delete(left, sorted(dropped))
    return np.sort(np.array(gone, np.int64))
