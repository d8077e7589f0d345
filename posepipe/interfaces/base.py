"""What the inputs of all interfaces share."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, traits

from .._version import __version__


class DigestInputSpec(BaseInterfaceInputSpec):
    """Inputs that Nipype's cache tells apart by the digest of all that the image's result depends on too: what is not of this digest in the
    work folder is made again. A workflow gives all its nodes the one that the image is recorded as done with."""

    digest = traits.Str(
        f"posepipe {__version__}", usedefault=True,
        desc="digest of all that makes the result out of date: version, weights, template, settings, contents of the image and its mask",
    )  # fmt: skip
