"""Weights of networks: storage, verification and loading.

A weights folder holds ``<name>.safetensors`` and a model card ``<name>.md`` for each network, and one ``weights.toml`` that lists them all
with their SHA-256. One such folder is part of the package; networks in the user's folder (``--weights``) take precedence.

Parameters are stored in float16. Buffers (running means and variances of batch normalisation, and its counter) are stored in their own
dtype: they are a few thousand numbers that can exceed the range of float16 (6e-8 to 65,504), as the variance of unscaled images does, and
that need more digits where a channel's mean is many times its standard deviation.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from ..files import write_bytes
from .listing import LISTING, Entry, check_name, listing_text, read_listing

if TYPE_CHECKING:
    from torch import Tensor, nn

POSE_NETWORKS = ("pose-coarse", "pose-fine")
"""The default pose networks: for any orientation, and for the residual pose after the brain was rotated upright."""
SCAN_NETWORKS = ("locator", "scan", "outline")
"""The networks for scans without a mask: brain detection in the whole scan; pose and mask in a crop; final mask."""
CONTRAST_NETWORK = "contrast"
"""The network that synthesises T2-like images from T1w images, trained on pairs."""
PAPER_NETWORKS = ("pose-net", "correction-net")
"""The paper's networks, for ``--init posenet``."""
SLICE_NETWORK = "slice-coordinates"
"""The network for the pose of one slice."""
PACKAGED = Path(__file__).with_name("data")
"""The packaged weights folder."""

ARCHITECTURES: Mapping[str, str] = {
    "PoseNet": "posenet",
    "CorrectionNet": "correction",
    "CoordinateNet": "coordinates",
    "LocatorNet": "scans",
    "OutlineNet": "scans",
    "ScanNet": "scans",
    "ContrastNet": "contrast",
    "SlicePoseNet": "slices",
    "SliceCoordinateNet": "slices",
}
"""Class of a network → module of this package that defines it, imported on demand."""


@dataclass(frozen=True, eq=False)
class LoadedNetwork:
    """A loaded network: ``module`` in float32 and evaluation mode, with its origin.

    ``options`` are those of its constructor, ``sha256`` is of the file ``path``.
    """

    module: nn.Module
    name: str
    sha256: str
    options: Mapping[str, Any]
    path: Path


def available(weights_dir: str | Path | None = None) -> tuple[str, ...]:
    """Sorted names of the networks in ``weights_dir`` and in the package.

    Raises :class:`~posepipe.errors.WeightsError` for a folder whose list is missing or cannot be read.
    """
    return tuple(sorted(_find(weights_dir)))


def hashes(names: Iterable[str], weights_dir: str | Path | None = None) -> dict[str, str]:
    """Name → SHA-256 of the weights that :func:`load_network` would load, from the list; nothing is loaded.

    Raises :class:`~posepipe.errors.WeightsError` for an unknown name and for a list that cannot be read.
    """
    found = _find(weights_dir)
    return {name: _entry(name, found, weights_dir)[1].sha256 for name in names}


def load_network(name: str, *, weights_dir: str | Path | None = None, device: str = "cpu") -> LoadedNetwork:
    """The network called ``name``, on ``device``, its file verified by SHA-256.

    Networks listed in ``weights_dir`` are loaded from there, others from the package; ``path`` of the result is the file.

    Raises :class:`~posepipe.errors.WeightsError` for an unknown name, a folder without a list, and a file that is missing, changed,
    corrupt, or not of the listed network. A corrupt file in ``weights_dir`` is an error; the packaged network is not used in its place.
    """
    folder, entry = _entry(name, _find(weights_dir), weights_dir)
    path = folder / entry.file
    state = _read_state(path, entry, folder / LISTING)
    module = _filled(entry.architecture, entry.options, state, where=f"{path}, listed in {LISTING}")
    return LoadedNetwork(module.to(device).float().eval(), name, entry.sha256, entry.options, path)


def _entry(name: str, found: Mapping[str, tuple[Path, Entry]], weights_dir: str | Path | None) -> tuple[Path, Entry]:
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        places = " and ".join(str(folder) for folder in _folders(weights_dir))
        msg = f"no network is called {name!r} in {places} (there: {known}); name one of these, or another folder with --weights"
        raise WeightsError(msg)
    return found[name]


