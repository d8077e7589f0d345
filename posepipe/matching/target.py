"""A template, prepared for alignment."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..atlas.library import cache_home
from ..errors import AtlasError
from ..geometry.so3 import Array
from ..imaging.csf import without_extra_axial_csf
from ..imaging.mask import given_mask, nonzero_mask
from ..imaging.volume import Volume, load_volume
from .brain import Brain
from .channels import FINE_EROSION_MM, Level, outline, texture
from .rotation_bank import RotationBank

if TYPE_CHECKING:
    from ..atlas import Template

SPACING = 1.6
"""Grid spacing (mm) at which brains are compared; the first steps use every second voxel."""
LEAST_BRAIN = 0.5
"""Smallest fraction of a template's mask that must remain after removal of the extra-axial CSF for the result to be used. CRL's fetal
templates keep 0.66–0.77 and CHN's 0.57–0.70. Serag's youngest, whose white matter is as bright as CSF, would keep only 0.16–0.39."""


class Target:
    """A template's image and mask, and the derived data for registration, computed on first use.

    ``volume`` and ``mask`` are on one grid; ``name`` is for messages (``CRL+29``); ``contrast`` is T2w or T1w. ``to_canonical`` (3, 3) is
    the rotation of its RAS world to the canonical frame (:class:`~posepipe.atlas.Template`), if known. The rotation bank, and a canonical
    rotation estimated by the networks, are cached in ``cache_dir`` (None: in memory only). ``notes`` describe problems with its files.
    """

    def __init__(
        self,
        volume: Volume,
        mask: Volume,
        name: str = "template",
        *,
        to_canonical: Array | None = None,
        cache_dir: Path | None = None,
        device: torch.device | str = "cpu",
        contrast: str = "T2w",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.volume, self.mask, self.name, self.to_canonical, self.contrast = volume, mask, name, to_canonical, contrast
        self._cache_dir, self._device, self.notes = cache_dir, device, notes

    @classmethod
    def load(cls, template: Template, *, cache_dir: Path | None = None, device: torch.device | str = "cpu") -> Target:
        """Read a cohort's files; ``cache_dir`` defaults to :func:`default_cache`.

        Raises :class:`~posepipe.errors.AtlasError` if image and mask are on different grids.
        """
        volume = load_volume(template.image)
        if template.mask is None:
            mask = nonzero_mask(volume).volume
        else:
            given = load_volume(template.mask)
            if not given.same_grid(volume, tolerance=0.05):
                msg = f"{template.mask}: this mask is not on the grid of {template.image}; fetch or add the atlas again"
                raise AtlasError(msg)
            mask = given_mask(given, volume).volume
        folder = cache_dir or default_cache()
        lost = ((template.image.name, volume), *([(template.mask.name, given)] if template.mask else []))
        return cls(
            volume, mask, template.space,
            to_canonical=template.to_canonical, cache_dir=folder, device=device, contrast=template.contrast,
            notes=tuple(f"template {name}: {one.not_finite}" for name, one in lost if one.not_finite),
        )  # fmt: skip

    @property
    def cache_dir(self) -> Path | None:
        """Folder of cached data; None: no cache on disk."""
        return self._cache_dir

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the voxels and affines of image and mask; distinguishes templates of the same name."""
        digest = hashlib.sha256()
        for part in (self.volume.data, self.volume.affine, self.mask.data > 0, self.mask.affine):
            digest.update(f"{part.shape} {part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()

    @cached_property
    def brain(self) -> Brain:
        """The template at :data:`SPACING`."""
        return Brain.prepare(self.volume, self.mask, SPACING, self._device)

    @cached_property
    def without_csf(self) -> Target | None:
        """The template with the extra-axial CSF removed from its mask. None if intensities do not separate CSF from brain: T1w templates,
        and young brains with bright white matter (:data:`LEAST_BRAIN`)."""
        if self.contrast != "T2w":
            return None
        mask = without_extra_axial_csf(self.volume, self.mask)
        if mask.data.sum() < LEAST_BRAIN * (self.mask.data > 0).sum():
            return None
        return Target(self.volume, mask, self.name, device=self._device)

    @property
    def millilitres(self) -> float:
        """Volume of its brain mask, ml."""
        return self.brain.moments.millilitres

    @cached_property
    def bank(self) -> RotationBank:
        """The rotation bank, read from the cache or built."""
        return RotationBank.cached(self.brain.coarser(2), self._cache_dir)

    @cached_property
    def coarse_outline(self) -> Level:
        """Outline channel, coarse."""
        return outline(self.brain, 2)

    @cached_property
    def fine_outline(self) -> Level:
        """Outline channel, fine: for mutual information."""
        return outline(self.brain)

    @cached_property
    def coarse_texture(self) -> Level:
        """Texture channel, coarse."""
        return texture(self.brain, 2)

    @cached_property
    def fine_texture(self) -> Level:
        """Texture channel, fine."""
        return texture(self.brain, 1)

    @cached_property
    def last_texture(self) -> Level:
        """Texture channel for the fine stage of a refinement: fine, with less erosion of the mask."""
        return texture(self.brain, 1, FINE_EROSION_MM)

    def log_scale(self, image: Brain) -> float:
        """Logarithm of the template's size over the image's, by the masks' radii."""
        return float(np.log(self.brain.radius / image.radius))


def default_cache() -> Path:
    """Cache folder of rotation banks: ``XDG_CACHE_HOME/posepipe/banks`` (``~/.cache`` by default)."""
    return cache_home() / "posepipe" / "banks"
