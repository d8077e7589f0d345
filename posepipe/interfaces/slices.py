"""The poses of the slices of a stack, and the pose of the stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from .pose import ComputeInputSpec, prepare
from .records import refined_of, weights_folder, write_record
from .resources import measured


class _SlicePosesInputSpec(ComputeInputSpec):
    in_pose = File(exists=True, mandatory=True, desc="pose of the volume (ITK)")
    in_record = File(exists=True, mandatory=True, desc="record of RefinePose")
    timing = traits.Dict(traits.Str, usedefault=True, desc="SliceTiming, SliceEncodingDirection, SliceThickness of the image's sidecar")
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's")


class _SlicePosesOutputSpec(TraitedSpec):
    out_pose = File(exists=True, desc="pose of the stack, atlas points to image points (ITK)")
    out_record = File(exists=True, desc="record of RefinePose, of the pose that was kept")
    out_table = File(exists=True, desc="the poses of the slices (TSV)")
    slices_record = File(exists=True, desc="JSON: result for the whole stack, resources used")


class SlicePoses(SimpleInterface):
    """The pose of each slice of a stack, and the stack's pose, chosen between the slices' mean and that of the volume
    (:class:`~posepipe.slices.align.KeptPose`)."""

    input_spec = _SlicePosesInputSpec
    output_spec = _SlicePosesOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import read_json
        from ..geometry import write_itk
        from ..slices.align import StackAligner

        record: dict[str, Any] = {}
        with measured(record):
            image, mask, target, device = prepare(self.inputs)
            refined = refined_of(self.inputs.in_record, self.inputs.in_pose)
            aligner = StackAligner(weights_folder(self.inputs), device)
            stack = aligner.align(image, mask, target, refined.pose, self.inputs.timing)
            refined = stack.applied_to(refined, image, mask, target)
        kept = read_json(self.inputs.in_record) | {"method": refined.method, "similarity": refined.similarity}
        cwd = Path(runtime.cwd)
        self._results = {
            "out_pose": str(write_itk(refined.pose, cwd / "stack.txt")),
            "out_record": write_record(cwd, "refined", kept),
            "out_table": str(stack.save(cwd / "slices.tsv")),
            "slices_record": write_record(cwd, "slices", record | stack.about()),
        }
        return runtime