def save_network(
    module: nn.Module,
    name: str,
    folder: str | Path,
    *,
    architecture: str,
    options: Mapping[str, Any],
    card: str,
    terms: str,
) -> Path:
    """Write ``module`` into a weights folder under ``name``; returns the path of its file.

    ``architecture`` and ``options``: class and constructor arguments of the module; ``card``: text of the model card (Markdown: purpose,
    data, metrics, limits); ``terms``: terms of use in one line. The folder is created if it does not exist; a network of that name in it
    is replaced. Weights and card are written first, the list last, each by atomic replace. Only one process at a time may write to a
    folder.

    Raises :class:`~posepipe.errors.WeightsError` for an invalid name, options that do not fit the weights, numbers that are not finite or
    too large for float16, and a list that cannot be read.
    """
    from safetensors.torch import save

    check_name(name, "save_network")
    for what, text in (("card", card), ("terms", terms)):
        if not text.strip():
            msg = f"network {name!r}: its {what} is empty; say what a user must know"
            raise WeightsError(msg)
    folder = Path(folder)
    before = read_listing(folder) if (folder / LISTING).exists() else {}
    state = _stored_state(module, name)
    _filled(architecture, options, state, where=f"network {name!r}")  # what cannot be loaded is not saved
    blob = save(state)
    entry = Entry(name, architecture, dict(options), f"{name}.safetensors", hashlib.sha256(blob).hexdigest(), f"{name}.md", terms)
    text = listing_text({**before, name: entry})
    folder.mkdir(parents=True, exist_ok=True)
    path = write_bytes(folder / entry.file, blob)
    write_bytes(folder / entry.card, (card.rstrip() + "\n").encode())
    write_bytes(folder / LISTING, text.encode())
    return path


def build(architecture: str, options: Mapping[str, Any], *, where: str) -> nn.Module:
    """A network with random initial weights, of a class in :data:`ARCHITECTURES` with the options of its constructor.

    Raises :class:`~posepipe.errors.WeightsError`, with a message that begins with ``where``, for an unknown class or invalid options.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        msg = f"{where}: this posepipe knows no network class {architecture!r} (it knows {known}); a newer one may"
        raise WeightsError(msg)
    cls = getattr(importlib.import_module(f".{ARCHITECTURES[architecture]}", __package__), architecture)
    try:
        network: nn.Module = cls(**options)
    except (TypeError, ValueError) as error:
        msg = f"{where}: invalid options of {architecture}: {dict(options)} ({error}); correct them"
        raise WeightsError(msg) from error
    return network


def _filled(architecture: str, options: Mapping[str, Any], state: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """A network with the weights ``state``. The state of torch's random generator is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        network = build(architecture, options, where=where)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        # torch lists every weight that does not fit; the first few suffice
        reason = " ".join(str(error).split())[:300]
        msg = (
            f"{where}: these are not the weights of {architecture} with options {dict(options)} ({reason}); "
            "give the class and the options that they were trained with"
        )
        raise WeightsError(msg) from error
    return network


def _folders(weights_dir: str | Path | None) -> list[Path]:
    return [PACKAGED] if weights_dir is None else [Path(weights_dir), PACKAGED]


def _find(weights_dir: str | Path | None) -> dict[str, tuple[Path, Entry]]:
    """Name → folder and entry; the user's folder takes precedence over the package's."""
    found: dict[str, tuple[Path, Entry]] = {}
    for folder in reversed(_folders(weights_dir)):
        found |= {name: (folder, entry) for name, entry in read_listing(folder).items()}
    return found


def _read_state(path: Path, entry: Entry, listing: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    again = "get the file again (a copy or download may have been cut short), or save the network again"
    try:
        blob = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}), though {listing} lists it; {again}"
        raise WeightsError(msg) from error
    digest = hashlib.sha256(blob).hexdigest()
    if digest != entry.sha256:
        msg = f"{path}: not the file that {listing} lists (SHA-256 {digest[:12]}…, not {entry.sha256[:12]}…); {again}"
        raise WeightsError(msg)
    try:
        state: dict[str, Tensor] = load(blob)
    except SafetensorError as error:
        msg = f"{path}: not a safetensors file ({error}); {again}"
        raise WeightsError(msg) from error
    return state


def _stored_state(module: nn.Module, name: str) -> dict[str, Tensor]:
    """The tensors of ``module`` as they are stored: parameters in float16, buffers in their own dtype."""
    import torch

    parameters = {key for key, _ in module.named_parameters(remove_duplicate=False)}
    state = {}
    for key, value in module.state_dict().items():
        half = value.detach().cpu().to(torch.float16 if key in parameters else value.dtype, copy=True).contiguous()
        if not bool(half.isfinite().all()):
            largest = float(value.detach().abs().max())
            msg = (
                f"network {name!r}: {key} holds numbers that are not finite or too large for float16 "
                f"(largest {largest:g}, limit 65504); its training has diverged"
            )
            raise WeightsError(msg)
        state[key] = half
    return state
