"""The outputs of an image, written under their final names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, Undefined, isdefined, traits

from ..files import copy_file, remove_leftovers, write_text
from ..settings import FULL, LABEL_MAPS, OUTPUT_LEVELS
from .base import DigestInputSpec
from .resources import measured
from .sidecars import STAGES, Records, forward_sidecar, instead_of_others, other_sidecars
from .template import millilitres_of

if TYPE_CHECKING:
    from ..geometry import Rigid


class _DerivativesInputSpec(DigestInputSpec):
    in_pose = File(exists=True, mandatory=True, desc="final pose, atlas points to image points (ITK)")
    in_mask = File(exists=True, mandatory=True, desc="brain mask")
    resampled = File(exists=True, desc="the image on the template's grid, at the level full")
    reoriented = File(exists=True, desc="the image under its new affine, not at the level transforms")
    mask_record = File(exists=True, mandatory=True, desc="record of BrainMask")
    initial_record = File(exists=True, mandatory=True, desc="record of InitialPose")
    refined_record = File(exists=True, mandatory=True, desc="record of RefinePose")
    apply_record = File(exists=True, desc="record of ApplyPose, if it ran")
    in_synth = File(exists=True, desc="the converted image, if there is one and it is written")
    convert_record = File(exists=True, desc="record of ContrastConvert, if it ran")
    slices = File(exists=True, desc="poses of the slices (TSV), of a stack")
    slices_record = File(exists=True, desc="record of SlicePoses, if it ran")
    session_record = File(exists=True, desc="record of SessionPose of this image, if it ran")
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
        desc="final paths, of what is written alone: forward, backward, resampled, reoriented, mask, synth, slices, label maps by kind",
        hash_files=False,
    )  # fmt: skip
    level = traits.Enum(FULL, *OUTPUT_LEVELS, usedefault=True, desc="how much is written")
    further = traits.Bool(False, usedefault=True, desc="whether the atlas is a further one of several, and files are named by its space")
    first = traits.Dict(traits.Str, desc="template whose volume the mask is compared with in its sidecar; default: that of the image")
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
    """Write transforms, images, mask and all sidecars to the output dataset, each file atomically; less at lower levels.

    The forward transform's sidecar is written last: if it exists, so do the others.
    """

    input_spec = _DerivativesInputSpec
    output_spec = _DerivativesOutputSpec
    # an output that the user has removed must come back
    always_run = True

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import OutputNames, read_json, write_json
        from ..bids.names import FURTHER_KEY
        from ..geometry import read_itk

        files = {name: Path(path) for name, path in self.inputs.out_files.items()}
        handed = {stage: getattr(self.inputs, f"{stage}_record", Undefined) for stage in STAGES}
        records = {stage: read_json(path) for stage, path in handed.items() if isdefined(path)}
        records["outputs"] = {}
        pose = read_itk(self.inputs.in_pose)
        marker = OutputNames.sidecar(files["forward"])
        marker.unlink(missing_ok=True)  # the image is not done until all files are written again
        with measured(records["outputs"]):
            others = self._others(files, records)
            written = self._write(files, pose, records, others)
            more, entries = self._write_requested(files, pose)
        forward = forward_sidecar(self.inputs.known, pose, records)
        forward |= instead_of_others(self.inputs.level, forward, others) | ({FURTHER_KEY: True} if self.inputs.further else {})
        write_json(marker, {**forward, **entries})
        written += more
        self._results = {"out_files": [str(path) for path in [*written, marker]], "sidecar": str(marker)}
        if isdefined(self.inputs.figure):
            self._results["figure"] = self.inputs.figure
        return runtime

    def _others(self, files: dict[str, Path], records: Records) -> dict[str, dict[str, Any]]:
        """All sidecars but that of the forward transform, by output."""
        forward = self._reference(files["forward"])
        expected = records["quality"]["expected_millilitres"]
        if isdefined(self.inputs.first):
            expected = millilitres_of(self.inputs.first)
        return other_sidecars(self.inputs.known, records["mask"], expected, forward, records.get("convert"), records.get("slices"))

    def _write(self, files: dict[str, Path], pose: Rigid, records: Records, others: dict[str, dict[str, Any]]) -> list[Path]:
        """Write all but the forward transform's sidecar; the paths."""
        from ..bids import OutputNames, write_json
        from ..geometry import write_itk

        for path in files.values():
            for one in (path, OutputNames.sidecar(path)):
                remove_leftovers(one)
        made = {"mask": "in_mask", "synth": "in_synth", "resampled": "resampled", "reoriented": "reoriented"}
        for name, trait in made.items():
            if name in files:
                copy_file(getattr(self.inputs, trait), files[name])
        if "slices" in files:
            self._write_slices(files["slices"], pose, records)
        write_itk(pose, files["forward"])
        write_itk(~pose, files["backward"])
        written = [path for name, path in files.items() if name not in LABEL_MAPS]
        written += [write_json(OutputNames.sidecar(files[name]), content) for name, content in others.items() if name in files]
        return written

    def _reference(self, file: Path) -> str:
        """How sidecars refer to an output: as a BIDS URI."""
        return f"bids::{file.relative_to(self.inputs.out_dir).as_posix()}"

    def _write_slices(self, path: Path, pose: Rigid, records: Records) -> None:
        """The table of slice poses; where the stack has the session's pose, with the motion about that."""
        from ..bids.slice_table import about_pose, read_table, write_table

        if "session" not in records:
            copy_file(self.inputs.slices, path)
            return
        rows = read_table(Path(self.inputs.slices).read_text(encoding="utf-8"), self.inputs.slices)
        write_table(about_pose(rows, pose, records["quality"]["center"]), path)

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
