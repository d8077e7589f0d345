"""Sentences and references for a paper's methods section, selected by the methods that ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from posepipe._version import __version__
from posepipe.atlas import load_manifests
from posepipe.plan import ImagePlan, planned_mask
from posepipe.settings import BY_SLICES, WHOLE, Settings

SALEHI = (
    "Salehi SSM, Khan S, Erdogmus D, Gholipour A. Real-time deep pose estimation with geodesic loss for "
    "image-to-template rigid registration. IEEE Transactions on Medical Imaging 38(2):470-481, 2019. "
    "doi:10.1109/TMI.2018.2866442"
)
ANTS = (
    "Avants BB, Tustison NJ, Song G, Cook PA, Klein A, Gee JC. A reproducible evaluation of ANTs similarity metric "
    "performance in brain image registration. NeuroImage 54(3):2033-2044, 2011. doi:10.1016/j.neuroimage.2010.09.025"
)
NIPYPE = (
    "Gorgolewski K, Burns CD, Madison C, Clark D, Halchenko YO, Waskom ML, Ghosh SS. Nipype: a flexible, lightweight "
    "and extensible neuroimaging data processing framework in Python. Frontiers in Neuroinformatics 5:13, 2011. "
    "doi:10.3389/fninf.2011.00013"
)
PIX2PIX = (
    "Isola P, Zhu JY, Zhou T, Efros AA. Image-to-image translation with conditional adversarial networks. IEEE Conference on Computer "
    "Vision and Pattern Recognition, 5967-5976, 2017. doi:10.1109/CVPR.2017.632"
)
SYNTHSTRIP = (
    "Hoopes A, Mora JS, Dalca AV, Fischl B, Hoffmann M. SynthStrip: skull-stripping for any brain image. NeuroImage 260:119474, 2022. "
    "doi:10.1016/j.neuroimage.2022.119474"
)

_AGE = (
    "Their ages were not recorded, and were estimated from the size of the brain and its similarity to the cohorts of atlases. "
)
_CONVERSION = (
    "For the alignment alone they were converted to T2-like contrast by the generator of a conditional adversarial network (pix2pix, Isola "
    "et al. 2017; for this use Salehi et al. 2019), slice by slice along three axes and averaged; these synthetic images were used for "
    "nothing else. "
)
_MASKS = {
    "given": "Brain masks that came with the images were used.",
    "nonzero": "The images were brain-extracted; their nonzero voxels were used as the brain mask.",
    "network": "The brain was masked by three convolutional networks: the first localises it in the whole image, the second estimates its "
    "pose from crops, and the third segments it. They were trained on synthetic images of random contrast and surroundings (the idea of "
    "SynthStrip, Hoopes et al. 2022).",
    "auto": "In brain-extracted images the nonzero voxels were used as the brain mask; in others the brain was masked by three "
    "convolutional networks, trained on synthetic images of random contrast and surroundings (the idea of SynthStrip, Hoopes et al. 2022).",
}
_INIT = {
    "deep": "The pose was predicted by convolutional networks that find the canonical coordinates of each voxel, solved by weighted "
    "Procrustes",
    "posenet": "The pose was predicted by a convolutional network that regresses the rotation vector of the brain, and corrected "
    "by a second one that compares the brain with the template (Pose-Net and Correction-Net of Salehi et al. 2019)",
    "search": "The pose was found by a search over all rotations, scored by the similarity of image and template "
    "inside both masks; the best candidates were refined by Gauss–Newton optimisation",
    "axes": "The pose was started from the principal axes of the brain mask, of whose four proper sign choices the "
    "one with the best similarity was kept",
    "center": "The pose was started from the centre of the brain mask, without rotation",
}
_REFINE = {
    "ants": "and refined by multi-resolution rigid registration in ANTs (Avants et al. 2011) inside the masks.",
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

    @classmethod
    def planned(cls, plan: ImagePlan, settings: Settings) -> Methods:
        """The methods of the plan of an image."""
        template = plan.choice.template
        mask = planned_mask(plan.image, settings.mask)
        init = "deep" if settings.init == "auto" else settings.init
        guessed = plan.age.error is not None
        return cls(
            plan.contrast, template.atlas, template.contrast, mask, init, settings.refine,
            age_estimated=guessed, converted=plan.converted, slices=plan.timing is not None,
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
        )


def intro(version: str = __version__) -> tuple[str, tuple[str, ...]]:
    """Opening sentences and their references; ``version`` is posepipe's at the time of the run."""
    text = (
        f"Images were put into the standard space of an age-matched atlas with *posepipe* {version}, which builds "
        "on *Nipype* (Gorgolewski et al. 2011) and takes up the image-to-template pose estimation of Salehi et al. "
        "(2019)."
    )
    return text, (SALEHI, NIPYPE)


def image_methods(methods: Methods) -> tuple[str, tuple[str, ...]]:
    """The sentences on the processing of one image, and their references. Equal methods give equal sentences."""
    manifest = load_manifests().get(methods.atlas)
    title = f"{manifest.title} ({methods.atlas})" if manifest else methods.atlas
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
        + (f"Weights of the networks: {weights}. " if weights else "")
        + "Images were resampled once, onto the grid of the template, by cubic interpolation; the same pose was also "
        "written into the header of the image as it was scanned."
    )
    citation = (f"Atlas {methods.atlas}: {manifest.citation}",) if manifest and manifest.citation else ()
    networks = (SYNTHSTRIP,) if methods.mask in {"network", "auto"} else ()
    return text, (*networks, *((PIX2PIX,) if methods.converted else ()), *((ANTS,) if methods.refine == "ants" else ()), *citation)


def citation(paragraphs: Iterable[str], references: Iterable[str]) -> str:
    """``CITATION.md``: a methods text and its references, each once."""
    text = "\n\n".join(dict.fromkeys(paragraphs))
    listed = "\n".join(f"- {reference}" for reference in dict.fromkeys(references))
    return f"# Methods\n\n{text}\n\n# References\n\n{listed}\n"


def citation_of(methods: Iterable[Methods], versions: Iterable[str]) -> str:
    """The methods text for several images that were processed with these ``versions`` of posepipe."""
    opening = intro(" and ".join(dict.fromkeys(versions)) or __version__)
    parts = [opening, *(image_methods(one) for one in dict.fromkeys(methods))]
    return citation((text for text, _ in parts), (reference for _, cited in parts for reference in cited))
