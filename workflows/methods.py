"""Sentences and references for a paper's methods section, selected by the methods that ran."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posepipe.atlas import load_manifests
from posepipe.bids.names import LEVEL_KEY
from posepipe.interfaces.sidecars import software_versions
from posepipe.plan import ImagePlan, planned_mask
from posepipe.references import Reference
from posepipe.settings import BY_SLICES, FULL, HEADER, TRANSFORMS, WHOLE, Settings

from .citation import Citation, by_keys

_AGE = (
    "Their ages were not recorded, and were estimated from the size of the brain and its similarity to the cohorts of atlases. "
)
_CONVERSION = (
    "For the alignment alone they were converted to T2-like contrast by the generator of a conditional adversarial network (pix2pix "
    "[@isola2017]; for this use [@salehi2019]), slice by slice along three axes and averaged; these synthetic images were used for "
    "nothing else. "
)
_MASKS = {
    "given": "Brain masks that came with the images were used.",
    "nonzero": "The images were brain-extracted; their nonzero voxels were used as the brain mask.",
    "network": "The brain was masked by three convolutional networks: the first localises it in the whole image, the second estimates its "
    "pose from crops, and the third segments it. They were trained on synthetic images of random contrast and surroundings (the idea of "
    "SynthStrip [@hoopes2022]).",
    "auto": "In brain-extracted images the nonzero voxels were used as the brain mask; in others the brain was masked by three "
    "convolutional networks, trained on synthetic images of random contrast and surroundings (the idea of SynthStrip [@hoopes2022]).",
}
_INIT = {
    "deep": "The pose was predicted by convolutional networks that find the canonical coordinates of each voxel, solved by weighted "
    "Procrustes",
    "posenet": "The pose was predicted by a convolutional network that regresses the rotation vector of the brain, and corrected "
    "by a second one that compares the brain with the template (Pose-Net and Correction-Net of [@salehi2019])",
    "search": "The pose was found by a search over all rotations, scored by the similarity of image and template "
    "inside both masks; the best candidates were refined by Gauss–Newton optimisation",
    "axes": "The pose was started from the principal axes of the brain mask, of whose four proper sign choices the "
    "one with the best similarity was kept",
    "center": "The pose was started from the centre of the brain mask, without rotation",
}
_REFINE = {
    "ants": "and refined by multi-resolution rigid registration in ANTs [@avants2011] inside the masks.",
    "torch": "and refined by maximising the similarity over rigid transforms, from coarse to fine, in PyTorch.",
    "none": "and was not refined further.",
    BY_SLICES: "and replaced by the mean of the poses of the single slices, at which the slices fit the template better.",
}
_SLICES = (
    "The pose of each slice was proposed by a convolutional network that predicts the canonical coordinates of each pixel. A single "
    "slice does not determine the pose up to a mirror image; neighbouring slices resolved this ambiguity. All slices were then "
    "registered to the template together, by normalised cross-correlation with a penalty on motion between slices "
    "acquired one after the other. "
)
_CSF = "For the refinement the extra-axial CSF of the template was excluded, as the similarity was clearly higher without it. "
_TOGETHER = (
    "Where the head had lain still between images of one session, they were given one pose, by maximising the sum of their correlation "
    "ratios and, at the end, of their mutual information. "
)
_WRITTEN = {
    FULL: "Images were resampled once, onto the grid of the template, by cubic interpolation; the same pose was also "
    "written into the header of the image as it was scanned.",
    HEADER: "The pose was written into the header of the image as it was scanned; no image was interpolated.",
    TRANSFORMS: "The pose was written as a transform; no image was interpolated.",
}


@dataclass(frozen=True)
class Methods:
    """The methods applied to an image, as the values of its sidecars; ``weights`` are pairs of name and SHA-256."""

    contrast: str
    atlas: str
    template_contrast: str
    mask: str
    init: str
    refine: str
    weights: tuple[tuple[str, str], ...] = ()
    age_estimated: bool = False
    converted: bool = False
    without_csf: bool = False
    slices: bool = False
    together: bool = False
    level: str = FULL

    @classmethod
    def planned(cls, plan: ImagePlan, settings: Settings) -> Methods:
        """The methods of the plan of an image."""
        template = plan.choice.template
        mask = planned_mask(plan.image, settings.mask)
        init = "deep" if settings.init == "auto" else settings.init
        guessed = plan.age.error is not None
        return cls(
            plan.contrast, template.atlas, template.contrast, mask, init, settings.refine,
            age_estimated=guessed, converted=plan.converted, slices=plan.timing is not None, together=bool(plan.alone_hash),
            level=settings.level,
        )  # fmt: skip

    @classmethod
    def ran(cls, sidecar: Mapping[str, Any], resampled: Mapping[str, Any]) -> Methods:
        """The methods recorded in the sidecars of the forward transform and of the resampled image."""
        weights = sidecar.get("Weights")
        return cls(
            contrast=str(sidecar.get("Contrast", "")),
            atlas=str(sidecar.get("Atlas", "")),
            template_contrast=str(resampled.get("TemplateContrast", "")),
            mask=str(sidecar.get("Mask", "")),
            init=str(sidecar.get("InitMethod", "")),
            refine=str(sidecar.get("RefineMethod", "")),
            weights=tuple(sorted((str(k), str(v)) for k, v in weights.items())) if isinstance(weights, Mapping) else (),
            age_estimated=sidecar.get("AgeStandardError") is not None,
            converted=bool(sidecar.get("ContrastConversion")),
            without_csf=sidecar.get("RefineTemplate", WHOLE) != WHOLE,
            slices=bool(sidecar.get("Slices")),
            together=bool(sidecar.get("SessionPose")),
            level=str(sidecar.get(LEVEL_KEY, FULL)),
        )


_LIBRARIES = {
    "numpy": "NumPy {} [@harris2020]",
    "scipy": "SciPy {} [@virtanen2020]",
    "nibabel": "NiBabel {} [@brett2024]",
    "nitransforms": "NiTransforms {} [@goncalves2021]",
    "torch": "PyTorch {} [@paszke2019]",
    "antspyx": "ANTs by ANTsPy {} [@avants2011]",
}
"""Package, as :func:`~posepipe.interfaces.sidecars.software_versions` names it → what the text calls it."""


def intro(versions: Iterable[Mapping[str, Any]] = ()) -> tuple[str, tuple[Reference, ...]]:
    """Opening sentences and their references; ``versions`` are the ``SoftwareVersions`` of the images, by default those of this process."""
    found = _versions_of(versions)
    text = (
        f"Images were put into the standard space of an age-matched atlas with *posepipe* {found('posepipe')}, a BIDS App "
        f"[@gorgolewski2016] which builds on *Nipype* {found('nipype')} [@gorgolewski2011] and takes up the image-to-template pose "
        "estimation of Salehi et al. [@salehi2019]."
    )
    return _with_references(text)


def libraries(versions: Iterable[Mapping[str, Any]] = (), *, ants: bool) -> tuple[str, tuple[Reference, ...]]:
    """The sentence on the libraries that computed the results, with ANTs if it refined any pose; ``versions`` as for :func:`intro`."""
    found = _versions_of(versions)
    named = [text.format(found(name)) for name, text in _LIBRARIES.items() if name != "antspyx" or ants]
    return _with_references(f"Software: {', '.join(named[:-1])} and {named[-1]}.")


def _versions_of(versions: Iterable[Mapping[str, Any]]) -> Callable[[str], str]:
    """Name of a package → its versions in words."""
    known = list(versions) or [software_versions()]
    return lambda name: " and ".join(dict.fromkeys(str(one.get(name, "of unknown version")) for one in known))


def _with_references(text: str, *more: Reference) -> tuple[str, tuple[Reference, ...]]:
    return text, (*by_keys(text), *more)


def image_methods(methods: Methods) -> tuple[str, tuple[Reference, ...]]:
    """The sentences on the processing of one image, and their references. Equal methods give equal sentences."""
    manifest = load_manifests().get(methods.atlas)
    title = f"{manifest.title} ({methods.atlas}) [@{manifest.reference.key}]" if manifest else methods.atlas
    mask = _MASKS.get(methods.mask, f"Brain masks came from the source {methods.mask!r}.")
    init = _INIT.get(methods.init, f"The pose was found by the method {methods.init!r}")
    refine = _REFINE.get(methods.refine, f"and refined by the method {methods.refine!r}.")
    weights = ", ".join(f"{name} (SHA-256 {digest[:12]}…)" for name, digest in methods.weights)
    text = (
        f"{methods.contrast} images were aligned to the cohort nearest in age of the atlas {title}, to its "
        f"{methods.template_contrast} template. {_AGE if methods.age_estimated else ''}{mask} "
        f"{_CONVERSION if methods.converted else ''}{init}, {refine} "
        + (_CSF if methods.without_csf else "")
        + (_SLICES if methods.slices else "")
        + (_TOGETHER if methods.together else "")
        + (f"Weights of the networks: {weights}. " if weights else "")
        + _WRITTEN.get(methods.level, _WRITTEN[FULL])
    )
    return _with_references(text, *((manifest.reference,) if manifest else ()))


def citation_of(methods: Iterable[Methods], versions: Iterable[Mapping[str, Any]], cohorts: Iterable[tuple[str, str]] = ()) -> Citation:
    """The methods text for several images that were processed with these ``SoftwareVersions``, at these pairs of atlas and cohort."""
    versions = list(versions)
    ran = list(dict.fromkeys(methods))
    parts = [intro(versions), *(image_methods(one) for one in ran), (_cohorts(cohorts), ())]
    parts.append(libraries(versions, ants=any(one.refine == "ants" for one in ran)))
    return Citation.of(parts)


def _cohorts(pairs: Iterable[tuple[str, str]]) -> str:
    """The cohorts that images were aligned to, in a sentence; empty if there are none."""
    by_atlas: dict[str, set[str]] = {}
    for atlas, cohort in pairs:
        by_atlas.setdefault(atlas, set()).add(cohort)
    named = [f"{atlas} {', '.join(sorted(labels, key=lambda c: (len(c), c)))}" for atlas, labels in sorted(by_atlas.items())]
    return f"Cohorts that images were aligned to: {'; '.join(named)}." if named else ""
