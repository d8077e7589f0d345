"""What the inputs of all interfaces share."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, traits

from .._version import __version__


class VersionedInputSpec(BaseInterfaceInputSpec):
    """Inputs that Nipype's cache tells apart by the version of posepipe too: what an older one left in the work folder is made again."""

    version = traits.Str(__version__, usedefault=True, desc="version of posepipe that computes this")
