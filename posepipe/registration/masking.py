"""The brain mask of an image: given, its nonzero voxels, or found by the networks in whatever surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ..errors import MaskError
from ..geometry.so3 import Array
from ..imaging.mask import MIN_MILLILITRES, BrainMask, checked_mask, given_mask, has_empty_background, largest_piece, no_brain, nonzero_mask
from ..imaging.moments import Moments, moments
from ..imaging.sampling import sample, tensor
from ..imaging.volume import Volume
from ..models.coordinates import HALF_SIDE
from ..models.layers import ready
from ..models.masks import COARSE_MM, scaled
from ..models.precision import answering
from ..models.weights import MASK_NETWORKS, LoadedNetwork, load_network
from ..settings import MASK_CHOICES
from .deep import Glance, PoseNetworks

HALF_TURNS = ((), (0, 1), (0, 2), (1, 2))
"""Axes reversed when the whole scan is looked at: as it is, and after half a turn about each axis. One look may miss a brain
(docs/experiments-masks.md, 7)."""
CANDIDATES = 4
"""Places looked at closely in a round, those with most voxels that may be brain first."""
HINT, HINT_MILLILITRES = 0.2, 0.4
"""Probability of brain, and volume, that are worth a closer look."""
LEAST_RADIUS_MM = 32.0
"""A first close look is at least as wide as for this radius: at first only a part may have been seen."""
MIDDLE_RADIUS_MM = 45.0
"""Where no hint leads to a brain the middle of the image is looked at, as for this radius: heads are mostly put there."""
LOOKS, SETTLED = 4, 0.1
"""The neighbourhood is looked at up to four times, each about where the last look saw the brain, until its centre moves and its radius
changes by less than a tenth of the radius."""
SURE_COUNTS = 15.0
"""How much the mask network's sureness counts beside the pose networks' judgement, when several places may be the brain
(docs/experiments-masks.md, 2)."""
DOUBT = 0.75
"""What is so near to the least likeness, or to what is doubtful, or nearer, is judged from four sides: a brain is one from each, what is
not, by chance from one (docs/experiments-masks.md, 11). Nor is what is so near, or nearer, sure to be one."""
DOUBTFUL = 1.75
"""Where nothing is enough like a brain, what lacks no more than this is taken for it, and said to be doubtful; whether it is one, the
template tells (:func:`~posepipe.registration.found.best_found`; docs/experiments-masks.md, 12 and 13)."""
PLACES, ELSEWHERE = 3, 0.5
"""Where the likeliest place is not sure to be a brain, so many may be it in all that lack no more than twice :data:`DOUBTFUL`, each farther
from likelier ones, or larger or smaller, by half a radius (docs/experiments-masks.md, 16)."""
NARROW, LESS_NARROW = 0.65, 0.7
"""The outline comes from a last look, of ``mask-edge``, that is so much narrower, and finer (docs/experiments-masks.md, 9 and 10); it too
is taken again, about what it shows, until it settles (11), and once a little wider and :data:`TURNED`: the mean of both is better than
either, for what is seen on one grid by chance is not seen on the other (13 and 14)."""
STRAIGHT = np.eye(3)
TURNED = np.array([[2.0, -1, 2], [2, 2, -1], [-1, 2, 2]]) / 3
"""Columns are the axes of a look's grid: the scan's, or these after a sixth of a turn about their diagonal, 60° from what any half
or quarter turns make of the scan's (62.8° is the most that axes can be)."""
MOST_MILLILITRES = 1000.0
"""No fetus's or newborn's brain holds nearly as much."""
DARK = 2.0
"""What lies about a brain is less often taken for a part of it if the brightness of what is looked at is raised to this power
(docs/experiments-masks.md, 15 and 16)."""
SIZES, POWERS, LIMITS = (250.0, 350.0), (1.0, DARK), (0.45, 0.65)
"""To what power brightness is raised in narrower looks, and what likelihood makes a voxel brain, where so many millilitres were seen, in
between by interpolation: masks of small brains, fetuses', take in the fluid about them, those of large ones, newborns', end at the cortex
(docs/experiments-masks.md, 10, 12 and 16)."""
TIGHT = 0.9
"""The likelihood that makes a voxel brain in a tighter outline, for which brightness is raised in all looks."""
THICK, THICK_LIMIT = 2.0, 0.3
"""Slices so many times as thick as their voxels in plane are a raw stack. There the last look too is that of ``mask-fine``, no narrower,
and less likelihood will do, for masks drawn in such stacks take in all fluid, and a voxel half brain is brain
(docs/experiments-masks.md, 8 and 9)."""
TIGHTER = "the networks are not sure of the mask; of two outlines the tighter fits the template better: look at the mask, or give one"
NEXT = "what the networks masked first fits the template nowhere; this is the next that may be the brain: look at the mask, or give one"
DIVISOR = 16
"""The networks halve a grid four times."""


