"""The template as inputs of nodes: conversion to and from traits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import File, Undefined, isdefined, traits

from .base import DigestInputSpec

if TYPE_CHECKING:
    from ..atlas import Template
    from ..matching.target import Target


class TemplateInputSpec(DigestInputSpec):
    """Inputs of every interface that needs the template."""

    template = File(exists=True, mandatory=True, desc="image of the template")
    template_mask = File(exists=True, desc="its brain mask, on the same grid")
    atlas = traits.Str(mandatory=True, desc="name of the atlas")
    cohort = traits.Str(mandatory=True, desc="label of its cohort")
    template_age = traits.Float(mandatory=True, desc="age of the cohort, weeks")
    template_contrast = traits.Enum("T2w", "T1w", usedefault=True, desc="contrast of the template's image")
    to_canonical = traits.List(
        traits.Float, minlen=9, maxlen=9, desc="rotation of the template to the canonical frame (3, 3), by rows"
    )
    torch_threads = traits.Range(
        low=1, value=1, usedefault=True, nohash=True,
        desc="threads of torch; on a busy machine two are much slower than one, as they wait for each other",
    )  # fmt: skip


def template_inputs(template: Template) -> dict[str, Any]:
    """Values for the traits of :class:`TemplateInputSpec`."""
    values: dict[str, Any] = {
        "template": str(template.image),
        "atlas": template.atlas,
        "cohort": template.cohort,
        "template_age": float(template.age),
        "template_contrast": template.contrast,
    }
    if template.mask is not None:
        values["template_mask"] = str(template.mask)
    if template.to_canonical is not None:
        values["to_canonical"] = [float(v) for v in template.to_canonical.ravel()]
    return values


def template_of(inputs: Any) -> Template:
    """The template that the traits of an interface describe."""
    import numpy as np

    from ..atlas import Template

    canonical = np.reshape(inputs.to_canonical, (3, 3)) if len(inputs.to_canonical or ()) == 9 else None
    mask = Path(inputs.template_mask) if isdefined(inputs.template_mask) else None
    return Template(
        atlas=inputs.atlas,
        cohort=inputs.cohort,
        age=inputs.template_age,
        contrast=inputs.template_contrast,
        image=Path(inputs.template),
        mask=mask,
        to_canonical=canonical,
    )


def target_of(inputs: Any, device: str = "cpu") -> Target:
    """The prepared template; also sets torch's number of threads.

    Cached in memory, so that the stages of an image and images of the same age share it.
    """
    import torch

    torch.set_num_threads(inputs.torch_threads)
    template = template_of(inputs)
    changed = template.image.stat().st_mtime_ns
    return _target(template, changed, device)


def millilitres_of(values: Mapping[str, Any]) -> float:
    """Volume (ml) of the brain mask of the template with these ``values`` (:func:`template_inputs`)."""
    missing = {"template_mask": Undefined, "to_canonical": (), "torch_threads": 1}
    return target_of(SimpleNamespace(**(missing | dict(values)))).millilitres


@lru_cache(maxsize=2)
def _target(template: Template, _changed: int, device: str) -> Target:
    from ..matching.target import Target

    return Target.load(template, device=device)
