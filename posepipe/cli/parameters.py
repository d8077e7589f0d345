"""The parameters that a result depends on. If one of them changes, the result is out of date.

Their digest, with the contents of the image and its mask (:func:`~posepipe.bids.parameters_hash`), is used for three purposes: to decide
whether an image is done; as an input of every node of the image's workflow, so that Nipype's cache is consistent with that decision; and as
the key of cached age estimates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._version import __version__

if TYPE_CHECKING:
    from ..atlas import Template


def parameters_of(
    *, networks: Iterable[str], weights_dir: Path | None, templates: Iterable[Template], settings: dict[str, Any], files: FileDigests
) -> dict[str, Any]:
    """All that a result depends on, except the image and its mask: the version of posepipe, the weights of ``networks`` and the calibration
    (from ``weights_dir`` or the package), the ``templates`` with their files, and the ``settings``.

    Raises :class:`~posepipe.errors.WeightsError` for missing weights, and OSError for a file that cannot be read.
    """
    from ..models.calibration import calibration_file

    return {
        "version": __version__,
        "weights": files.of_networks(tuple(networks), weights_dir),
        "calibration": files.of(calibration_file(weights_dir)),
        "templates": [
            [t.space, t.age, t.contrast, t.to_canonical, [files.of(path) for path in (t.image, t.mask) if path]] for t in templates
        ],
        "settings": settings,
    }


class FileDigests:
    """SHA-256 (hex) of files and of networks. Each file is read once, and the lists of networks once for each selection of these."""

    def __init__(self) -> None:
        self._known: dict[Path, str] = {}
        self._networks: dict[tuple[tuple[str, ...], Path | None], dict[str, str]] = {}

    def of(self, path: Path) -> str:
        """The digest of ``path``; raises OSError for a file that cannot be read."""
        if path not in self._known:
            self._known[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._known[path]

    def of_networks(self, names: tuple[str, ...], weights_dir: Path | None) -> dict[str, str]:
        """Name → digest of the weights, as :func:`~posepipe.models.weights.hashes` gives it, with its errors."""
        from ..models.weights import hashes

        if (names, weights_dir) not in self._networks:
            self._networks[names, weights_dir] = hashes(names, weights_dir)
        return dict(self._networks[names, weights_dir])
