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
from .bids.converted import converter_doubts
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
class _Inputs:
    """The inputs of one alignment: the image, its mask and template, and the :class:`~posepipe.matching.comparison.Comparison` of both.

    ``compared`` is the volume that is compared with the template: the converted image where there is one, else ``image``.
    """

    image: Volume
    brain: BrainMask
    age: float | None
    age_estimate: AgeEstimate | None
    contrast: str
    choice: Choice
    target: Target
    conversion: Converted | None
    compared: Volume
    compare: Comparison


@dataclass
class Aligner:
    """Aligns any number of images with the same settings. Templates and their rotation banks stay in memory.

    ``atlas`` is a name or ``auto``; ``atlas_dirs`` are searched first. ``init``: auto, deep, posenet, search, axes, center;
    ``refine``: ants, torch, none; ``mask``: auto, given, nonzero, network; ``contrast``: auto, T1w, T2w; ``age_policy``: error, nearest.
    ``convert``: convert T1w images to T2-like contrast with a network, for the alignment only: auto (if the template is T2w only), always,
    never. ``slices``: estimate a pose for each slice (:attr:`Alignment.slices`): auto (if the slice spacing is at least twice the pixel
    size), on, off. ``threads`` is the number of torch threads (None: torch's default). ``weights`` is a folder of network weights that take
    precedence over the package's. ``cache_dir`` stores rotation banks (default: the user's cache).
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
        """The :class:`~posepipe.matching.target.Target` of ``template``, loaded once and cached."""
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
        """Align ``image`` (a file, or a :class:`~posepipe.imaging.volume.Volume`) of a subject of ``age`` weeks to its template.

        With ``age="estimate"`` the age is estimated from the image. ``contrast`` (T2w or T1w) defaults to the aligner's, else to the file
        name's, else T2w. ``timing`` holds the fields ``SliceTiming``, ``SliceEncodingDirection`` and ``SliceThickness`` of the image's
        BIDS sidecar. Raises a :class:`~posepipe.errors.PosepipeError` that says what is wrong with the image, mask, age or atlas.
        """
        seconds: dict[str, float] = {}
        with threads_of_torch(self.threads):
            with _timed(seconds, "read"):
                volume = checked(image) if isinstance(image, Volume) else load_volume(image)
                given = checked(mask) if isinstance(mask, Volume) else None if mask is None else load_volume(mask)
            kind = contrast or (self.contrast if self.contrast != "auto" else contrast_of(volume.source))
            with _timed(seconds, "mask"):
                brain = brain_mask(volume, given, self.mask, lambda: self.finder)
            return self.align_masked(volume, brain, age, contrast=kind, seconds=seconds, timing=timing)

    def align_masked(
        self, volume: Volume, brain: BrainMask, age: float | str | None, *, contrast: str, seconds: dict[str, float] | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> Alignment:  # fmt: skip
        """As :meth:`align`, for an image in ``contrast`` whose mask is known. ``seconds`` (stage → s) holds the times of earlier stages."""
        spent = dict(seconds or {})
        return self._aligned(self._prepare(volume, brain, age, contrast, spent), spent, timing)

    def _prepare(self, volume: Volume, brain: BrainMask, age: float | str | None, kind: str, seconds: dict[str, float]) -> _Inputs:
        """Choose the template, convert the image if needed, and build the comparison."""
        age_estimate: AgeEstimate | None = None
        if isinstance(age, str):
            with _timed(seconds, "age"):
                age_estimate = self._estimate(age, volume, brain.volume, kind)
            age = age_estimate.weeks
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
        compared = conversion.volume if conversion else volume
        with _timed(seconds, "prepare"):
            compare = Comparison.of(compared, brain.volume, target, self.device)
        return _Inputs(volume, brain, age, age_estimate, kind, choice, target, conversion, compared, compare)

    def _aligned(self, inputs: _Inputs, seconds: dict[str, float], timing: Mapping[str, Any] | None) -> Alignment:
        """Initial pose, refinement, slice poses and verdict."""
        about = (inputs.compared, inputs.brain.volume, inputs.target)
        with _timed(seconds, "init"):
            initial = initial_pose(
                *about, method=self.init, age_known=inputs.age is not None, compare=inputs.compare, networks=self._networks,
                found=inputs.brain.found,
            )  # fmt: skip
        with _timed(seconds, "refine"):
            refined = refine_pose(*about, initial.pose, method=self.refine, seed=self.seed, compare=inputs.compare)
        stack: StackAlignment | None = None
        alike = inputs.conversion is not None or inputs.contrast == inputs.choice.contrast
        if alike and wants_slices([float(s) for s in inputs.image.spacing], self.slices):
            with _timed(seconds, "slices"):
                stack = self._stacks.align(*about, refined.pose, timing)
                refined = stack.applied_to(refined, *about, compare=inputs.compare)
        converted, estimate = inputs.conversion is not None, inputs.age_estimate
        scanned = Brain.prepare(inputs.image, inputs.brain.volume, SPACING, self.device) if converted else inputs.compare.brain
        quality = judge_pose(
            initial, refined, inputs.brain, inputs.target, inputs.age, scanned=scanned, contrast=inputs.contrast,
            calibration=self._calibration, estimated=estimate is not None, volumes=self._volumes(inputs),
            doubts=(
                *inputs.image.doubts, *((estimate.doubt,) if estimate and estimate.doubt else ()),
                *converter_doubts(Path(inputs.image.source)),
            ),
        )  # fmt: skip
        return Alignment(
            pose=refined.pose,
            template=inputs.choice.template,
            target=inputs.target,
            choice_reason=inputs.choice.reason,
            age=inputs.age,
            contrast=inputs.contrast,
            image=inputs.image,
            mask=inputs.brain,
            initial=initial,
            refined=refined,
            quality=quality,
            seconds=seconds,
            warnings=(*(estimate.warnings if estimate else ()), *inputs.choice.warnings, *inputs.image.notes, *inputs.target.notes),
            age_estimate=estimate,
            conversion=inputs.conversion,
            slices=stack,
        )

    def _volumes(self, inputs: _Inputs) -> VolumeRange:
        if inputs.contrast not in self._ends:
            self._ends[inputs.contrast] = end_templates(self._library, contrast=inputs.contrast, atlas=self.atlas)
        return VolumeRange.of(inputs.choice.template, self._ends[inputs.contrast])

    @cached_property
    def finder(self) -> BrainFinder:
        """The brain-masking networks, loaded on first use."""
        return BrainFinder(self.weights, self.device)

    @cached_property
    def _converter(self) -> Converter:
        """The contrast conversion network, loaded on first use."""
        return Converter(self.weights, self.device)

    @cached_property
    def _stacks(self) -> StackAligner:
        """The slice networks, loaded on first use."""
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
    timing: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Alignment:
    """Align one image: ``posepipe.align("brain.nii.gz", age=29, mask="mask.nii.gz")``. ``settings`` are those of :class:`Aligner`, the
    other arguments those of :meth:`Aligner.align`."""
    return Aligner(**settings).align(image, age, mask=mask, contrast=contrast, timing=timing)


def contrast_of(source: str) -> str:
    """Contrast of an image by the name of its file: T1w where the name says so, else T2w."""
    name = Path(source).name
    return "T1w" if "T1w" in name or "T1W" in name else "T2w"


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 4)
