"""Nodes of a workflow whose shape does not depend on the image: stages that hand an image on untouched, and the files at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, TraitedSpec, isdefined, traits

from ..files import name_stem
from .contrast import ContrastConvert, _ContrastConvertInputSpec, _ContrastConvertOutputSpec
from .derivatives import Derivatives, _DerivativesInputSpec
from .slices import SlicePoses, _SlicePosesInputSpec


class _ConvertIfAskedInputSpec(_ContrastConvertInputSpec):
    asked = traits.Bool(mandatory=True, desc="whether the image is to be converted")


class _ConvertIfAskedOutputSpec(_ContrastConvertOutputSpec):
    out_synth = File(exists=True, desc="the converted image; undefined where there is none")


class ConvertIfAsked(ContrastConvert):
    """:class:`~posepipe.interfaces.contrast.ContrastConvert` where it is ``asked`` for; else ``out_file`` is the image itself, without a
    record."""

    input_spec = _ConvertIfAskedInputSpec
    output_spec = _ConvertIfAskedOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        if not self.inputs.asked:
            self._results = {"out_file": self.inputs.in_file}
            return runtime
        super()._run_interface(runtime)
        self._results["out_synth"] = self._results["out_file"]
        return runtime


class _SlicesIfAskedInputSpec(_SlicePosesInputSpec):
    asked = traits.Bool(mandatory=True, desc="whether each slice gets a pose")


class SlicesIfAsked(SlicePoses):
    """:class:`~posepipe.interfaces.slices.SlicePoses` where it is ``asked`` for; else the pose and its record are handed on, without a
    table."""

    input_spec = _SlicesIfAskedInputSpec

    def _run_interface(self, runtime: Any) -> Any:
        if not self.inputs.asked:
            self._results = {"out_pose": self.inputs.in_pose, "out_record": self.inputs.in_record}
            return runtime
        if not isdefined(self.inputs.timing):  # as an input node leaves it
            self.inputs.timing = {}
        return super()._run_interface(runtime)


class _AlignedFilesInputSpec(_DerivativesInputSpec):
    out_dir = traits.Str(desc="not used: files stay in the node's folder")
    out_files = traits.Dict(traits.Str, traits.Str, desc="not used: named after the image")
    image = File(exists=True, mandatory=True, desc="the image, whose name the files carry")
    space = traits.Str(mandatory=True, desc="name of the template's space: CRL+29")
    figure = File(exists=True, mandatory=True, desc="pictures of PoseFigure")


class _AlignedFilesOutputSpec(TraitedSpec):
    image2atlas_xfm = File(exists=True, desc="transform that resamples the image onto the atlas's grid (ITK)")
    atlas2image_xfm = File(exists=True, desc="its inverse (ITK)")
    aligned = File(exists=True, desc="the image on the template's grid, one cubic interpolation")
    reoriented = File(exists=True, desc="the image's own voxels under a new affine, upright; no interpolation")
    mask = File(exists=True, desc="the brain mask that was used, on the image's grid")
    synth = File(exists=True, desc="the T2-like image that stood in for a T1w image; undefined where there is none")
    slices = File(exists=True, desc="poses of the slices (TSV) of a stack; undefined where there are none")
    sidecar = File(exists=True, desc="JSON of the forward transform: pose, age, template, similarity, verdict, versions")
    report = File(exists=True, desc="HTML fragment with verdict and pictures, for a page")
    qc = traits.Enum("pass", "review", "fail", desc="the verdict")
    qc_reasons = traits.List(traits.Str, desc="why it is not pass")
    confidence = traits.Float(desc="estimated probability that the pose is within 15°, 0 to 1")
    out_files = traits.List(File(exists=True), desc="every file that was written")


class AlignedFiles(Derivatives):
    """:class:`~posepipe.interfaces.derivatives.Derivatives` for a workflow inside another: files stay in the node's folder, named after the
    image, with a fragment of HTML for the other's report."""

    input_spec = _AlignedFilesInputSpec
    output_spec = _AlignedFilesOutputSpec
    always_run = False

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import read_json
        from ..reports.snippet import write_snippet
        from ..reports.views import read_views

        i = self.inputs
        files = self._names(Path(runtime.cwd))
        i.out_dir, i.out_files = runtime.cwd, {name: str(path) for name, path in files.items()}
        super()._run_interface(runtime)
        written: dict[str, Any] = self._results
        sidecar = read_json(written["sidecar"])
        report = write_snippet(Path(runtime.cwd) / f"{name_stem(i.image)}_pose.html", Path(i.image).name, sidecar, read_views(i.figure))
        self._results = {
            "sidecar": written["sidecar"],
            "image2atlas_xfm": str(files["forward"]),
            "atlas2image_xfm": str(files["backward"]),
            "aligned": str(files["resampled"]),
            **{name: str(files[name]) for name in ("reoriented", "mask", "synth", "slices") if name in files},
            "report": str(report),
            "qc": sidecar["QC"],
            "qc_reasons": sidecar["QCReasons"],
            "confidence": sidecar["Confidence"],
            "out_files": [*written["out_files"], str(report)],
        }
        return runtime

    def _names(self, folder: Path) -> dict[str, Path]:
        """The files by kind, with the names that :meth:`posepipe.alignment.Alignment.save` gives them."""
        from ..alignment import file_names

        kinds = [kind for kind, made in (("synth", self.inputs.in_synth), ("slices", self.inputs.slices)) if isdefined(made)]
        return file_names(folder, name_stem(self.inputs.image), self.inputs.space, self.inputs.known["Contrast"], kinds)

    def _reference(self, file: Path) -> str:
        return file.name
