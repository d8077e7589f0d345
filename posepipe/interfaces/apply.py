"""Application of a pose: resampling to the template's grid, and reorientation by the header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from .base import DigestInputSpec
from .records import write_record
from .resources import measured


class _ApplyPoseInputSpec(DigestInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image")
    template = File(exists=True, mandatory=True, desc="image whose grid is used")
    in_pose = File(exists=True, mandatory=True, desc="pose, atlas points to image points (ITK)")

    resample = traits.Bool(True, usedefault=True, desc="whether the image is resampled too")


class _ApplyPoseOutputSpec(TraitedSpec):
    resampled = File(exists=True, desc="the image on the template's grid, float32, if it was asked for")
    reoriented = File(exists=True, desc="the image's own voxels under a new affine")
    out_record = File(exists=True, desc="JSON: resources used")


class ApplyPose(SimpleInterface):
    """Resample the image to the template's grid (one cubic interpolation), and reorient it by its header."""

    input_spec = _ApplyPoseInputSpec
    output_spec = _ApplyPoseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np

        from ..geometry import read_itk
        from ..imaging.apply import reorient, resample_to_template
        from ..imaging.volume import load_volume, save_volume, stored_type

        record: dict[str, Any] = {}
        cwd = Path(runtime.cwd)
        with measured(record):
            pose = read_itk(self.inputs.in_pose)
            if self.inputs.resample:
                image = load_volume(self.inputs.in_file)
                resampled = resample_to_template(image, load_volume(self.inputs.template), pose)
                save_volume(resampled, cwd / "resampled.nii.gz", np.float32)
            # the stored voxels with their type, including integers: only the affine changes
            stored = load_volume(self.inputs.in_file, None)
            save_volume(reorient(stored, pose), cwd / "reoriented.nii.gz", stored_type(stored.data.dtype))
        self._results = {
            **({"resampled": str(cwd / "resampled.nii.gz")} if self.inputs.resample else {}),
            "reoriented": str(cwd / "reoriented.nii.gz"),
            "out_record": write_record(cwd, "apply", record),
        }
        return runtime
