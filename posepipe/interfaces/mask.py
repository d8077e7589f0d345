"""The brain mask of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from .base import DigestInputSpec
from .records import mask_to_record, weights_folder, write_record
from .resources import measured
from .warm import brain_finder


class _BrainMaskInputSpec(DigestInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image")
    in_mask = File(exists=True, desc="a brain mask made elsewhere, on the image's grid")
    mode = traits.Enum(
        "auto", "given", "nonzero", "network", usedefault=True,
        desc="where the mask comes from; auto: given, else the nonzero voxels if the image is brain-extracted, else the networks",
    )  # fmt: skip
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True, desc="what torch computes on")
    torch_threads = traits.Range(low=1, value=1, usedefault=True, nohash=True, desc="threads of torch")


class _BrainMaskOutputSpec(TraitedSpec):
    out_mask = File(exists=True, desc="brain mask on the image's grid, 0 and 1")
    out_record = File(exists=True, desc="JSON: source, voxels, millilitres, skull_stripped, warnings, weights, found pose, resources used")
    source = traits.Str(desc="given, nonzero or network")
    millilitres = traits.Float(desc="volume of the brain mask")
    warnings = traits.List(traits.Str, desc="what was odd about it")


class BrainMask(SimpleInterface):
    """The brain mask of an image: a given mask, the nonzero voxels, or a prediction of the networks."""

    input_spec = _BrainMaskInputSpec
    output_spec = _BrainMaskOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..brainmask.choose import brain_mask
        from ..imaging.volume import load_volume, save_volume

        record: dict[str, Any] = {}
        with measured(record):
            image = load_volume(self.inputs.in_file)
            use_given = isdefined(self.inputs.in_mask) and self.inputs.mode in {"auto", "given"}
            given = load_volume(self.inputs.in_mask) if use_given else None
            mask = brain_mask(image, given, self.inputs.mode, self._finder)
            path = str(save_volume(mask.volume, Path(runtime.cwd) / "mask.nii.gz"))
            mask_record = mask_to_record(mask, image)
        self._results = {
            "out_mask": path,
            "out_record": write_record(runtime.cwd, "mask", record | mask_record),
            "source": mask.source,
            "millilitres": mask.millilitres,
            "warnings": list(mask.warnings),
        }
        return runtime

    def _finder(self) -> Any:
        """The networks, with torch's number of threads set."""
        import torch

        from ..models.device import pick_device

        torch.set_num_threads(self.inputs.torch_threads)
        return brain_finder(weights_folder(self.inputs), pick_device(self.inputs.device))
