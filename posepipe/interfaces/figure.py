"""The pictures of an image before and after its pose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined

from .records import write_record
from .resources import measured
from .template import TemplateInputSpec, target_of


class _PoseFigureInputSpec(TemplateInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image")
    in_mask = File(exists=True, mandatory=True, desc="its brain mask")
    in_pose = File(exists=True, mandatory=True, desc="pose, atlas points to image points (ITK)")
    in_synth = File(exists=True, desc="the image in the template's contrast, if it was converted")


class _PoseFigureOutputSpec(TraitedSpec):
    out_figure = File(exists=True, desc="pictures (JSON): slices before and after and of the atlas, with outlines")
    out_record = File(exists=True, desc="JSON: resources used")


class PoseFigure(SimpleInterface):
    """Slices of an image before and after its pose and of the atlas in three planes, and the outlines of both."""

    input_spec = _PoseFigureInputSpec
    output_spec = _PoseFigureOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from ..geometry import read_itk
        from ..imaging.volume import load_volume
        from ..reports.views import make_views, write_views

        record: dict[str, Any] = {}
        with measured(record):
            target = target_of(self.inputs)
            views = make_views(
                load_volume(self.inputs.in_file),
                load_volume(self.inputs.in_mask, np.uint8),
                target.volume,
                target.mask,
                read_itk(self.inputs.in_pose),
                synth=load_volume(self.inputs.in_synth) if isdefined(self.inputs.in_synth) else None,
            )
            path = write_views(views, Path(runtime.cwd) / "views.json")
        self._results = {"out_figure": str(path), "out_record": write_record(runtime.cwd, "figure", record)}
        return runtime
