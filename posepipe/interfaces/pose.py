"""The pose of an image: initial pose, refinement, verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from .records import found_of, initial_of, initial_to_record, mask_of, refined_of, weights_folder, write_record
from .resources import measured
from .template import TemplateInputSpec, target_of
from .warm import brain_of, comparison_of, pose_networks


class ComputeInputSpec(TemplateInputSpec):
    """Inputs of every interface that compares an image with the template."""

    in_file = File(exists=True, mandatory=True, desc="the image")
    in_mask = File(exists=True, mandatory=True, desc="its brain mask")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True, desc="what torch computes on")


def prepare(inputs: Any) -> tuple[Any, Any, Any, str]:
    """Image, mask, target and device of an interface; :func:`target_of` sets torch's number of threads."""

    from ..imaging.inside import load_mask
    from ..imaging.volume import load_volume
    from ..models.device import pick_device

    device = pick_device(inputs.device)
    return load_volume(inputs.in_file), load_mask(inputs.in_mask), target_of(inputs, device), device


def compared(inputs: Any, image: Any, mask: Any, target: Any, device: str) -> Any:
    """What :func:`prepare` returned as a comparison, which the stages of an image share where they run in one process."""
    return comparison_of(image, mask, (inputs.in_file, inputs.in_mask), target, device)


class _InitialPoseInputSpec(ComputeInputSpec):
    method = traits.Enum("auto", "deep", "posenet", "search", "axes", "center", usedefault=True, desc="how the pose is found")
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's")
    mask_record = File(exists=True, desc="record of BrainMask, with the pose that the network found, if it did")
    age_known = traits.Bool(True, usedefault=True, desc="whether the template was chosen by age, so that sizes agree")


class _InitialPoseOutputSpec(TraitedSpec):
    out_pose = File(exists=True, desc="pose, atlas points to image points (ITK)")
    out_record = File(exists=True, desc="JSON: method, hypotheses with scores, by which they are ranked, scale, resources used")


class InitialPose(SimpleInterface):
    """The initial pose of an image: by networks, a search over all rotations, the principal axes, or the centre."""

    input_spec = _InitialPoseInputSpec
    output_spec = _InitialPoseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import read_json
        from ..geometry import write_itk
        from ..pose.initial import initial_pose

        record: dict[str, Any] = {}
        with measured(record):
            image, mask, target, device = prepare(self.inputs)
            initial = initial_pose(
                image,
                mask,
                target,
                method=self.inputs.method,
                age_known=self.inputs.age_known,
                device=device,
                compare=compared(self.inputs, image, mask, target, device),
                networks=pose_networks(weights_folder(self.inputs), device),
                found=found_of(read_json(self.inputs.mask_record)) if isdefined(self.inputs.mask_record) else None,
            )
        record |= initial_to_record(initial)
        self._results = {
            "out_pose": str(write_itk(initial.pose, Path(runtime.cwd) / "initial.txt")),
            "out_record": write_record(runtime.cwd, "initial", record),
        }
        return runtime


class _RefinePoseInputSpec(ComputeInputSpec):
    in_pose = File(exists=True, mandatory=True, desc="pose to start from (ITK)")
    method = traits.Enum("ants", "torch", "none", usedefault=True, desc="how the pose is refined")
    seed = traits.Int(0, usedefault=True, desc="seed of the voxels that are sampled")


class _RefinePoseOutputSpec(TraitedSpec):
    out_pose = File(exists=True, desc="refined pose, atlas points to image points (ITK)")
    out_record = File(exists=True, desc="JSON: method, template part, similarity before and after, warnings, resources used")