def brain_mask(
    image: Volume, given: Volume | None = None, mode: str = "auto", finder: Callable[[], BrainFinder] | None = None
) -> BrainMask:
    """The brain mask of ``image`` by ``mode``: ``given``, ``nonzero``, ``network``, or ``auto``: the mask given, else the nonzero voxels
    where the background is exactly empty, else the networks.

    ``finder`` makes the networks ready and is called only if they are needed (default: those of the package).
    Raises :class:`~posepipe.errors.MaskError` where there is no mask of that kind or nothing that may be a brain.
    """
    if mode not in MASK_CHOICES:
        msg = f"unknown mask mode {mode!r}: choose {', '.join(MASK_CHOICES[:-1])} or {MASK_CHOICES[-1]}"
        raise ValueError(msg)
    if given is not None and mode in {"auto", "given"}:
        return given_mask(given, image)
    if mode == "given":
        msg = f"{image.source}: --mask given, but no brain mask was found; point -d at the derivatives that hold it"
        raise MaskError(msg)
    if mode == "nonzero" or (mode == "auto" and has_empty_background(image)):
        return nonzero_mask(image)
    return (finder or BrainFinder)().find(image)


@dataclass(frozen=True, eq=False)
class _Scan:
    """Intensities ``data`` (1, X, Y, Z), and ``spacing`` (3,) in mm. Places are in mm along the axes of the grid from the first voxel."""

    data: Tensor
    spacing: Array

    def darker(self, power: float) -> _Scan:
        """The same with its brightness, relative to the brightest, raised to ``power``."""
        top = self.data.max()
        return self if power == 1 else _Scan(top * (self.data / top) ** power, self.spacing)

    def cube(self, center: Array, step: float, counts: tuple[int, int, int], axes: Array = STRAIGHT) -> Tensor:
        """(1, 1, *counts): block means about as coarse as ``step`` mm, read at points ``step`` apart along ``axes`` about ``center``; 0
        outside."""
        block = np.maximum(np.round(step / self.spacing), 1).astype(int)
        block = np.minimum(block, self.data.shape[1:])
        means = F.avg_pool3d(self.data, tuple(block.tolist())) if block.max() > 1 else self.data
        # a voxel is a box: what lies within the outermost ones is inside, though beyond their centres
        means = F.pad(means[None], (1,) * 6, mode="replicate")[0]
        to_voxel = np.eye(4)
        to_voxel[[0, 1, 2], [0, 1, 2]] = 1 / (self.spacing * block)
        to_voxel[:3, 3] = 1 - (block - 1) / 2 / block
        return sample(means, tensor(to_voxel, self.data.device), _grid(center, step, counts, axes, self.data.device))[None]


@dataclass(frozen=True, eq=False)
class _Look:
    """A look at a brain. ``likely`` (S, S, S): probabilities of brain, ``step`` mm apart along ``axes`` about ``center``; ``about`` is
    what of it was seen, ``sure`` the mean probability there."""

    likely: Tensor
    center: Array
    step: float
    about: Moments
    sure: float
    axes: Array


class _Network:
    """A network ready to look: ``size`` is the side of the cubes it was trained on, ``least`` how like a brain must be what is one."""

    def __init__(self, loaded: LoadedNetwork) -> None:
        self._module = ready(loaded.module)
        self.size, self.least = int(loaded.options["size"]), float(loaded.options.get("least", -np.inf))

    def answer(self, cube: Tensor) -> Tensor:
        """Logits (X, Y, Z) of ``cube`` (1, 1, X, Y, Z)."""
        with answering(cube.device):
            out: Tensor = self._module(scaled(cube).contiguous(memory_format=torch.channels_last_3d))[0, 0].float()
        return out

    def all_round(self, cube: Tensor) -> Tensor:
        """Probabilities (4, X, Y, Z) of brain in ``cube``, looked at in its four :data:`HALF_TURNS`."""
        return torch.stack([torch.sigmoid(self.answer(cube.flip([2 + a for a in axes])).flip(axes)) for axes in HALF_TURNS])


