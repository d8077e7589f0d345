"""posepipe itself, warm: template and networks are loaded, as in :class:`posepipe.Aligner`."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from .base import Options, Registered, Tool

if TYPE_CHECKING:
    from ...matching.target import Target
    from ...pose.coordinate_networks import PoseNetworks


class Ours(Tool):
    """Initial pose by ``init`` and refinement by ``refine``: the stages of :class:`posepipe.Aligner`, from the image to the pose."""

    warm_up = True

    def __init__(self, init: str, refine: str = "none") -> None:
        self.init, self.refine = init, refine
        self.about = f"posepipe, `--init {init} --refine {refine}`"
        self._options = Options()
        self._networks: PoseNetworks | None = None
        self._targets: dict[str, Target] = {}

    def missing(self, options: Options) -> str:
        return ""

    def start(self, options: Options) -> float:
        from ...pose.coordinate_networks import PoseNetworks

        self._options = options
        self._networks = PoseNetworks(options.weights)
        return 0.0

    def target(self, template: Path) -> Target:
        """The target of the template that lies in the file ``template``, prepared once; beside the file stands which it is."""
        from ...atlas import AtlasLibrary
        from ...matching.target import Target

        if str(template) not in self._targets:
            about = json.loads(template.with_suffix(".json").read_text(encoding="utf-8"))
            library = AtlasLibrary([self._options.data / "atlases"])
            target = Target.load(library.template(about["atlas"], about["cohort"], about["contrast"]))
            _ = target.bank, target.coarse_outline, target.coarse_texture, target.fine_texture
            self._targets[str(template)] = target
        return self._targets[str(template)]

    def register(self, image: Path, template: Path, folder: Path) -> Registered:
        from ...brainmask.choose import brain_mask
        from ...imaging.volume import load_volume
        from ...matching.comparison import Comparison
        from ...pose.initial import initial_pose
        from ...refinement.refine import refine_pose

        target = self.target(template)
        marks = [("", time.perf_counter())]

        def done(stage: str) -> None:
            marks.append((stage, time.perf_counter()))

        volume = load_volume(image)
        done("read")
        mask = brain_mask(volume).volume
        done("mask")
        compare = Comparison.of(volume, mask, target)
        done("prepare")
        pose = initial_pose(volume, mask, target, method=self.init, compare=compare, networks=self._networks).pose
        done("pose")
        if self.refine != "none":
            pose = refine_pose(volume, mask, target, pose, method=self.refine, compare=compare).pose
            done("refine")
        parts = {stage: at - before for (_, before), (stage, at) in pairwise(marks)}
        read = parts.pop("read")
        return Registered(pose.matrix, sum(parts.values()), read, parts)
