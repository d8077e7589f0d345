"""One pose for the images of a session between which the head lay still."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, InputMultiPath, OutputMultiPath, SimpleInterface, TraitedSpec, traits

from .base import DigestInputSpec
from .records import refined_of, write_record
from .resources import measured
from .template import TemplateInputSpec, target_of

if TYPE_CHECKING:
    from ..matching.comparison import Comparison
    from ..refinement.refine import Refined


class _SessionPoseInputSpec(DigestInputSpec):
    in_files = InputMultiPath(File(exists=True), mandatory=True, desc="the images as they were aligned, in a fixed order")
    in_masks = InputMultiPath(File(exists=True), mandatory=True, desc="their brain masks")
    in_poses = InputMultiPath(File(exists=True), mandatory=True, desc="their poses alone, atlas points to image points (ITK)")
    in_records = InputMultiPath(File(exists=True), mandatory=True, desc="their records of RefinePose")
    quality_records = InputMultiPath(File(exists=True), mandatory=True, desc="their records of PoseQuality, at the poses alone")
    names = traits.List(traits.Str, mandatory=True, desc="their BIDS URIs")
    templates = traits.List(traits.Dict, mandatory=True, desc="their templates, of one cohort (template_inputs)")
    device = traits.Enum("auto", "cpu", "cuda", usedefault=True, nohash=True, desc="what torch computes on")
    torch_threads = traits.Range(low=1, value=1, usedefault=True, nohash=True, desc="threads of torch")


class _SessionPoseOutputSpec(TraitedSpec):
    out_poses = OutputMultiPath(File(exists=True), desc="the poses, atlas points to image points (ITK), in the order of the images")
    out_records = OutputMultiPath(File(exists=True), desc="records of RefinePose at these poses")
    session_records = OutputMultiPath(File(exists=True), desc="JSON for each image: with which it shares its pose, its pose alone")


class SessionPose(SimpleInterface):
    """Group the images of one session by the agreement of their poses; those of a group get one pose, refined on all of them.

    Three kinds of image keep the pose that they have alone and pull no other: those of verdict ``fail``, those whose header does not say
    where they lie, and stacks whose pose is that of their slices, as the head moved during them.
    """

    input_spec: type[BaseInterfaceInputSpec] = _SessionPoseInputSpec
    output_spec: type[TraitedSpec] = _SessionPoseOutputSpec

    def _run_interface(self, runtime: Any) -> Any:
        from ..bids import read_json
        from ..geometry import write_itk
        from .spread import SESSION_KEY

        seconds: dict[str, Any] = {}
        count = len(self.inputs.names)
        with measured(seconds):
            alone = [refined_of(*pair) for pair in zip(self.inputs.in_records, self.inputs.in_poses, strict=True)]
            qualities = [read_json(path) for path in self.inputs.quality_records]
            final, entries = self._shared(alone, qualities)
        cwd, poses, records, session = Path(runtime.cwd), [], [], []
        for i in range(count):
            poses.append(str(write_itk(final[i].pose, cwd / f"pose_{i}.txt")))
            record = read_json(self.inputs.in_records[i]) | {
                "similarity": final[i].similarity, "warnings": list(final[i].warnings),
            }  # fmt: skip
            records.append(write_record(cwd, f"refined_{i}", record))
            # the time of the whole is shared by its images
            own = {key: round(value / count, 3) if key == "seconds" else value for key, value in seconds.items()}
            session.append(write_record(cwd, f"session_{i}", {**own, SESSION_KEY: entries[i]}))
        self._results = {"out_poses": poses, "out_records": records, "session_records": session}
        return runtime

    def _shared(self, alone: Sequence[Refined], qualities: Sequence[dict[str, Any]]) -> tuple[list[Refined], list[dict[str, Any]]]:
        """The final results of the images, and the entry of each sidecar."""
        from ..refinement.session import still_groups

        center = qualities[0]["center"]
        excluded = {i: why for i, quality in enumerate(qualities) if (why := _excluded(alone[i], quality))}
        free = [i for i in range(len(alone)) if i not in excluded]
        group = dict(zip(free, still_groups([alone[i].pose for i in free], center), strict=True))
        final, entries = list(alone), [dict[str, Any]() for _ in alone]
        for number in sorted(set(group.values())):
            members = [i for i in free if group[i] == number]
            how: dict[str, Any] = {"Method": "alone"}
            if len(members) > 1:
                how = self._refine(members, alone, qualities, final)
            for i in members:
                entries[i] = how
        for i, quality in enumerate(qualities):
            about = about_session(i, self.inputs.names, alone, final, group, excluded, quality["center"])
            entries[i] = {"Method": "alone"} | entries[i] | about
        return final, entries

    def _refine(
        self, members: Sequence[int], alone: Sequence[Refined], qualities: Sequence[dict[str, Any]], final: list[Refined]
    ) -> dict[str, Any]:
        """Give the ``members`` one pose in ``final``; its entry for the sidecars. If that fails they keep their own, with a warning."""
        from dataclasses import replace

        from ..errors import PosepipeError
        from ..refinement.refine import at_pose
        from ..refinement.session import shared_pose
        from ..settings import WHOLE

        try:
            whole = [self._compared(i) for i in members]
            parts = [one if alone[i].template == WHOLE else one.without_csf or one for i, one in zip(members, whole, strict=True)]
            # without a confidence all images count alike
            weights = [qualities[i]["confidence"] for i in members]
            shared = shared_pose(parts, [alone[i].pose for i in members], weights if all(weights) else [1.0] * len(members))
            for i, one in zip(members, whole, strict=True):
                final[i] = at_pose(alone[i], one, shared.pose)
        except (PosepipeError, RuntimeError, ValueError) as error:
            warning = f"the pose was not refined together with the session's other images ({type(error).__name__}: {error})"
            for i in members:
                final[i] = replace(alone[i], warnings=(*alone[i].warnings, warning))
            return {"Method": "alone"}
        return {"Method": shared.how, "Criterion": {"before": shared.before, "after": shared.after}}

    def _compared(self, i: int) -> Comparison:
        """Image ``i`` against its template."""
        from ..imaging.inside import load_mask
        from ..imaging.volume import load_volume
        from ..matching.comparison import Comparison
        from ..models.device import pick_device

        device = pick_device(self.inputs.device)
        target = target_of(TemplateInputSpec(**self.inputs.templates[i], torch_threads=self.inputs.torch_threads), device)
        return Comparison.of(load_volume(self.inputs.in_files[i]), load_mask(self.inputs.in_masks[i]), target, device)


def _excluded(alone: Refined, quality: dict[str, Any]) -> str:
    """Why an image takes no part; empty if it does."""
    from ..imaging.header import UNKNOWN
    from ..settings import BY_SLICES

    if quality["qc"] == "fail":
        return "verdict fail"
    if UNKNOWN in quality["reasons"]:
        return "its header does not say where it lies"
    return "its pose is that of its slices" if alone.method == BY_SLICES else ""


def about_session(
    i: int, names: Sequence[str], alone: Sequence[Refined], final: Sequence[Refined], group: dict[int, int], excluded: dict[int, str],
    center: Sequence[float],
) -> dict[str, Any]:  # fmt: skip
    """What the sidecar of image ``i`` tells: the images that share its pose, the others and why not, its pose alone, and how far it is from
    the final one. ``group`` maps images that take part to their group, ``excluded`` the others to the reason."""
    from ..refinement.session import AGREE_DEGREES, AGREE_MM

    apart = []
    for j, name in enumerate(names):
        if j == i or (i in group and group.get(j) == group[i]):
            continue
        degrees, mm = alone[i].pose.degrees_from(alone[j].pose), alone[i].pose.mm_from(alone[j].pose, center)
        why = f"this image: {excluded[i]}" if i in excluded else excluded.get(j, "the head turned or moved between them")
        apart.append({"Image": name, "Degrees": degrees, "Millimetres": mm, "Reason": why})
    own, pose = alone[i].pose, final[i].pose
    return {
        "SharedBy": [name for j, name in enumerate(names) if i in group and group.get(j) == group[i]] or [names[i]],
        "NotSharedBy": apart,
        "ToleranceDegrees": AGREE_DEGREES,
        "ToleranceMM": AGREE_MM,
        "PoseBefore": {"RotationMatrix": own.rotation, "TranslationMM": own.translation},
        "MovedDegrees": pose.degrees_from(own),
        "MovedMM": pose.mm_from(own, center),
    }
