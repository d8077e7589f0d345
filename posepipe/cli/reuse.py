"""``-d posepipe=DIR``: results of an earlier run of posepipe, taken instead of being computed again.

A result is taken if the digest of all that it depends on (version, weights, templates, settings, contents of the image and its mask) is the
one of now. Otherwise the brain mask there is taken, as from any derivative dataset, unless it is of another image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..errors import PosepipeError
from ..settings import FULL, TRANSFORMS, Settings

if TYPE_CHECKING:
    from ..bids import InputImage, OutputNames
    from ..plan import ImagePlan

NAME = "posepipe"
"""Name of a derivative dataset (``-d NAME=DIR``) whose results are taken."""
_COMPARED = ("mask", "init", "refine", "session_pose", "slices", "convert", "contrast", "random_seed", "weights")
"""Settings that are named where they explain why a result is not taken."""


def split_earlier(settings: Settings) -> tuple[list[str], Earlier | None]:
    """The derivative datasets of masks alone, and the results of earlier runs; None if none was given.

    The output folder itself is no earlier run: what is done there is left as it is.
    """
    from ..bids import parse_derivative

    named = [(spec, *parse_derivative(spec)) for spec in settings.derivatives]
    earlier = [folder for _, name, folder in named if name == NAME and folder.resolve() != settings.out_dir.resolve()]
    others = [spec for spec, _, folder in named if folder not in earlier]
    return others, Earlier(settings, earlier[0]) if earlier else None


class Earlier:
    """The results in the output folder of an earlier run."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._masks: dict[Path, Path] = {}
        self._same: dict[Path, str] = {}

    def matched(self, images: Sequence[InputImage]) -> Earlier:
        """These results, with the masks among them matched to the ``images`` of the run."""
        from ..bids.masks import attach_masks

        masks = zip(images, attach_masks(images, images, [f"{NAME}={self._folder}"]), strict=True)
        self._masks = {image.path: mask for image, mask in masks if isinstance(mask, Path)}
        return self

    def with_mask(self, image: InputImage) -> InputImage:
        """``image`` with the brain mask there, if it has none from elsewhere, one was wanted, and it is of this image."""
        mask = self._masks.get(image.path)
        if mask is None or image.mask is not None or self._settings.mask not in {"auto", "given"} or self._other_image(image):
            return image
        return replace(image, mask=mask)

    def look(self, plan: ImagePlan) -> ImagePlan:
        """``plan`` with the result there, if it is the one of now; else with the reason why it is not taken."""
        if plan.done:
            return plan
        try:
            there, why = self._result(plan)
        except PosepipeError as error:
            there, why = None, str(error)
        if there is not None:
            return replace(plan, earlier=there, reuse=f"the result at {plan.space} is taken from {self._folder}")
        return replace(plan, reuse=f"the result at {plan.space} is not taken from {self._folder}: {why}")

    def instead(self, bare: Any, masked: Any) -> Any:
        """The plan to go by of two of one image at one atlas: without, and with the brain mask there."""
        from ..plan import ImagePlan

        if not isinstance(bare, ImagePlan) or bare.done or bare.earlier:
            return bare
        if isinstance(masked, ImagePlan) and not masked.done:
            return replace(masked, reuse=f"{bare.reuse}; only its brain mask is taken")
        return masked

    def _result(self, plan: ImagePlan) -> tuple[OutputNames | None, str]:
        """The names of the result there that is the one of now; or None, and the reason."""
        from ..bids import is_done, is_turned_by, read_json
        from ..bids.names import as_written, requested

        names = replace(plan.names, out_dir=self._folder)
        marker = names.sidecar(names.forward)
        if not marker.is_file():
            return None, "there is none"
        sidecar = read_json(marker)
        names = as_written(names, sidecar)
        if why := self._other_image(plan.image):
            return None, why
        level = requested(sidecar)["level"]
        digest = sidecar.get("ParametersHash")
        if digest != plan.parameters_hash:
            return None, "; ".join(self._differences(plan, names, sidecar)) or "the image, its mask or a setting was different"
        options: dict[str, Any] = {"formats": plan.formats, "labels": plan.label_request, "level": plan.level}
        if not is_done(names, plan.parameters, synth=plan.converted, slices=plan.timing is not None, **options):
            written = f" (it was written with --level {level})" if level != plan.level else ""
            return None, f"files that are asked for now are not there{written}"
        if plan.level != TRANSFORMS and not is_turned_by(names):
            return None, "its reoriented image is of another atlas"
        return (None, "its brain mask was changed since") if _mask_is_changed(names) else (names, "")

    def _differences(self, plan: ImagePlan, names: OutputNames, sidecar: Mapping[str, Any]) -> Iterator[str]:
        """What is known to have been otherwise when the result there was made."""
        from ..bids import read_json
        from ..bids.results import written_instead

        versions = sidecar.get("SoftwareVersions")
        version = versions.get(NAME) if isinstance(versions, Mapping) else None
        if version != __version__:
            yield f"it was made by posepipe {version}, this is {__version__}"
        if sidecar.get("Age") != plan.age.weeks:
            yield f"the age was {sidecar.get('Age')} weeks, and is {plan.age.weeks:g}"
        resampled = names.sidecar(names.resampled)
        instead = written_instead(sidecar)
        template = instead[0] if instead else read_json(resampled) if resampled.is_file() else {}
        if template.get("TemplateFiles") not in (None, dict(plan.template_files)):
            yield "the files of the template were others"
        yield from self._other_settings(plan)

    def _other_settings(self, plan: ImagePlan) -> Iterator[str]:
        from ..plan import SessionPlan
        from .config_file import read_toml

        unit = SessionPlan(plan.image.subject, plan.image.session)
        newest = max(unit.log_dir(self._folder, "").glob("*/posepipe.toml"), key=lambda path: path.stat().st_mtime_ns, default=None)
        known = read_toml(newest) if newest else {}
        for name in _COMPARED:
            before, now = known.get(name.replace("_", "-")), getattr(self._settings, name)
            now = str(now) if isinstance(now, Path) else now
            if known and before != now:
                yield f"--{name.replace('_', '-')} was {before}, and is {now}"

    def _other_image(self, image: InputImage) -> str:
        """Why what is there is not of ``image``, by the reoriented image there; empty if it is, or there is none to compare with."""
        if image.path not in self._same:
            self._same[image.path] = _compare(self._folder, image)
        return self._same[image.path]


