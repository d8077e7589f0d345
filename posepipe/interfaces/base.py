"""Inputs common to all interfaces."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, traits

from .._version import __version__


class DigestInputSpec(BaseInterfaceInputSpec):
    """Inputs with a digest of all that the image's result depends on, so that Nipype's cache in the work folder is invalidated when it
    changes. A workflow sets the digest of all its nodes to the ``ParametersHash`` of the image."""

    digest = traits.Str(
        f"posepipe {__version__}", usedefault=True,
        desc="digest of all that makes the result out of date: version, weights, template, settings, contents of the image and its mask",
    )  # fmt: skip
