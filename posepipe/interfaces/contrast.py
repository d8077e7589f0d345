"""The contrast of an image, converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from .base import DigestInputSpec
from .records import weights_folder, write_record
from .resources import measured


class _ContrastConvertInputSpec(DigestInputSpec):
    in_file = File(exists=True, mandatory=True, desc="the image (T1w)")
    in_mask = File(exists=True, mandatory=True, desc="its brain mask")
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True, desc="what torch computes on")
    torch_threads = traits.Range(low=1, value=1, usedefault=True, nohash=True, desc="threads of torch")


class _ContrastConvertOutputSpec(TraitedSpec):
    out_file = File(exists=True, desc="synthetic T2-like image on the image's grid, 0 outside the mask")
    out_record = File(exists=True, desc="JSON: network, weights, resources used")


class ContrastConvert(SimpleInterface):
    """Convert a T1w image inside its brain mask to T2-like contrast by a network; for the alignment only."""

    input_spec = _ContrastConvertInputSpec
    output_spec = _ContrastConvertOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        import numpy as np
        import torch

        from ..contrast.converter import Converter
        from ..imaging.inside import load_mask
        from ..imaging.volume import load_volume, save_volume
        from ..models.device import pick_device
        from ..models.weights import CONTRAST_NETWORK

        torch.set_num_threads(self.inputs.torch_threads)
        record: dict[str, Any] = {"network": CONTRAST_NETWORK}
        with measured(record):
            converter = Converter(weights_folder(self.inputs), pick_device(self.inputs.device))
            converted = converter.convert(load_volume(self.inputs.in_file), load_mask(self.inputs.in_mask))
            path = save_volume(converted.volume, Path(runtime.cwd) / "converted.nii.gz", np.int16)
        self._results = {
            "out_file": str(path),
            "out_record": write_record(runtime.cwd, "contrast", record | {"weights": converted.weights}),
        }
        return runtime
