"""Making the plan of a run, and printing it (``--dry-run``)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AgeError, AtlasError, ImageError, MaskError, PosepipeError, UsageError
from ..plan import (
    SLICE_KEYS,
    ImagePlan,
    Plan,
    PlanFailure,
    converts,
    planned_mask,
    template_contrast,
    uses_mask_network,
    wants_slices,
)
from ..settings import AUTO, ESTIMATE, Settings
from .parameters import FileDigests, parameters_of
from .session_plan import checked, session_plan

if TYPE_CHECKING:
    from ..atlas import AtlasLibrary, Choice, Template, VolumeRange
    from ..bids import Age, InputImage, OutputNames, Survey
    from .reuse import Earlier


def make_plan(settings: Settings) -> Plan:
    """Determine the requested images, their ages and templates. An image without one of them, or with a name clash, becomes a
    :class:`~posepipe.plan.PlanFailure`.

    Raises :class:`~posepipe.errors.UsageError` or :class:`~posepipe.errors.BidsError` for an unusable dataset, selection or output folder,
    and :class:`~posepipe.errors.AtlasError` for an atlas that no image could use.
    """
    from ..atlas import AtlasLibrary
    from ..bids import collisions, duplicates, read_filter_file, survey_images
    from .reuse import split_earlier

    library = AtlasLibrary.default(settings.atlas_dir)
    check_atlases(library, settings.atlas)
    others, earlier = split_earlier(settings)
    survey = survey_images(
        settings.bids_dir,
        participants=settings.participant_label,
        sessions=settings.session_label,
        filters=read_filter_file(settings.bids_filter_file) if settings.bids_filter_file else None,
        derivatives=others,
        validate=not settings.skip_bids_validation,
        everywhere=settings.dry_run or settings.verbose > 0,
    )
    planner = _Planner(settings, library, survey, earlier and earlier.matched(survey.images))
    double = duplicates(survey.images)
    reported: set[str] = set()
    parts: list[ImagePlan | PlanFailure] = []
    for image in survey.images:
        if image.path not in double:
            parts += planner.plan(image)
        elif str(double[image.path]) not in reported:  # once: it is one image
            reported.add(str(double[image.path]))
            parts.append(PlanFailure(image, "image", double[image.path]))
    clashes = collisions((part.image, part.files) for part in parts if isinstance(part, ImagePlan))
    found: dict[tuple[str, str | None], list[ImagePlan | PlanFailure]] = defaultdict(list)
    for part in parts:
        clash = clashes.get(part.image.path)
        found[part.image.subject, part.image.session].append(part if clash is None else PlanFailure(part.image, "image", clash))
    consistent = settings.session_pose == "consistent"
    sessions = tuple(session_plan(subject, session, parts, consistent=consistent) for (subject, session), parts in found.items())
    return Plan(sessions, survey.left_out, survey.lacking)


def check_atlases(library: AtlasLibrary, atlases: Sequence[str]) -> None:
    """Check that each of the ``atlases`` exists, before the images are planned; raises :class:`~posepipe.errors.AtlasError`."""
    for atlas in atlases:
        _check_atlas(library, atlas)


def _check_atlas(library: AtlasLibrary, atlas: str) -> None:
    if atlas != AUTO:
        if not library.contrasts(atlas):
            library.templates(atlas, "T2w")  # raises, saying what is missing and where it was looked for
    elif not any(library.contrasts(name) for name in (*library.manifests, *library.added())):
        looked = ", ".join(str(folder) for folder in library.dirs)
        msg = (
            f"no atlas was found on this machine (looked in {looked}); name its folder with --atlas-dir, or see `posepipe-tools atlas list`"
        )
        raise AtlasError(msg)


class _Planner:
    """Plans images one by one; tables of ages and files of templates are read once."""

    def __init__(self, settings: Settings, library: AtlasLibrary, survey: Survey, earlier: Earlier | None) -> None:
        from ..bids import AgeReader, Metadata, parse_derivative
        from .ages import AgesOfImages

        self._settings = settings
        self._library = library
        self._misnamed, self._unmasked = survey.misnamed, survey.unmasked
        self._files = FileDigests()
        try:
            given = None if settings.age is None or settings.age == ESTIMATE else float(settings.age)
            estimate = AgesOfImages(settings, library, self._files) if settings.age == ESTIMATE else None
            self._ages = AgeReader(settings.bids_dir, age=given, column=settings.age_column, estimate=estimate)
        except AgeError as error:  # an --age outside of the possible range
            raise UsageError(str(error)) from error
        self._ends: dict[tuple[str, str], tuple[Template, ...]] = {}
        self._metadata = Metadata()
        self._with_t1w: dict[Path, bool] = {}
        self._derivatives = dict(map(parse_derivative, settings.derivatives))
        self._earlier = earlier

    def plan(self, image: InputImage) -> list[ImagePlan | PlanFailure]:
        """The plans of ``image``, one for each atlas with a template of its age, and failures; at least one of either."""
        masked = image if self._earlier is None else self._earlier.with_mask(image)
        if masked is not image and self._settings.mask == "given":
            image = masked
        parts = self._plans(image)
        if self._earlier is None:
            return parts
        parts = [self._earlier.look(part) if isinstance(part, ImagePlan) else part for part in parts]
        if masked is image or all(isinstance(part, ImagePlan) and (part.done or part.earlier) for part in parts):
            return parts
        others = self._plans(masked)
        if len(others) != len(parts):  # its age was estimated otherwise with that mask
            return others
        return [self._earlier.instead(part, other) for part, other in zip(parts, others, strict=True)]

    def _plans(self, image: InputImage) -> list[ImagePlan | PlanFailure]:
        from ..bids import OutputNames
        from ..bids.converted import converter_doubts
        from ..imaging.header import check_header

        stage = "image"
        try:
            if image.path in self._misnamed:
                raise self._misnamed[image.path]
            header = check_header(image.path)
            timing = self._timing(image) if wants_slices(header.spacing, self._settings.slices) else None
            stage = "mask"
            self._check_mask(image)
            stage = "age"
            age = self._ages.age_of(image)
            stage = "atlas"
            choices, lacks = self._choices(image, age.weeks)
        except PosepipeError as error:
            return [PlanFailure(image, stage, error)]
        first = choices[0].template
        parts: list[ImagePlan | PlanFailure] = []
        for choice in choices:
            names = OutputNames(self._settings.out_dir, image, (choice.template.atlas, choice.template.cohort), choice is not choices[0])
            try:
                planned = self._image_plan(image, age, timing, choice, names)
                about: dict[str, Any] = {"first": first} if names.further else {"lacks": lacks}
                doubts = (*header.doubts, *age.doubts, *converter_doubts(image.path))
                parts.append(replace(planned, doubts=doubts, voxels=math.prod(header.shape), **about))
            except PosepipeError as error:
                parts.append(PlanFailure(image, stage, error, "" if len(self._settings.atlas) == 1 else choice.template.atlas))
        return parts

    def _choices(self, image: InputImage, weeks: float) -> tuple[list[Choice], tuple[str, ...]]:
        """The template at each of the atlases that were asked for, and a line for each atlas without one.

        Raises :class:`~posepipe.errors.PosepipeError` if no atlas has one.
        """
        found: list[Choice] = []
        errors: dict[str, AgeError] = {}
        for atlas in self._settings.atlas:
            try:
                found.append(self._choose(image, weeks, atlas))
            except AgeError as error:
                errors[atlas] = error
        if not found and len(errors) == 1:
            raise next(iter(errors.values()))
        if not found:
            raise AgeError("; ".join(dict.fromkeys(map(str, errors.values()))))
        return found, tuple(f"no pose at the atlas {atlas}: {str(error).split('; ')[0]}" for atlas, error in errors.items())

    def _check_mask(self, image: InputImage) -> None:
        from ..imaging.header import check_header

        if image.path in self._unmasked and self._settings.mask in {"auto", "given"}:
            raise self._unmasked[image.path]
        if self._settings.mask == "given" and image.mask is None:
            msg = (
                f"{image.path}: --mask given, but no brain mask was found for it; point -d at the derivative dataset "
                "that holds its desc-brain_mask"
            )
            raise MaskError(msg)
        if image.mask is not None and planned_mask(image, self._settings.mask) == "given":
            check_header(image.mask)

    def _timing(self, image: InputImage) -> dict[str, Any]:
        """The slice timing fields of the image's sidecar."""
        known = self._metadata.of(image)
        return {key: known[key] for key in SLICE_KEYS if key in known}

    def _image_plan(self, image: InputImage, age: Age, timing: dict[str, Any] | None, choice: Choice, names: OutputNames) -> ImagePlan:
        from ..atlas import label_maps
        from ..bids import parameters_hash
        from ..interfaces.on_request import label_request, no_labels

        s = self._settings
        contrast, template = self._contrast(image), choice.template
        converted = converts(contrast, template.contrast, s.convert)
        if not converted and contrast != template.contrast:
            timing = None  # slices are compared with a template of their own contrast alone
        volumes = self._volumes(template, contrast)
        names.check_length()
        try:
            parameters = parameters_of(
                networks=self._networks(image, converted, timing), weights_dir=s.weights, templates=[template],
                settings=self._hashed_settings(image, age, contrast, volumes, converted, timing), files=self._files,
            )  # fmt: skip
            template_files = {path.name: self._files.of(path) for path in (template.image, template.mask) if path}
            labels = label_maps(template) if s.labels else ()
            request = label_request(labels, self._files.of)
            digest = parameters_hash(parameters, image)
            return checked(ImagePlan(
                image, names, age, choice, contrast, self._sources(image), parameters, digest, False, template_files, converted, timing,
                volumes, formats=s.xfm_formats, labels=labels, label_request=request,
                notes=(no_labels(template.space),) if s.labels and not labels else (), level=s.level,
            ))  # fmt: skip
        except OSError as error:
            msg = f"{error.filename or image.path}: cannot be read ({error.strerror})"
            raise ImageError(msg) from error

    def _choose(self, image: InputImage, weeks: float, atlas: str) -> Choice:
        """The template of ``image`` at one of the atlases that were asked for."""
        from ..atlas import choose_template

        contrast = self._contrast(image)
        beside_t1w = atlas == AUTO and self._is_beside_t1w(image, weeks)
        choice = choose_template(
            self._library, age=weeks, contrast=contrast, atlas=atlas, age_policy=self._settings.age_policy,
            stage="neonatal" if beside_t1w else None, onto=template_contrast(contrast, self._settings.convert),
        )  # fmt: skip
        if beside_t1w:
            because = "its session has a T1w image too, which is taken as a preterm newborn's"
            choice = replace(choice, reason=f"{choice.reason} ({because})")
        return choice

    def _contrast(self, image: InputImage) -> str:
        return image.suffix if self._settings.contrast == "auto" else self._settings.contrast

    def _volumes(self, template: Template, contrast: str) -> VolumeRange:
        """The sizes of brains at the atlas, or at all candidates with ``--atlas auto``."""
        from ..atlas import VolumeRange, end_templates

        atlas = AUTO if self._settings.atlas == (AUTO,) else template.atlas
        if (contrast, atlas) not in self._ends:
            self._ends[contrast, atlas] = end_templates(self._library, contrast=contrast, atlas=atlas)
        return VolumeRange.of(template, self._ends[contrast, atlas])

    def _networks(self, image: InputImage, converted: bool, timing: dict[str, Any] | None) -> tuple[str, ...]:
        """Names of the networks that the image is processed with."""
        from ..models.weights import CONTRAST_NETWORK, PAPER_NETWORKS, POSE_NETWORKS, SCAN_NETWORKS, SLICE_NETWORK

        return (
            *POSE_NETWORKS,
            *(SCAN_NETWORKS if uses_mask_network(image, self._settings.mask) else ()),
            *(PAPER_NETWORKS if self._settings.init == "posenet" else ()),
            *((CONTRAST_NETWORK,) if converted else ()),
            *(() if timing is None else (SLICE_NETWORK,)),
        )

    def _hashed_settings(
        self, image: InputImage, age: Age, contrast: str, volumes: VolumeRange, converted: bool, timing: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Settings of the image that its outputs depend on: where one changes, the image is processed again."""
        from ..bids.converted import converter_doubts

        beside = converter_doubts(image.path)
        return {
            "volumes": [round(volumes.smallest, 1), round(volumes.largest, 1)],
            "age": age.weeks,
            # a known age gives another hash than an estimated one of the same weeks
            **({} if age.error is None else {"age_error": age.error}),
            **({"age_doubts": age.doubts} if age.doubts else {}),
            **({"converter_doubts": beside} if beside else {}),
            "contrast": contrast,
            **({"converted": True} if converted else {}),
            **({} if timing is None else {"slices": timing}),
            **{name: getattr(self._settings, name) for name in ("mask", "init", "refine", "random_seed")},
        }

    def _is_beside_t1w(self, image: InputImage, weeks: float) -> bool:
        """Whether a T2w image at the age of fetuses or preterm newborns has a T1w image in its folder; both are then aligned to the same
        atlas. All files of the folder are considered, so that the template does not depend on the selection of images."""
        from ..atlas.choose import PRETERM_WEEKS

        folder = image.path.parent
        if folder not in self._with_t1w:
            self._with_t1w[folder] = any(folder.glob("*_T1w.nii*"))
        return image.suffix == "T2w" and PRETERM_WEEKS[0] <= weeks <= PRETERM_WEEKS[1] and self._with_t1w[folder]

    def _sources(self, image: InputImage) -> tuple[str, ...]:
        if image.mask is None or planned_mask(image, self._settings.mask) != "given":
            return (image.source_uri,)
        for name, folder in self._derivatives.items():
            if image.mask.is_relative_to(folder):
                return (image.source_uri, f"bids:{name}:{image.mask.relative_to(folder).as_posix()}")
        return (image.source_uri, image.mask.as_uri())


def describe(plan: Plan, settings: Settings) -> Iterator[str]:
    """The plan as lines of text: for each image its age, template, mask and outputs."""
    for session in plan.sessions:
        yield session.label
        for image in session.images:
            at = f" at {image.space}" if len(settings.atlas) > 1 else ""
            yield f"  {image.image.relative}{at}" + (" (done: nothing to do)" if image.done else "")
            give_or_take = "" if image.age.error is None else f" ± {image.age.error:.1f}"
            yield f"    age       {image.age.weeks:.2f}{give_or_take} weeks ({image.age.source})"
            yield f"    template  {image.choice.reason} ({image.choice.contrast})"
            if image.converted:
                yield f"    contrast  {image.contrast}, converted to T2-like by network"
            yield f"    mask      {_mask(image.image, settings.mask)}"
            if image.timing is not None:
                order = "as SliceTiming has it" if "SliceTiming" in image.timing else "guessed"
                yield f"    slices    a pose of each; order of acquisition {order}"
            if image.alone_hash:
                yield f"    session   one pose with the other images at {image.space} between which the head lay still"
            if image.reuse:
                yield f"    reuse     {image.reuse}"
            yield f"    outputs   {image.names.folder}{'/'}"
            yield from (f"              {path.name}" for path in image.files)
            yield from (f"    warning   {warning}" for warning in image.warnings)
            yield from (f"    review    {doubt}" for doubt in image.doubts)
        for failure in session.failures:
            yield f"  {failure.image.relative}"
            at = f" at {failure.atlas}" if failure.atlas else ""
            yield f"    CANNOT BE PROCESSED ({failure.stage}{at}): {failure.error}"
    if plan.left_out:
        yield f"left out, {len(plan.left_out)} files that look like images:"
        yield from (f"  {line}" for line in plan.left_out)
    yield from (f"LACKING: {line}" for line in plan.lacking)
    pending, failed = len(plan.pending), len(plan.failures)
    done = sum(image.done for image in plan.images)
    taken = sum(image.earlier is not None for image in plan.pending)
    yield f"{pending} to do, {done} done already, {failed} that cannot be processed" + (
        f"; {taken} of those to do are taken from an earlier run" if taken else ""
    )


def _mask(image: InputImage, mode: str) -> str:
    return {
        "given": f"given: {image.mask}",
        "nonzero": "the image's nonzero voxels (its background must be exactly 0)",
        "network": "network: found in the image",
        "auto": "the image's nonzero voxels if it is brain-extracted, else network: found in the image",
    }[planned_mask(image, mode)]
