"""Sentences and references for a paper, chosen by what actually runs."""

from __future__ import annotations

from posepipe import __version__
from posepipe.atlas import load_manifests
from posepipe.plan import ImagePlan
from posepipe.settings import Settings

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

_MASKS = {
    "given": "Brain masks that came with the images were used.",
    "nonzero": "The images were brain-extracted; their nonzero voxels were taken for the brain mask.",
}
_INIT = {
    "search": "The pose was found by a search over all rotations, scored by the similarity of image and template "
    "inside both masks; the best candidates were polished by gradient",
    "axes": "The pose was started from the principal axes of the brain mask, of whose four proper sign choices the "
    "one with the best similarity was kept",
    "center": "The pose was started from the centre of the brain mask, without rotation",
}
_REFINE = {
    "ants": "and refined by multi-resolution rigid registration in ANTs (Avants et al. 2011) inside the masks.",
    "torch": "and refined by maximising the similarity over rigid transforms, from coarse to fine, in PyTorch.",
    "none": "and was not refined further.",
}


def intro() -> tuple[str, tuple[str, ...]]:
    """What opens the text, and what it cites."""
    text = (
        f"Images were put into the standard space of an age-matched atlas with *posepipe* {__version__}, which builds "
        "on *Nipype* (Gorgolewski et al. 2011) and takes up the image-to-template pose estimation of Salehi et al. "
        "(2019)."
    )
    return text, (SALEHI, NIPYPE)


def image_methods(plan: ImagePlan, settings: Settings) -> tuple[str, tuple[str, ...]]:
    """What is done to one image, in sentences that are equal where the methods are, and what they cite."""
    template = plan.choice.template
    manifest = load_manifests().get(template.atlas)
    title = f"{manifest.title} ({template.atlas})" if manifest else template.atlas
    mask = "given" if plan.image.mask is not None and settings.mask != "nonzero" else "nonzero"
    init = "search" if settings.init == "auto" else settings.init
    text = (
        f"{plan.contrast} images were aligned to the cohort nearest in age of the atlas {title}, to its "
        f"{template.contrast} template. {_MASKS[mask]} {_INIT[init]}, {_REFINE[settings.refine]} Images were resampled "
        "once, onto the grid of the template, by cubic interpolation; the same pose was also written into the header "
        "of the image as it was scanned."
    )
    citation = (f"Atlas {template.atlas}: {manifest.citation}",) if manifest and manifest.citation else ()
    return text, (*((ANTS,) if settings.refine == "ants" else ()), *citation)
