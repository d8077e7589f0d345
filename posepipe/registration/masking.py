"""The brain mask of an image: given, its nonzero voxels, or found by the networks in whatever surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import MaskError
from ..geometry.so3 import Array
from ..imaging.mask import BrainMask, checked_mask, given_mask, is_extracted, maybe_older, no_brain, nonzero_mask
from ..imaging.moments import Moments
from ..imaging.volume import Volume
from ..models.coordinates import HALF_SIDE
from ..models.layers import ready
from ..models.masks import COARSE_MM, scaled
from ..models.precision import answering
from ..models.weights import MASK_NETWORKS, POSE_NETWORKS, LoadedNetwork, hashes, load_network
from ..settings import MASK_CHOICES
from .calibration import load_calibration, uncalibrated
from .deep import Glance, PoseNetworks
from .scan_views import STRAIGHT, Look, Scan, moments_of, moved_by, read_back, seen_in

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
PLACES, ELSEWHERE = 3, 0.5
"""Where the likeliest place is not sure to be a brain, so many may be it in all that lack no more than twice what is doubtful, each farther
from likelier ones, or larger or smaller, by half a radius (docs/experiments-masks.md, 16)."""
NARROW, LESS_NARROW = 0.65, 0.7
"""The outline comes from a last look, of ``mask-edge``, that is so much narrower, and finer (docs/experiments-masks.md, 9 and 10); it too
is taken again, about what it shows, until it settles (11), and once a little wider and :data:`TURNED`: the mean of both is better than
either, for what is seen on one grid by chance is not seen on the other (13 and 14)."""
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
    where the image is brain-extracted, else the networks.

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
    if mode == "nonzero" or (mode == "auto" and is_extracted(image)):
        return nonzero_mask(image)
    found = (finder or BrainFinder)().find(image)
    older = maybe_older(image) if mode == "auto" else ""
    return found.warned(older) if older else found


class _Network:
    """A network ready to look: ``size`` is the side of the cubes it was trained on, ``least`` how like a brain must be what is one, if
    anything is known of that."""

    def __init__(self, loaded: LoadedNetwork, least: Mapping[str, float]) -> None:
        self._module = ready(loaded.module)
        self.size, self.least = int(loaded.options["size"]), least.get(loaded.name, -np.inf)

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
        self.weights: Mapping[str, str] = {n.name: n.sha256 for n in loaded}
        """Name → SHA-256 of the networks."""
        calibration = load_calibration(weights_dir)
        self._how = calibration.likeness
        judges = {**self.weights, **hashes(POSE_NETWORKS, weights_dir)}
        self._strange = calibration.others(judges)
        self._coarse, self._fine, self._edge = (_Network(n, {} if self._strange else self._how.least) for n in loaded)

    @torch.inference_mode()
    def find(self, image: Volume) -> BrainMask:
        """The brain in ``image``: one piece without holes, on its grid.

        Where nothing is quite like a brain the likeliest is masked, with a warning; where it is not sure to be one the mask names others.
        Raises :class:`~posepipe.errors.MaskError` where the networks see nothing that may be one.
        """
        scan = Scan.of(image, self._device)
        first, coarse = self._seen(scan)
        # a round for what is seen on average; where that leads to nothing, one for each of the looks, and at last the middle
        rounds = [_hinted(p, first) for p in (coarse.mean(0), *coarse)]
        seen: list[tuple[float, Look]] = []
        for hints in (*rounds, iter([_middle(image)])):
            seen += self._judged(image, scan, hints)
            if seen and max(margin for margin, _ in seen) >= 0:
                break
        places = _places(seen, self._how.doubtful)
        margin = places[0][0] if places else -np.inf
        if margin < -self._how.doubtful:
            raise no_brain(image.source)
        looks = [look for _, look in places]
        mask = self._masked(image, scan, looks[0])
        doubts = () if margin >= 0 else ("the networks doubt that what they masked is a brain: look at the mask, or give one",)
        strange = (uncalibrated(self._strange),) if self._strange else ()
        mask = replace(mask, warnings=(*strange, *doubts, *mask.warnings), sure=margin >= self._how.doubt)
        return mask if mask.sure else replace(mask, others=tuple(self._others(image, scan, *looks)))

    @torch.inference_mode()
    def near(self, image: Volume, center: Array, radius: float) -> Volume | None:
        """Mask of the brain in ``image`` that lies about ``center`` (3,), RAS mm, and has about this ``radius``, mm: one look of
        ``mask-fine``, or two where the brain is not where it was thought to be; on the image's grid. None where none is seen.

        Quick (an eighth of :meth:`find`'s time or less), and not judged: whatever is most like a brain there is masked.
        """
        scan = Scan.of(image, self._device)
        at = ((np.linalg.inv(image.affine) @ np.append(center, 1.0))[:3]) * image.spacing
        look = _look(self._fine, scan, at, radius)
        # a brain off by more is not seen whole
        if look is not None and moved_by(look.about, at, radius) > HALF_SIDE - 1:
            look = _look(self._fine, scan, look.about.center, radius)
        if look is None:
            return None
        try:
            return checked_mask(read_back((look,), scan) > 0.5, image, "network", image.source).volume
        except MaskError:
            return None

    def _masked(self, image: Volume, scan: Scan, look: Look, *, tight: bool = False) -> BrainMask:
        """The outline of what was seen in ``look``, or a tight one."""
        shown = scan.darker(DARK) if tight else scan
        if image.spacing.max() >= THICK * image.spacing.min():
            likely, limit = read_back([look, _outline(self._fine, shown, look.about, 1.0)], scan), THICK_LIMIT
        else:
            power = DARK if tight else float(np.interp(look.about.millilitres, SIZES, POWERS))
            *_, before, last = self._outlined(scan.darker(power), look)
            wider = _outline(self._edge, shown, last.about, LESS_NARROW, TURNED)
            likely = (read_back([before, last], scan) + read_back([before, wider], scan)) / 2
            limit = float(np.interp(last.about.millilitres, SIZES, LIMITS))
        mask = checked_mask(likely > (TIGHT if tight else limit), image, "network", image.source)
        return replace(mask, weights=dict(self.weights))

    def _others(self, image: Volume, scan: Scan, first: Look, *elsewhere: Look) -> Iterator[BrainMask]:
        """What may be the brain if the outline of the ``first`` look is not: a tight one, and what was seen ``elsewhere``."""
        for place, look in enumerate((first, *elsewhere)):
            with suppress(MaskError):  # nothing is left of it
                mask = self._masked(image, scan, look, tight=place == 0)
                warning = TIGHTER if place == 0 else NEXT
                yield replace(mask, warnings=(warning, *mask.warnings), sure=False, place=place)

    def _judged(self, image: Volume, scan: Scan, hints: Iterator[tuple[Array, float]]) -> list[tuple[float, Look]]:
        """Last looks at what the ``hints`` lead to, up to the first that is sure to be a brain, each with how much more like one it is than
        the least. Where nothing is enough by what ``mask-fine`` sees, what ``mask-edge`` sees there counts: of a brain seen badly it knows
        more."""
        likely: list[tuple[float, Look]] = []
        for center, radius in hints:
            look = self._settled(scan, center, radius)
            if look is not None:
                likely.append((self._likeness(image, scan, look, self._fine.least), look))
                if self._how.doubt <= likely[-1][0] - self._fine.least < np.inf:
                    break
        judged = _margins(likely, self._fine.least)
        if judged and max(margin for margin, _ in judged) >= 0:
            return judged
        outlines = [self._outlined(scan, look)[-1] for _, look in likely]
        return _margins([(self._likeness(image, scan, look, self._edge.least), look) for look in outlines], self._edge.least)

    def _likeness(self, image: Volume, scan: Scan, look: Look, least: float) -> float:
        """How like a brain that is which was seen; where that may or may not be enough, on average over the :data:`HALF_TURNS`."""
        sides = self._sides(image, scan, look)
        likeness = next(sides)
        if not -self._how.doubtful - self._how.doubt < likeness - least < self._how.doubt:
            return likeness
        return float(np.mean([likeness, *sides]))

    def _sides(self, image: Volume, scan: Scan, look: Look) -> Iterator[float]:
        """How like a brain that is which was seen, after each of the :data:`HALF_TURNS`."""
        mask = read_back((look,), scan) > 0.5
        if not mask.any() or look.about.millilitres > MOST_MILLILITRES:
            yield -np.inf
            return
        for axes in HALF_TURNS:
            turned = image.with_data(np.flip(image.data, axes)), image.with_data(np.flip(mask, axes))
            yield self._how.sure_counts * look.sure - self._strangeness(*turned)

    @torch.inference_mode()
    def likenesses(self, image: Volume) -> Iterator[tuple[str, float, Array]]:
        """All places in ``image`` that are looked at in a first round, and its middle: by what network it is seen, how like a brain it is
        from four sides, and its centre (3,), RAS mm. What the calibration is made of."""
        scan = Scan.of(image, self._device)
        first, coarse = self._seen(scan)
        for center, radius in (*_hinted(coarse.mean(0), first), _middle(image)):
            look = self._settled(scan, center, radius)
            if look is not None:
                for name, seen in (("mask-fine", look), ("mask-edge", self._outlined(scan, look)[-1])):
                    at = image.affine[:3, :3] @ (seen.about.center / image.spacing) + image.affine[:3, 3]
                    yield name, float(np.mean([*self._sides(image, scan, seen)])), at

    @cached_property
    def _pose(self) -> PoseNetworks:
        return PoseNetworks(self._weights_dir, device=str(self._device))

    def _strangeness(self, image: Volume, mask: Volume) -> float:
        """How little what lies in ``mask`` is a brain to the pose networks: the logarithm of how badly the places they give its voxels fit
        together, times the error that they expect."""
        features = self._pose.place(Glance.of(image, mask, self._device))[0].features
        return float(np.log(features["residual"] * features["expected_error"]))

    def _seen(self, scan: Scan) -> tuple[Array, np.ndarray]:
        """The place of the first voxel of a grid of :data:`COARSE_MM` over the scan, and probabilities (4, X, Y, Z) of brain on it."""
        shape = np.array(scan.data.shape[1:])
        # a grid of fewer voxels than the training's would leave the network without surroundings
        n = np.maximum(np.ceil(shape * scan.spacing / COARSE_MM / DIVISOR).astype(int) * DIVISOR, self._coarse.size)
        center = (shape - 1) / 2 * scan.spacing
        p = self._coarse.all_round(scan.cube(center, COARSE_MM, (int(n[0]), int(n[1]), int(n[2]))))
        return center - (n - 1) / 2 * COARSE_MM, p.cpu().numpy()

    def _settled(self, scan: Scan, center: Array, radius: float) -> Look | None:
        """The last of the looks about ``center``; None: less than any brain holds."""
        for _ in range(LOOKS):
            look = _look(self._fine, scan, center, radius)
            if look is None:
                return None
            change = moved_by(look.about, center, radius)
            center, radius = look.about.center, look.about.radius
            if change < SETTLED:
                break
        return look

    def _outlined(self, scan: Scan, look: Look) -> list[Look]:
        """``look``, and looks of ``mask-edge`` at what was seen, each about what the one before shows; at least one."""
        looks = [look]
        for _ in range(LOOKS):
            about = looks[-1].about
            looks.append(_outline(self._edge, scan, about, NARROW))
            if moved_by(looks[-1].about, about.center, about.radius) < SETTLED:
                break
        return looks


def _places(seen: Sequence[tuple[float, Look]], doubtful: float) -> list[tuple[float, Look]]:
    """Of what was ``seen``, with how much more like a brain than the least it is, the likeliest at each of the likeliest places."""
    places: list[tuple[float, Look]] = []
    for margin, look in sorted(seen, key=lambda one: -one[0]):
        apart = all(moved_by(look.about, of.about.center, of.about.radius) > ELSEWHERE for _, of in places)
        if margin >= -2 * doubtful and apart and len(places) < PLACES:
            places.append((margin, look))
    return places


def _margins(likely: Sequence[tuple[float, Look]], least: float) -> list[tuple[float, Look]]:
    """Looks, each with how much more like a brain it is than the least; where the weights are not calibrated, the likeliest is one."""
    if least == -np.inf:
        return [(np.inf, max(likely, key=lambda one: one[0])[1])] if likely else []
    return [(how - least, look) for how, look in likely]


def _middle(image: Volume) -> tuple[Array, float]:
    """The middle of an image and the radius of a brain that may be there, mm."""
    return (np.array(image.shape) - 1) / 2 * image.spacing, MIDDLE_RADIUS_MM


def _step(network: _Network, radius: float) -> float:
    return 2 * HALF_SIDE * radius / network.size


def _look(network: _Network, scan: Scan, center: Array, radius: float) -> Look | None:
    """What ``network`` sees about ``center`` in the neighbourhood of a brain of ``radius``; None: less than any brain holds."""
    step = _step(network, radius)
    return seen_in(torch.sigmoid(network.answer(scan.cube(center, step, (network.size,) * 3))), center, step)


def _outline(network: _Network, scan: Scan, about: Moments, width: float, axes: Array = STRAIGHT) -> Look:
    """What ``network`` sees on average over the :data:`HALF_TURNS`, ``width`` times as wide as :func:`_look`, on a grid along ``axes``;
    where that is less than any brain holds it is sure of nothing, and knows of nothing new."""
    step = width * _step(network, about.radius)
    likely = network.all_round(scan.cube(about.center, step, (network.size,) * 3, axes)).mean(0)
    return seen_in(likely, about.center, step, axes) or Look(likely, about.center, step, about, 0.0, axes)


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
                about = moments_of(np.where(mine, p, 0), first, COARSE_MM)
                given += 1
                yield about.center, max(about.radius, LEAST_RADIUS_MM)