class BrainFinder:
    """Masks the brain in any image with the networks ``mask-coarse``, which looks at all of it, ``mask-fine``, which looks closer, and
    ``mask-edge``, from which the outline is.

    ``weights_dir`` comes before the weights of the package. Raises :class:`~posepipe.errors.WeightsError`.
    """

    def __init__(self, weights_dir: str | Path | None = None, device: str = "cpu") -> None:
        self._device, self._weights_dir = torch.device(device), weights_dir
        loaded = [load_network(name, weights_dir=weights_dir, device=device) for name in MASK_NETWORKS]
        self._coarse, self._fine, self._edge = (_Network(n) for n in loaded)
        self.weights: Mapping[str, str] = {n.name: n.sha256 for n in loaded}
        """Name → SHA-256 of the networks."""

    @torch.inference_mode()
    def find(self, image: Volume) -> BrainMask:
        """The brain in ``image``: one piece without holes, on its grid.

        Where nothing is quite like a brain the likeliest is masked, with a warning; where it is not sure to be one the mask names others.
        Raises :class:`~posepipe.errors.MaskError` where the networks see nothing that may be one.
        """
        scan = _Scan(tensor(image.data, self._device)[None].clamp_min(0), image.spacing)
        first, coarse = self._seen(scan)
        # a round for what is seen on average; where that leads to nothing, one for each of the looks, and at last the middle
        rounds = [_hinted(p, first) for p in (coarse.mean(0), *coarse)]
        middle = (np.array(image.shape) - 1) / 2 * image.spacing
        seen: list[tuple[float, _Look]] = []
        for hints in (*rounds, iter([(middle, MIDDLE_RADIUS_MM)])):
            seen += self._judged(image, scan, hints)
            if seen and max(margin for margin, _ in seen) >= 0:
                break
        places = _places(seen)
        margin = places[0][0] if places else -np.inf
        if margin < -DOUBTFUL:
            raise no_brain(image.source)
        looks = [look for _, look in places]
        mask = self._masked(image, scan, looks[0])
        doubts = () if margin >= 0 else ("the networks doubt that what they masked is a brain: look at the mask, or give one",)
        mask = replace(mask, warnings=(*doubts, *mask.warnings), sure=margin >= DOUBT)
        return mask if mask.sure else replace(mask, others=tuple(self._others(image, scan, *looks)))

    def _masked(self, image: Volume, scan: _Scan, look: _Look, *, tight: bool = False) -> BrainMask:
        """The outline of what was seen in ``look``, or a tight one."""
        shown = scan.darker(DARK) if tight else scan
        if image.spacing.max() >= THICK * image.spacing.min():
            likely, limit = _read_back([look, _outline(self._fine, shown, look.about, 1.0)], scan), THICK_LIMIT
        else:
            power = DARK if tight else float(np.interp(look.about.millilitres, SIZES, POWERS))
            *_, before, last = self._outlined(scan.darker(power), look)
            wider = _outline(self._edge, shown, last.about, LESS_NARROW, TURNED)
            likely = (_read_back([before, last], scan) + _read_back([before, wider], scan)) / 2
            limit = float(np.interp(last.about.millilitres, SIZES, LIMITS))
        mask = checked_mask(likely > (TIGHT if tight else limit), image, "network", image.source)
        return replace(mask, weights=dict(self.weights))

    def _others(self, image: Volume, scan: _Scan, first: _Look, *elsewhere: _Look) -> Iterator[BrainMask]:
        """What may be the brain if the outline of the ``first`` look is not: a tight one, and what was seen ``elsewhere``."""
        for place, look in enumerate((first, *elsewhere)):
            with suppress(MaskError):  # nothing is left of it
                mask = self._masked(image, scan, look, tight=place == 0)
                warning = TIGHTER if place == 0 else NEXT
                yield replace(mask, warnings=(warning, *mask.warnings), sure=False, place=place)

    def _judged(self, image: Volume, scan: _Scan, hints: Iterator[tuple[Array, float]]) -> list[tuple[float, _Look]]:
        """Last looks at what the ``hints`` lead to, up to the first that is sure to be a brain, each with how much more like one it is than
        the least. Where nothing is enough by what ``mask-fine`` sees, what ``mask-edge`` sees there counts: of a brain seen badly it knows
        more."""
        likely: list[tuple[float, _Look]] = []
        for center, radius in hints:
            look = self._settled(scan, center, radius)
            if look is not None:
                likely.append((self._likeness(image, scan, look, self._fine.least), look))
                if DOUBT <= likely[-1][0] - self._fine.least < np.inf:
                    break
        judged = _margins(likely, self._fine.least)
        if judged and max(margin for margin, _ in judged) >= 0:
            return judged
        outlines = [self._outlined(scan, look)[-1] for _, look in likely]
        return _margins([(self._likeness(image, scan, look, self._edge.least), look) for look in outlines], self._edge.least)

    def _likeness(self, image: Volume, scan: _Scan, look: _Look, least: float) -> float:
        """How like a brain that is which was seen; where that may or may not be enough, on average over the :data:`HALF_TURNS`."""
        mask = _read_back((look,), scan) > 0.5
        if not mask.any() or look.about.millilitres > MOST_MILLILITRES:
            return -np.inf
        turned = ((image.with_data(np.flip(image.data, axes)), image.with_data(np.flip(mask, axes))) for axes in HALF_TURNS)
        likeness = SURE_COUNTS * look.sure - self._strangeness(*next(turned))
        if not -DOUBTFUL - DOUBT < likeness - least < DOUBT:
            return likeness
        return float(np.mean([likeness, *(SURE_COUNTS * look.sure - self._strangeness(*views) for views in turned)]))

    @cached_property
    def _pose(self) -> PoseNetworks:
        return PoseNetworks(self._weights_dir, device=str(self._device))

    def _strangeness(self, image: Volume, mask: Volume) -> float:
        """How little what lies in ``mask`` is a brain to the pose networks: the logarithm of how badly the places they give its voxels fit
        together, times the error that they expect."""
        features = self._pose.place(Glance.of(image, mask, self._device))[0].features
        return float(np.log(features["residual"] * features["expected_error"]))

    def _seen(self, scan: _Scan) -> tuple[Array, np.ndarray]:
        """The place of the first voxel of a grid of :data:`COARSE_MM` over the scan, and probabilities (4, X, Y, Z) of brain on it."""
        shape = np.array(scan.data.shape[1:])
        # a grid of fewer voxels than the training's would leave the network without surroundings
        n = np.maximum(np.ceil(shape * scan.spacing / COARSE_MM / DIVISOR).astype(int) * DIVISOR, self._coarse.size)
        center = (shape - 1) / 2 * scan.spacing
        p = self._coarse.all_round(scan.cube(center, COARSE_MM, (int(n[0]), int(n[1]), int(n[2]))))
        return center - (n - 1) / 2 * COARSE_MM, p.cpu().numpy()

    def _settled(self, scan: _Scan, center: Array, radius: float) -> _Look | None:
        """The last of the looks about ``center``; None: less than any brain holds."""
        for _ in range(LOOKS):
            look = _look(self._fine, scan, center, radius)
            if look is None:
                return None
            change = _change(look.about, center, radius)
            center, radius = look.about.center, look.about.radius
            if change < SETTLED:
                break
        return look

    def _outlined(self, scan: _Scan, look: _Look) -> list[_Look]:
        """``look``, and looks of ``mask-edge`` at what was seen, each about what the one before shows; at least one."""
        looks = [look]
        for _ in range(LOOKS):
            about = looks[-1].about
            looks.append(_outline(self._edge, scan, about, NARROW))
            if _change(looks[-1].about, about.center, about.radius) < SETTLED:
                break
        return looks


