"""``--age estimate``: ages estimated from the images, cached in the work folder for later runs."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AgeError, BidsError, PosepipeError
from ..plan import planned_mask, uses_mask_network
from ..settings import ESTIMATED, Settings
from .parameters import FileDigests, parameters_of

if TYPE_CHECKING:
    from ..age.curves import AgeEstimate
    from ..age.estimator import AgeEstimator
    from ..atlas import AtlasLibrary, CohortSeries
    from ..bids import Age, InputImage
    from ..brainmask.finder import BrainFinder

FOLDER = "ages"


class AgesOfImages:
    """Estimates the ages of images and caches the results in the work folder, under a hash of all inputs (image, mask, candidate templates,
    networks, model). A dry run reads the cache but does not write it."""

    def __init__(self, settings: Settings, library: AtlasLibrary, files: FileDigests) -> None:
        self._settings, self._library, self._files = settings, library, files
        self._estimators: dict[str, AgeEstimator] = {}
        self._candidates: dict[str, tuple[CohortSeries, ...]] = {}

    def __call__(self, image: InputImage) -> Age:
        """The estimated age of ``image``; raises :class:`~posepipe.errors.PosepipeError` if it cannot be estimated."""
        from ..bids import Age, write_json

        path = self._settings.work_dir / FOLDER / f"{self._key(image)}.json"
        found = _read(path)
        if found is None:
            print(f"{image.path.name}: no table has its age; estimating it from the image", flush=True)
            found = self._estimate(image)
            if not self._settings.dry_run:
                write_json(path, {"image": str(image.path), **asdict(found)})
        return Age(found.weeks, ESTIMATED, found.warnings, found.error, (found.doubt,) if found.doubt else ())

    def _estimate(self, image: InputImage) -> AgeEstimate:
        import torch

        from ..age.estimator import AgeEstimator
        from ..brainmask.choose import brain_mask
        from ..imaging.volume import load_volume

        contrast = self._contrast(image)
        torch.set_num_threads(self._settings.omp_nthreads or 1)
        try:
            if contrast not in self._estimators:
                self._estimators[contrast] = AgeEstimator(self._of(contrast), self._networks, device=self._device)
            volume = load_volume(image.path)
            mode = self._settings.mask
            given = load_volume(image.mask) if image.mask is not None and planned_mask(image, mode) == "given" else None
            mask = brain_mask(volume, given, mode, lambda: self._finder)
            return self._estimators[contrast].estimate(volume, mask.volume)
        except PosepipeError:
            raise
        except Exception as error:  # an error in one image must not stop the plan of the others
            msg = f"{image.path}: its age could not be estimated ({type(error).__name__}: {error}); give --age WEEKS or write it in a table"
            raise AgeError(msg) from error

    def _key(self, image: InputImage) -> str:
        from ..age.curves import PACKAGED
        from ..bids import parameters_hash
        from ..models.weights import POSE_NETWORKS, SCAN_NETWORKS

        contrast = self._contrast(image)
        masked = uses_mask_network(image, self._settings.mask)
        depends = parameters_of(
            networks=(*POSE_NETWORKS, *(SCAN_NETWORKS if masked else ())),
            weights_dir=self._settings.weights,
            templates=[template for series in self._of(contrast) for template in series.templates],
            settings={"estimate": self._files.of(PACKAGED), "atlas": " ".join(self._settings.atlas), "mask": self._settings.mask},
            files=self._files,
        )
        return parameters_hash(depends, image)[:32]

    def _contrast(self, image: InputImage) -> str:
        return image.suffix if self._settings.contrast == "auto" else self._settings.contrast

    def _of(self, contrast: str) -> tuple[CohortSeries, ...]:
        """The candidate cohorts of images in ``contrast``."""
        from ..atlas import candidates

        if contrast not in self._candidates:
            named = [candidates(self._library, contrast=contrast, atlas=atlas) for atlas in self._settings.atlas]
            self._candidates[contrast] = tuple(series for some in named for series in some)
        return self._candidates[contrast]

    @cached_property
    def _networks(self) -> Any:
        from ..pose.coordinate_networks import PoseNetworks

        return PoseNetworks(self._settings.weights, device=self._device)

    @cached_property
    def _finder(self) -> BrainFinder:
        from ..brainmask.finder import BrainFinder

        return BrainFinder(self._settings.weights, self._device)

    @cached_property
    def _device(self) -> str:
        from ..models.device import pick_device

        return pick_device(self._settings.device)


def _read(path: Path) -> AgeEstimate | None:
    """The estimate of an earlier run; None if the file is missing or invalid."""
    from ..age.curves import AgeEstimate
    from ..bids import read_json

    if not path.is_file():
        return None
    try:
        stored = read_json(path)
        return AgeEstimate(float(stored["weeks"]), float(stored["error"]), tuple(stored["warnings"]), str(stored["doubt"]))
    except (BidsError, KeyError, TypeError, ValueError):
        return None