def _mask_is_changed(names: OutputNames) -> bool:
    """Whether the brain mask does not hold as many voxels as its sidecar tells: somebody has edited it."""
    import numpy as np

    from ..bids import read_json
    from ..imaging.volume import load_volume

    sidecar = names.sidecar(names.mask)
    if not names.mask.is_file() or not sidecar.is_file():
        return False
    return int(np.count_nonzero(load_volume(names.mask).data)) != read_json(sidecar).get("Voxels")


def _compare(folder: Path, image: InputImage) -> str:
    import numpy as np

    from ..bids import OutputNames, read_json
    from ..geometry import read_itk
    from ..imaging.restore import is_reoriented
    from ..imaging.volume import load_volume

    names = OutputNames(folder, image, ("", None))
    if not names.reoriented.is_file():
        return ""
    try:
        turned = str(read_json(names.sidecar(names.reoriented)).get("Transform", "")).removeprefix("bids::")
        there, here = load_volume(names.reoriented, None), load_volume(image.path, None)
        same = np.array_equal(there.data, here.data.astype(there.data.dtype))
        if same and turned:
            same = is_reoriented(there, here, read_itk(folder / turned))
    except (PosepipeError, OSError) as error:
        return f"it cannot be compared with the image ({error})"
    return "" if same else "it is of another image of this name"


def take(plan: ImagePlan) -> None:
    """Copy the earlier result of ``plan`` to the output folder, the forward transform's sidecar last.

    Raises :class:`~posepipe.errors.PosepipeError` or OSError where a file cannot be read or written.
    """
    from ..bids import read_json, write_json
    from ..bids.names import FURTHER_KEY, LEVEL_KEY, TAKEN_KEY, requested
    from ..files import copy_file, remove_leftovers
    from ..interfaces.sidecars import instead_of_others

    there, here = plan.earlier, plan.names
    assert there is not None
    marker, source = here.sidecar(here.forward), there.sidecar(there.forward)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    sidecar = read_json(source)
    options = {**requested(sidecar), "synth": plan.converted, "slices": plan.timing is not None, "level": plan.level}
    for one, path in zip(there.files(**options), here.files(**options), strict=True):
        remove_leftovers(path)
        if path == here.sidecar(here.mask) and there.further != here.further:
            write_json(path, _mask_sidecar(read_json(one), plan))
        elif path != marker and one.is_file():
            copy_file(one, path)
    if plan.level != FULL and LEVEL_KEY not in sidecar:
        others = {"resampled": read_json(there.sidecar(there.resampled)), "mask": read_json(there.sidecar(there.mask))}
        sidecar |= instead_of_others(plan.level, sidecar, others)
    elif plan.level != FULL:
        sidecar[LEVEL_KEY] = plan.level
    sidecar = {key: value for key, value in sidecar.items() if key != FURTHER_KEY} | ({FURTHER_KEY: True} if here.further else {})
    write_json(marker, {**sidecar, TAKEN_KEY: f"bids:{NAME}:{source.relative_to(there.out_dir).as_posix()}"})


def _mask_sidecar(there: dict[str, Any], plan: ImagePlan) -> dict[str, Any]:
    """The sidecar of the mask, compared with the template that the image's masks are compared with here."""
    from ..interfaces.template import millilitres_of, template_inputs

    expected = millilitres_of(template_inputs(plan.first or plan.choice.template))
    return {**there, "ExpectedMillilitres": expected, "VolumeRatio": there["Millilitres"] / expected}
