"""The brain mask of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, SimpleInterface, TraitedSpec, isdefined, traits

from .records import stopwatch, write_record


class _BrainMaskInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image")
    in_mask = File(exists=True, desc="a brain mask made elsewhere, on the image's grid")
    mode = traits.Enum("auto", "given", "nonzero", usedefault=True, desc="where the mask comes from")


class _BrainMaskOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc="brain mask on the image's grid, 0 and 1")
    out_record = File(exists=True, desc="JSON: source, millilitres, skull_stripped, warnings, seconds")
    source = traits.Str(desc="given or nonzero")
    millilitres = traits.Float(desc="volume of the brain mask")
    warnings = traits.List(traits.Str, desc="what was odd about it")


class BrainMask(SimpleInterface):
    """The brain mask of an image: one that is given, or the voxels that are not 0."""

    input_spec = _BrainMaskInputSpec
    output_spec = _BrainMaskOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..imaging.mask import brain_mask, is_skull_stripped
        from ..imaging.volume import load_volume, save_volume

        record: dict[str, Any] = {}
        with stopwatch(record):
            image = load_volume(self.inputs.in_file)
            use_given = isdefined(self.inputs.in_mask) and self.inputs.mode != "nonzero"
            given = load_volume(self.inputs.in_mask) if use_given else None
            mask = brain_mask(image, given, self.inputs.mode)
            path = save_volume(mask.volume, Path(runtime.cwd) / "mask.nii.gz")
        record |= {
            "source": mask.source,
            "millilitres": mask.millilitres,
            "skull_stripped": is_skull_stripped(image, mask.volume),
            "warnings": list(mask.warnings),
        }
        self._results = {
            "out_mask": str(path),
            "out_record": write_record(runtime.cwd, "mask", record),
            "source": mask.source,
            "millilitres": mask.millilitres,
            "warnings": list(mask.warnings),
        }
        return runtime