class RefinePose(SimpleInterface):
    """Refinement of a pose by maximising the similarity of image and template; a worse result is discarded."""

    input_spec = _RefinePoseInputSpec
    output_spec = _RefinePoseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..geometry import read_itk, write_itk
        from ..refinement.refine import refine_pose

        record: dict[str, Any] = {}
        with measured(record):
            image, mask, target, device = prepare(self.inputs)
            refined = refine_pose(
                image,
                mask,
                target,
                read_itk(self.inputs.in_pose),
                method=self.inputs.method,
                seed=self.inputs.seed,
                device=device,
                compare=compared(self.inputs, image, mask, target, device),
            )
        record |= {"method": refined.method, "template": refined.template}
        record |= {"similarity": refined.similarity, "warnings": list(refined.warnings)}
        self._results = {
            "out_pose": str(write_itk(refined.pose, Path(runtime.cwd) / "refined.txt")),
            "out_record": write_record(runtime.cwd, "refined", record),
        }
        return runtime


class _PoseQualityInputSpec(TemplateInputSpec):
    in_file = File(exists=True, desc="the acquired image, for the check of its contrast")
    contrast = traits.Enum("T2w", "T1w", desc="contrast that the image is said to have")
    in_mask = File(exists=True, mandatory=True, desc="brain mask of the image")
    mask_record = File(exists=True, mandatory=True, desc="record of BrainMask")
    initial_pose = File(exists=True, mandatory=True, desc="pose of InitialPose (ITK)")
    initial_record = File(exists=True, mandatory=True, desc="record of InitialPose")
    refined_pose = File(exists=True, mandatory=True, desc="pose of RefinePose (ITK)")
    refined_record = File(exists=True, mandatory=True, desc="record of RefinePose")
    age = traits.Float(desc="age of the brain, weeks")
    estimated = traits.Bool(False, usedefault=True, desc="whether the age was estimated")
    volumes = traits.Dict(desc="brain volumes of the atlases: smallest and largest (ml), and the names of youngest and oldest")
    doubts = traits.List(traits.Str, desc="problems with the image and its age that lead to the verdict review")
    weights = File(exists=True, desc="listing of a folder of network weights that come before the package's, and of its calibration")


class _PoseQualityOutputSpec(TraitedSpec):
    out_record = File(exists=True, desc="JSON: qc, reasons, notes, confidence, the template's expected_millilitres and center, resources")
    qc = traits.Enum("pass", "review", "fail", desc="the verdict")


class PoseQuality(SimpleInterface):
    """The verdict on a pose, with reasons and confidence."""

    input_spec = _PoseQualityInputSpec
    output_spec = _PoseQualityOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..atlas import VolumeRange
        from ..imaging.volume import load_volume
        from ..models.calibration import load_calibration
        from ..quality.verdict import judge_pose

        record: dict[str, Any] = {}
        with measured(record):
            target = target_of(self.inputs)
            mask = mask_of(self.inputs.in_mask, self.inputs.mask_record)
            initial = initial_of(self.inputs.initial_record, self.inputs.initial_pose)
            refined = refined_of(self.inputs.refined_record, self.inputs.refined_pose)
            scanned = load_volume(self.inputs.in_file) if isdefined(self.inputs.in_file) else None
            doubts = (*(self.inputs.doubts or ()), *(scanned.doubts if scanned else ()))
            quality = judge_pose(
                initial,
                refined,
                mask,
                target,
                self.inputs.age if isdefined(self.inputs.age) else None,
                scanned=brain_of(scanned, mask.volume, (self.inputs.in_file, self.inputs.in_mask)) if scanned else None,
                contrast=self.inputs.contrast if isdefined(self.inputs.contrast) else None,
                calibration=load_calibration(weights_folder(self.inputs)),
                estimated=self.inputs.estimated,
                volumes=VolumeRange(**self.inputs.volumes) if isdefined(self.inputs.volumes) else None,
                doubts=tuple(dict.fromkeys(doubts)),
            )
        record |= {
            "qc": quality.qc,
            "reasons": list(quality.reasons),
            "notes": [*(scanned.notes if scanned else ()), *target.notes],
            "confidence": quality.confidence,
            "expected_millilitres": target.millilitres,
            "center": target.brain.center.tolist(),
        }
        self._results = {"out_record": write_record(runtime.cwd, "quality", record), "qc": quality.qc}
        return runtime
