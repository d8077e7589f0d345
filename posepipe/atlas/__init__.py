"""The atlas registry: manifests → files on this machine, age → cohort, each template's rotation to the canonical frame.

Only :func:`fetch` downloads, and the import has no side effects.
"""

from __future__ import annotations

from .add import add, add_folder
from .candidates import CohortSeries, candidates, end_templates
from .choose import Choice, choose_template
from .fetch import fetch
from .labels import LabelMap, label_maps
from .library import AtlasLibrary, AtlasStatus, Template
from .manifest import CanonicalRotation, Cohort, Manifest, SourceFile, load_canonical, load_manifests
from .volumes import GrowthCurve, VolumeRange

__all__ = [
    "AtlasLibrary",
    "AtlasStatus",
    "CanonicalRotation",
    "Choice",
    "Cohort",
    "CohortSeries",
    "GrowthCurve",
    "LabelMap",
    "Manifest",
    "SourceFile",
    "Template",
    "VolumeRange",
    "add",
    "add_folder",
    "candidates",
    "choose_template",
    "end_templates",
    "fetch",
    "label_maps",
    "load_canonical",
    "load_manifests",
]
