"""Planned images whose files hold nothing."""

from __future__ import annotations

from pathlib import Path

from posepipe.atlas import Choice, Template
from posepipe.bids import Age, InputImage, OutputNames
from posepipe.plan import ImagePlan


def make_image(
    tmp_path: Path, name: str, *, suffix: str = "T2w", done: bool = False, masked: bool = False
) -> ImagePlan:
    """A planned image; its files are there, but hold nothing."""
    files = {key: tmp_path / f"{key}.nii.gz" for key in ("image", "template", "mask")}
    for path in files.values():
        path.touch()
    entities = {"sub": name}
    relative = Path(f"sub-{name}/anat/sub-{name}_{suffix}.nii.gz")
    path = tmp_path / "bids" / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    image = InputImage(path, relative, entities, suffix, files["mask"] if masked else None)
    template = Template("CRL", "29", 29.0, "T2w", files["template"], files["mask"])
    names = OutputNames(tmp_path / "out", image, ("CRL", "29"))
    choice = Choice(template, "T2w", "CRL+29: near")
    return ImagePlan(image, names, Age(29.1, "--age"), choice, suffix, (image.source_uri,), {}, "hash", done)
