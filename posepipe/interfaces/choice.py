"""The template of an image, chosen while a workflow runs: age, contrast, atlas, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from ..settings import AGE_POLICIES, CONTRAST_CHOICES, CONVERT_CHOICES, ESTIMATE, ESTIMATED, SLICES_CHOICES
from .base import DigestInputSpec
from .records import weights_folder
from .template import template_inputs

if TYPE_CHECKING:
    from ..age.curves import AgeEstimate
    from ..atlas import AtlasLibrary, Choice

GIVEN = "given"
"""``AgeSource`` of an age that another node or the user gave a workflow."""


class _ChooseTemplateInputSpec(DigestInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image")
    in_mask = File(exists=True, mandatory=True, desc="its brain mask, from which an age is estimated")
    given_mask = File(exists=True, desc="a brain mask made elsewhere, for the sidecar")
    age = traits.Either(
        traits.Float, traits.Str, mandatory=True, desc="weeks since the last menstrual period: 29.4, '29+3', or 'estimate'"
    )
    contrast = traits.Enum(*CONTRAST_CHOICES, usedefault=True, desc="contrast of the image; auto: by its name, else T2w")
    atlas = traits.Str("auto", usedefault=True, desc="name of an atlas, or auto")
    atlas_dirs = traits.List(traits.Str, usedefault=True, desc="folders of atlases, looked in first")
    age_policy = traits.Enum(*AGE_POLICIES, usedefault=True, desc="what to do with an age that the atlas does not cover")
    convert = traits.Enum(*CONVERT_CHOICES, usedefault=True, desc="whether a T1w image is converted to T2-like contrast")
    slices = traits.Enum(*SLICES_CHOICES, usedefault=True, desc="whether each slice gets a pose of its own")
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True, desc="what torch computes on")
    torch_threads = traits.Range(low=1, value=1, usedefault=True, nohash=True, desc="threads of torch")


class _ChooseTemplateOutputSpec(TraitedSpec):
    template = File(exists=True, desc="image of the template")
    template_mask = File(exists=True, desc="its brain mask, where it has one")
    atlas = traits.Str(desc="name of the atlas")
    cohort = traits.Str(desc="label of its cohort")
    space = traits.Str(desc="name of the template's space: CRL+29")
    template_age = traits.Float(desc="age of the cohort, weeks")
    template_contrast = traits.Str(desc="contrast of the template")
    to_canonical = traits.List(traits.Float, desc="rotation of the template to the canonical frame (3, 3), by rows")
    age = traits.Float(desc="age of the brain, weeks")
    estimated = traits.Bool(desc="whether it was estimated")
    contrast = traits.Str(desc="contrast of the image: T2w or T1w")
    converted = traits.Bool(desc="whether the image is converted to T2-like contrast for the alignment")
    by_slices = traits.Bool(desc="whether each slice gets a pose of its own")
    volumes = traits.Dict(desc="volumes of brains in the atlases at hand, for the verdict")
    doubts = traits.List(traits.Str, desc="problems with the age or the conversion from DICOM that lead to the verdict review")
    known = traits.Dict(desc="values for the sidecars")


class ChooseTemplate(SimpleInterface):
    """Choose the template of an image by its age and contrast, as :class:`~posepipe.aligner.Aligner` does.

    Raises a :class:`~posepipe.errors.PosepipeError` for an age that is none or that no atlas covers, and for an atlas that is not here.
    """

    input_spec = _ChooseTemplateInputSpec
    output_spec = _ChooseTemplateOutputSpec
    # atlases are added to folders and removed from them, which no input tells
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        from ..aligner import contrast_of
        from ..atlas import AtlasLibrary, VolumeRange, choose_template, end_templates
        from ..bids.converted import converter_doubts
        from ..imaging.volume import load_volume
        from ..plan import converts, template_contrast, wants_slices

        i = self.inputs
        library = AtlasLibrary.default([Path(folder) for folder in i.atlas_dirs])
        # an input node that was given none leaves it undefined
        contrast = i.contrast if isdefined(i.contrast) and i.contrast != "auto" else contrast_of(i.in_file)
        estimate, weeks = self._age(library, contrast)
        choice = choose_template(
            library, age=weeks, contrast=contrast, atlas=i.atlas, age_policy=i.age_policy, onto=template_contrast(contrast, i.convert)
        )
        converted = converts(contrast, choice.contrast, i.convert)
        spacing = [float(step) for step in load_volume(i.in_file).spacing]
        volumes = VolumeRange.of(choice.template, end_templates(library, contrast=contrast, atlas=i.atlas))
        self._results = {
            **template_inputs(choice.template),
            "space": choice.template.space,
            "age": weeks,
            "estimated": estimate is not None,
            "contrast": contrast,
            "converted": converted,
            "by_slices": (converted or contrast == choice.contrast) and wants_slices(spacing, i.slices),
            "volumes": vars(volumes),
            "doubts": [*([estimate.doubt] if estimate and estimate.doubt else []), *converter_doubts(Path(i.in_file))],
            "known": self._known(choice, contrast, weeks, estimate),
        }
        return runtime

    def _age(self, library: AtlasLibrary, contrast: str) -> tuple[AgeEstimate | None, float]:
        """The estimate, if one was asked for, and the age in weeks."""
        from ..bids import parse_age
        from ..errors import AgeError

        i = self.inputs
        if i.age == ESTIMATE:
            estimate = self._estimate(library, contrast)
            return estimate, estimate.weeks
        parsed = parse_age(str(i.age))
        if parsed is None:
            msg = f"{i.in_file}: its age {i.age!r} is no number of weeks; give 29.4, 29+3 (weeks and days) or {ESTIMATE!r}"
            raise AgeError(msg)
        return None, parsed[0]

    def _estimate(self, library: AtlasLibrary, contrast: str) -> AgeEstimate:
        import torch

        from ..age.estimator import AgeEstimator
        from ..atlas import candidates
        from ..imaging.inside import load_mask
        from ..imaging.volume import load_volume
        from ..models.device import pick_device
        from ..pose.coordinate_networks import PoseNetworks

        i, device = self.inputs, pick_device(self.inputs.device)
        torch.set_num_threads(i.torch_threads)
        series = candidates(library, contrast=contrast, atlas=i.atlas)
        estimator = AgeEstimator(series, PoseNetworks(weights_folder(i), device=device), device=device)
        return estimator.estimate(load_volume(i.in_file), load_mask(i.in_mask))

    def _known(self, choice: Choice, contrast: str, weeks: float, estimate: AgeEstimate | None) -> dict[str, Any]:
        """What the sidecars tell of the image and its template."""
        from ..atlas.sidecars import file_sha256

        template = choice.template
        files = [path for path in (template.image, template.mask) if path]
        given = [self.inputs.given_mask] if isdefined(self.inputs.given_mask) else []
        return {
            "Sources": [self.inputs.in_file, *given],
            "Age": weeks,
            "AgeSource": GIVEN if estimate is None else ESTIMATED,
            **({} if estimate is None else {"AgeStandardError": estimate.error}),
            "Atlas": template.atlas,
            "Cohort": template.cohort,
            "Contrast": contrast,
            "TemplateContrast": template.contrast,
            "TemplateChoice": choice.reason,
            "TemplateFiles": {path.name: file_sha256(path) for path in files},
            "Warnings": [*(estimate.warnings if estimate else ()), *choice.warnings],
        }
