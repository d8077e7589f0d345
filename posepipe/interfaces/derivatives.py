"""The outputs of an image, written under their final names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, Undefined, isdefined, traits

from ..files import copy_file, remove_leftovers, write_text
from ..settings import LABEL_MAPS
from .base import DigestInputSpec
from .resources import measured
from .sidecars import STAGES, Records, forward_sidecar, other_sidecars

if TYPE_CHECKING:
    from ..geometry import Rigid


class _DerivativesInputSpec(DigestInputSpec):
    in_pose = File(exists=True, mandatory=True, desc="final pose, atlas points to image points (ITK)")
    in_mask = File(exists=True, mandatory=True, desc="brain mask")
    resampled = File(exists=True, mandatory=True, desc="the image on the template's grid")
    reoriented = File(exists=True, mandatory=True, desc="the image under its new affine")
    mask_record = File(exists=True, mandatory=True, desc="record of BrainMask")
    initial_record = File(exists=True, mandatory=True, desc="record of InitialPose")
    refined_record = File(exists=True, mandatory=True, desc="record of RefinePose")
    apply_record = File(exists=True, mandatory=True, desc="record of ApplyPose")
    in_synth = File(exists=True, desc="the converted image, if there is one")
    convert_record = File(exists=True, desc="record of ContrastConvert, if it ran")
    slices = File(exists=True, desc="poses of the slices (TSV), of a stack")
    slices_record = File(exists=True, desc="record of SlicePoses, if it ran")
    quality_record = File(exists=True, mandatory=True, desc="record of PoseQuality")
    image = File(exists=True, desc="the image, for transforms and labels that its grid is needed for")
    template = File(exists=True, desc="the template, for transforms that its grid is needed for")
    xfm_formats = traits.List(traits.Str, usedefault=True, desc="formats of transforms to write besides ITK's")
    labels = traits.Dict(
        traits.Str, traits.Any, usedefault=True, desc="label maps to write: kind → file, names (a table or nothing), request"
    )
    figure = File(exists=True, desc="picture for the page, passed on")
    figure_record = File(exists=True, desc="record of PoseFigure, if it ran")
    out_dir = traits.Str(mandatory=True, desc="root of the output dataset")
    out_files = traits.Dict(
        traits.Str, traits.Str, mandatory=True,
        desc="final paths: forward, backward, resampled, reoriented, mask, synth if converted, slices of a stack, label maps by kind",
        hash_files=False,
    )  # fmt: skip
    known = traits.Dict(
        traits.Str, mandatory=True,
        desc="what is known of the image: Sources, Age, AgeSource, AgeStandardError (if estimated), Atlas, Cohort, Contrast, "
        "ParametersHash, SpatialReference, TemplateContrast, TemplateChoice, TemplateFiles, Warnings",
    )  # fmt: skip


class _DerivativesOutputSpec(TraitedSpec):
    out_files = traits.List(File(exists=True), desc="every file that was written")
    sidecar = File(exists=True, desc="sidecar of the forward transform")
    figure = File(exists=True, desc="picture for the page")


class Derivatives(SimpleInterface):
    """Write transforms, images, mask and all sidecars to the output dataset, each file atomically.

    The forward transform's sidecar is written last: if it exists, so do the others.
    """

    input_spec = _DerivativesInputSpec
    output_spec = _DerivativesOutputSpec
    # an output that the user has removed must come back
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import OutputNames, read_json, write_json
        from ..geometry import read_itk

        files = {name: Path(path) for name, path in self.inputs.out_files.items()}
        handed = {stage: getattr(self.inputs, f"{stage}_record", Undefined) for stage in STAGES}
        records = {stage: read_json(path) for stage, path in handed.items() if isdefined(path)}
        records["outputs"] = {}
        pose = read_itk(self.inputs.in_pose)
        marker = OutputNames.sidecar(files["forward"])
        marker.unlink(missing_ok=True)  # the image is not done until all files are written again
        with measured(records["outputs"]):
            written = self._write(files, pose, records)
            more, entries = self._write_requested(files, pose)
        write_json(marker, {**forward_sidecar(self.inputs.known, pose, records), **entries})
        written += more
        self._results = {"out_files": [str(path) for path in [*written, marker]], "sidecar": str(marker)}
        if isdefined(self.inputs.figure):
            self._results["figure"] = self.inputs.figure
        return runtime

    def _write(self, files: dict[str, Path], pose: Rigid, records: Records) -> list[Path]:
        """Write all but the forward transform's sidecar; the paths."""
        from ..bids import OutputNames, write_json
        from ..geometry import write_itk

        for path in files.values():
            for one in (path, OutputNames.sidecar(path)):
                remove_leftovers(one)
        copy_file(self.inputs.in_mask, files["mask"])
        if isdefined(self.inputs.in_synth):
            copy_file(self.inputs.in_synth, files["synth"])
        if isdefined(self.inputs.slices):
            copy_file(self.inputs.slices, files["slices"])
        copy_file(self.inputs.resampled, files["resampled"])
        copy_file(self.inputs.reoriented, files["reoriented"])
        write_itk(pose, files["forward"])
        write_itk(~pose, files["backward"])
        written = [path for name, path in files.items() if name not in LABEL_MAPS]
        forward = self._reference(files["forward"])
        expected = records["quality"]["expected_millilitres"]
        others = other_sidecars(self.inputs.known, records["mask"], expected, forward, records.get("convert"), records.get("slices"))
        for name, content in others.items():
            written.append(write_json(OutputNames.sidecar(files[name]), content))
        return written

    def _reference(self, file: Path) -> str:
        """How sidecars refer to an output: as a BIDS URI."""
        return f"bids::{file.relative_to(self.inputs.out_dir).as_posix()}"

    def _write_requested(self, files: dict[str, Path], pose: Rigid) -> tuple[list[Path], dict[str, Any]]:
        """Write the outputs on request; the paths, and their entries in the forward transform's sidecar."""
        from ..bids import OutputNames, read_json, write_json
        from ..bids.names import FORMATS_KEY, LABELS_KEY
        from ..imaging.grid import Grid
        from .on_request import write_formats

        formats = [form for form in self.inputs.xfm_formats if form != "itk"]
        entries: dict[str, Any] = {}
        written = []
        if formats:
            image, template = Grid.load(self.inputs.image), Grid.load(self.inputs.template)
            entries[FORMATS_KEY] = write_formats(pose, files["forward"], formats, image, template)
            backward = write_formats(~pose, files["backward"], formats, template, image)
            sidecar = OutputNames.sidecar(files["backward"])
            write_json(sidecar, {**read_json(sidecar), FORMATS_KEY: backward})
            for path, some in ((files["forward"], entries[FORMATS_KEY]), (files["backward"], backward)):
                written += [path.with_name(one["File"]) for one in some.values()]
        if self.inputs.labels:
            entries[LABELS_KEY] = {kind: one["request"] for kind, one in self.inputs.labels.items()}
            written += self._write_labels(files, pose)
        return written, entries

    def _write_labels(self, files: dict[str, Path], pose: Rigid) -> list[Path]:
        from ..bids import OutputNames, write_json
        from ..imaging.restore import labels_on_image
        from ..imaging.volume import load_volume, save_volume, stored_type
        from .on_request import label_sidecar

        image = load_volume(self.inputs.image)
        forward = self._reference(files["forward"])
        written = []
        for kind, one in self.inputs.labels.items():
            labels = load_volume(one["file"], None)
            written.append(save_volume(labels_on_image(labels, image, pose), files[kind], stored_type(labels.data.dtype)))
            sidecar = OutputNames.sidecar(files[kind])
            written.append(write_json(sidecar, label_sidecar(self.inputs.known, kind, one["request"], forward)))
            if one["names"]:
                written.append(write_text(sidecar.with_suffix(".tsv"), one["names"]))
        return written