def _places(seen: Sequence[tuple[float, _Look]]) -> list[tuple[float, _Look]]:
    """Of what was ``seen``, with how much more like a brain than the least it is, the likeliest at each of the likeliest places."""
    places: list[tuple[float, _Look]] = []
    for margin, look in sorted(seen, key=lambda one: -one[0]):
        apart = all(_change(look.about, of.about.center, of.about.radius) > ELSEWHERE for _, of in places)
        if margin >= -2 * DOUBTFUL and apart and len(places) < PLACES:
            places.append((margin, look))
    return places


def _margins(likely: Sequence[tuple[float, _Look]], least: float) -> list[tuple[float, _Look]]:
    """Looks, each with how much more like a brain it is than the least; where the weights do not say that, the likeliest is one."""
    if least == -np.inf:
        return [(np.inf, max(likely, key=lambda one: one[0])[1])] if likely else []
    return [(how - least, look) for how, look in likely]


def _step(network: _Network, radius: float) -> float:
    return 2 * HALF_SIDE * radius / network.size


def _look(network: _Network, scan: _Scan, center: Array, radius: float) -> _Look | None:
    """What ``network`` sees about ``center`` in the neighbourhood of a brain of ``radius``; None: less than any brain holds."""
    step = _step(network, radius)
    return _shown(torch.sigmoid(network.answer(scan.cube(center, step, (network.size,) * 3))), center, step)


