"""The whole job in one call: mask, template, initial pose, refinement, verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .age.curves import AgeEstimate
from .age.estimator import AgeEstimator
from .alignment import Alignment
from .atlas import AtlasLibrary, Choice, Template, VolumeRange, candidates, choose_template, end_templates
from .brainmask.choose import brain_mask
from .brainmask.finder import BrainFinder
from .contrast.converter import Converted, Converter
from .errors import UsageError
from .imaging.mask import BrainMask
from .imaging.volume import Volume, checked, load_volume
from .matching.brain import Brain
from .matching.comparison import Comparison
from .matching.target import SPACING, Target
from .models.calibration import Calibration, load_calibration
from .models.device import pick_device, threads_of_torch
from .plan import converts, template_contrast, wants_slices
from .pose.coordinate_networks import PoseNetworks
from .pose.initial import INIT_METHODS, initial_pose
from .quality.verdict import judge_pose
from .refinement.refine import REFINE_METHODS, refine_pose
from .settings import CONVERT_CHOICES, ESTIMATE, MASK_CHOICES, SLICES_CHOICES

if TYPE_CHECKING:
    from .slices.align import StackAligner, StackAlignment


@dataclass(frozen=True, eq=False)
class _Ready:
    """An image with its mask, template and what compares them."""

    image: Volume
    brain: BrainMask
    age: float | None
    guess: AgeEstimate | None
    contrast: str
    choice: Choice
    target: Target
    conversion: Converted | None
    seen: Volume
    compare: Comparison


@dataclass
class Aligner:
    """Aligns image after image with the same settings; templates and their banks stay in memory.

    ``atlas`` is a name or ``auto``; ``atlas_dirs`` are searched first. ``init``: auto, deep, posenet, search, axes, center;
    ``refine``: ants, torch, none; ``mask``: auto, given, nonzero, network; ``contrast``: auto, T1w, T2w; ``age_policy``: error, nearest.
    ``convert``: T1w images to T2-like contrast by a network, for the alignment: auto (where the template is T2w only), always, never.
    ``slices``: a pose of each slice (:attr:`Alignment.slices`): auto (of images whose slices are at least twice as far apart as their
    pixels are wide), on, off. ``threads`` bounds those of torch (None: as it chooses). ``weights``: a folder of network weights that come
    before the package's.
    ``cache_dir`` keeps rotation banks (default: the user's cache).
    """

    atlas: str = "auto"
    atlas_dirs: Sequence[str | Path] = ()
    init: str = "auto"
    refine: str = "ants"
    mask: str = "auto"
    contrast: str = "auto"
    convert: str = "auto"
    age_policy: str = "error"
    slices: str = "auto"
    device: str = "auto"
    threads: int | None = None
    weights: str | Path | None = None
    cache_dir: Path | None = None
    seed: int = 0
    _library: AtlasLibrary = field(init=False, repr=False)
    _networks: PoseNetworks = field(init=False, repr=False)
    _calibration: Calibration = field(init=False, repr=False)
    _targets: dict[tuple[Path, Path | None, str], Target] = field(init=False, repr=False, default_factory=dict)
    _ages: dict[str, AgeEstimator] = field(init=False, repr=False, default_factory=dict)
    _ends: dict[str, tuple[Template, ...]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        options = (
            ("init", self.init, INIT_METHODS), ("refine", self.refine, REFINE_METHODS), ("mask", self.mask, MASK_CHOICES),
            ("convert", self.convert, CONVERT_CHOICES), ("slices", self.slices, SLICES_CHOICES),
        )  # fmt: skip
        for name, value, known in options:
            if value not in known:
                msg = f"unknown {name} {value!r}: choose from {', '.join(known)}"
                raise UsageError(msg)
        self._library = AtlasLibrary.default([Path(d) for d in self.atlas_dirs])
        self.device = pick_device(self.device)
        self._networks = PoseNetworks(self.weights, device=self.device)
        self._calibration = load_calibration(self.weights)

    def target(self, template: Template) -> Target:
        """``template`` made ready; kept for the next image."""
        key = (template.image, template.mask, template.contrast)  # not its name, which another may have
        if key not in self._targets:
            self._targets[key] = Target.load(template, cache_dir=self.cache_dir, device=self.device)
        return self._targets[key]

    def align(
        self,
        image: str | Path | Volume,
        age: float | str | None = None,
        *,
        mask: str | Path | Volume | None = None,
        contrast: str | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> Alignment:
        """Pose of ``image`` (a file, or a :class:`~posepipe.imaging.volume.Volume`) of a subject of ``age`` weeks against its template.

        ``age="estimate"`` has the age estimated from the image.
        ``contrast`` (T2w or T1w) defaults to the aligner's, else to the file name's, else T2w. ``timing`` is what the image's BIDS
        sidecar tells of its slices: ``SliceTiming``, ``SliceEncodingDirection``, ``SliceThickness``.
        Raises a :class:`~posepipe.errors.PosepipeError` that says what is wrong with the image, mask, age or atlas.
        """
        seconds: dict[str, float] = {}
        with threads_of_torch(self.threads):
            with _timed(seconds, "read"):
                volume = checked(image) if isinstance(image, Volume) else load_volume(image)
                given = checked(mask) if isinstance(mask, Volume) else None if mask is None else load_volume(mask)
            kind = contrast or (self.contrast if self.contrast != "auto" else _contrast_of(volume.source))
            with _timed(seconds, "mask"):
                brain = brain_mask(volume, given, self.mask, lambda: self.finder)
            return self.align_masked(volume, brain, age, contrast=kind, seconds=seconds, timing=timing)

    def align_masked(
        self, volume: Volume, brain: BrainMask, age: float | str | None, *, contrast: str, seconds: dict[str, float] | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> Alignment:  # fmt: skip
        """The same of an image in ``contrast`` that has its mask. ``seconds`` of earlier stages come before those of this."""
        spent = dict(seconds or {})
        return self._aligned(self._readied(volume, brain, age, contrast, spent), spent, timing)

    def _readied(self, volume: Volume, brain: BrainMask, age: float | str | None, kind: str, seconds: dict[str, float]) -> _Ready:
        """All that a pose is found by."""
        guess: AgeEstimate | None = None
        if isinstance(age, str):
            with _timed(seconds, "age"):
                guess = self._estimate(age, volume, brain.volume, kind)
            age = guess.weeks
        choice: Choice = choose_template(
            self._library, age=age, contrast=kind, atlas=self.atlas, age_policy=self.age_policy,
            onto=template_contrast(kind, self.convert),
        )  # fmt: skip
        with _timed(seconds, "template"):
            target = self.target(choice.template)
            if self.init == "search":
                _ = target.bank
        conversion: Converted | None = None
        if converts(kind, choice.contrast, self.convert):
            with _timed(seconds, "convert"):
                conversion = self._converter.convert(volume, brain.volume)
        seen = conversion.volume if conversion else volume
        with _timed(seconds, "prepare"):
            compare = Comparison.of(seen, brain.volume, target, self.device)
        return _Ready(volume, brain, age, guess, kind, choice, target, conversion, seen, compare)

    def _aligned(self, ready: _Ready, seconds: dict[str, float], timing: Mapping[str, Any] | None) -> Alignment:
        """The pose of what is ready."""
        about = (ready.seen, ready.brain.volume, ready.target)
        with _timed(seconds, "init"):
            initial = initial_pose(
                *about, method=self.init, age_known=ready.age is not None, compare=ready.compare, networks=self._networks,
                found=ready.brain.found,
            )  # fmt: skip
        with _timed(seconds, "refine"):
            refined = refine_pose(*about, initial.pose, method=self.refine, seed=self.seed, compare=ready.compare)
        stack: StackAlignment | None = None
        alike = ready.conversion is not None or ready.contrast == ready.choice.contrast
        if alike and wants_slices([float(s) for s in ready.image.spacing], self.slices):
            with _timed(seconds, "slices"):
                stack = self._stacks.align(*about, refined.pose, timing)
                refined = stack.kept_in(refined, *about, compare=ready.compare)
        converted = ready.conversion is not None
        scanned = Brain.prepare(ready.image, ready.brain.volume, SPACING, self.device) if converted else ready.compare.brain
        quality = judge_pose(
            initial, refined, ready.brain, ready.target, ready.age, scanned=scanned, contrast=ready.contrast, calibration=self._calibration,
            estimated=ready.guess is not None, volumes=self._volumes(ready),
            doubts=(*ready.image.doubts, *((ready.guess.doubt,) if ready.guess and ready.guess.doubt else ())),
        )  # fmt: skip
        return Alignment(
            pose=refined.pose,
            template=ready.choice.template,
            target=ready.target,
            choice_reason=ready.choice.reason,
            age=ready.age,
            contrast=ready.contrast,
            image=ready.image,
            mask=ready.brain,
            initial=initial,
            refined=refined,
            quality=quality,
            seconds=seconds,
            warnings=(*(ready.guess.warnings if ready.guess else ()), *ready.choice.warnings, *ready.image.notes, *ready.target.notes),
            guess=ready.guess,
            conversion=ready.conversion,
            slices=stack,
        )

    def _volumes(self, ready: _Ready) -> VolumeRange:
        if ready.contrast not in self._ends:
            self._ends[ready.contrast] = end_templates(self._library, contrast=ready.contrast, atlas=self.atlas)
        return VolumeRange.of(ready.choice.template, self._ends[ready.contrast])

    @cached_property
    def finder(self) -> BrainFinder:
        """The networks that find brains, loaded when the first image needs it."""
        return BrainFinder(self.weights, self.device)

    @cached_property
    def _converter(self) -> Converter:
        """Loaded when the first image is to be converted."""
        return Converter(self.weights, self.device)

    @cached_property
    def _stacks(self) -> StackAligner:
        """Loaded when the first stack of slices comes."""
        from .slices.align import StackAligner

        return StackAligner(self.weights, self.device)

    def _estimate(self, age: str, volume: Volume, mask: Volume, contrast: str) -> AgeEstimate:
        if age != ESTIMATE:
            msg = f"the age is a number of weeks or {ESTIMATE!r}, not {age!r}"
            raise UsageError(msg)
        if contrast not in self._ages:
            series = candidates(self._library, contrast=contrast, atlas=self.atlas)
            self._ages[contrast] = AgeEstimator(series, self._networks, device=self.device, cache_dir=self.cache_dir)
        return self._ages[contrast].estimate(volume, mask)


def align(
    image: str | Path | Volume,
    age: float | str | None = None,
    *,
    mask: str | Path | Volume | None = None,
    contrast: str | None = None,
    **settings: Any,
) -> Alignment:
    """Align one image: ``posepipe.align("brain.nii.gz", age=29, mask="mask.nii.gz")``; ``settings`` are those of :class:`Aligner`."""
    return Aligner(**settings).align(image, age, mask=mask, contrast=contrast)


def _contrast_of(source: str) -> str:
    name = Path(source).name
    return "T1w" if "T1w" in name or "T1W" in name else "T2w"


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 4)