def _outline(network: _Network, scan: _Scan, about: Moments, width: float, axes: Array = STRAIGHT) -> _Look:
    """What ``network`` sees on average over the :data:`HALF_TURNS`, ``width`` times as wide as :func:`_look`, on a grid along ``axes``;
    where that is less than any brain holds it is sure of nothing, and knows of nothing new."""
    step = width * _step(network, about.radius)
    likely = network.all_round(scan.cube(about.center, step, (network.size,) * 3, axes)).mean(0)
    return _shown(likely, about.center, step, axes) or _Look(likely, about.center, step, about, 0.0, axes)


def _shown(likely: Tensor, center: Array, step: float, axes: Array = STRAIGHT) -> _Look | None:
    """What of a brain is to be seen in a look; None: less than any brain holds."""
    p = likely.cpu().numpy()
    piece, count = largest_piece(p > 0.5)
    if not count:
        return None
    inside = np.where(piece, p, 0)
    about = _moments(inside, center - axes.sum(1) * (len(p) - 1) / 2 * step, step, axes)
    sure = float((inside**2).sum() / inside.sum())
    return None if about.millilitres < MIN_MILLILITRES else _Look(likely, center, step, about, sure, axes)


def _change(about: Moments, center: Array, radius: float) -> float:
    """By how much, of its radius, a brain is elsewhere or of another size than about ``center`` with ``radius``."""
    return max(float(np.linalg.norm(about.center - center)), abs(about.radius - radius)) / about.radius


def _hinted(p: np.ndarray, first: Array) -> Iterator[tuple[Array, float]]:
    """Centre and radius (mm) of pieces that may be brain, the largest first, faint ones last."""
    given = 0
    for level in (0.5, HINT):
        pieces, count = ndimage.label(p > level)
        mass = ndimage.sum_labels(p, pieces, np.arange(1, count + 1)) * COARSE_MM**3 / 1000
        for i in np.argsort(mass)[::-1]:
            if mass[i] < HINT_MILLILITRES or given == CANDIDATES:
                break
            mine = pieces == i + 1
            if level == 0.5 or float(p[mine].max()) <= 0.5:  # what was found at the higher level is not found again
                about = _moments(np.where(mine, p, 0), first, COARSE_MM)
                given += 1
                yield about.center, max(about.radius, LEAST_RADIUS_MM)


def _grid(center: Array, step: float, counts: tuple[int, int, int], axes: Array, device: torch.device) -> Tensor:
    along = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in counts], indexing="ij"), -1)
    return tensor(center + step * along @ axes.T, device)


def _moments(p: np.ndarray, first: Array, step: float, axes: Array = STRAIGHT) -> Moments:
    affine = np.eye(4)
    affine[:3, :3] = step * axes
    affine[:3, 3] = first
    return moments(Volume(p, affine))


def _read_back(looks: Sequence[_Look], scan: _Scan) -> np.ndarray:
    """The probability of brain in the last of the ``looks`` that reaches it at each voxel of ``scan`` (X, Y, Z); 0 where none does."""
    shape = scan.data.shape[1:]
    out = np.zeros(shape, dtype=np.float32)
    for look in looks:
        step, device, last = look.step, look.likely.device, look.likely.shape[0] - 1
        half = last / 2 * step * np.abs(look.axes).sum(1)
        low = np.maximum(np.ceil((look.center - half) / scan.spacing), 0).astype(int)
        high = np.minimum(np.floor((look.center + half) / scan.spacing).astype(int) + 1, shape)
        places = [np.arange(a, b) * s for a, b, s in zip(low, high, scan.spacing, strict=True)]
        where = tensor(np.stack(np.meshgrid(*places, indexing="ij"), -1), device)
        to_voxel = np.eye(4)
        to_voxel[:3, :3] = look.axes.T / step
        to_voxel[:3, 3] = last / 2 - to_voxel[:3, :3] @ look.center
        likely = sample(look.likely[None], tensor(to_voxel, device), where)[0].cpu().numpy()
        index = where @ tensor(to_voxel[:3, :3].T, device) + tensor(to_voxel[:3, 3], device)
        box = out[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))]
        reached = ((index >= 0) & (index <= last)).all(-1).cpu().numpy()
        box[reached] = likely[reached]
    return out
