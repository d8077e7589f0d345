"""Where the posepipe that runs comes from: the address of its code, and the container around it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

TAG = "POSEPIPE_IMAGE"
"""Name and tag of the container image, an environment variable that the Dockerfile sets."""
_APPTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
"""Variables that Apptainer and Singularity set inside a container to where its image lies; Apptainer sets both."""


def code_url(installed: Distribution | None = None) -> str | None:
    """The address of the code: what pip recorded of an installation from a repository, with the commit (PEP 610), else the ``Source`` of
    the package's metadata; None where neither names an address on the web.

    ``installed`` is posepipe's distribution, looked up if not given.
    """
    try:
        found = installed or distribution("posepipe")
    except PackageNotFoundError:
        return None
    try:
        direct = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        direct = {}
    commit = direct.get("vcs_info", {}).get("commit_id")
    if commit and str(direct.get("url")).startswith("https://"):
        return f"{direct['url']}@{commit}"
    urls = (text.partition(", ") for text in found.metadata.get_all("Project-URL") or ())
    return next((url for name, _, url in urls if name == "Source"), None)


def container(environ: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """``Container`` of BIDS: its ``Type``, and ``Tag`` and ``URI`` where they are known; None outside a container that says so.

    >>> container({"POSEPIPE_IMAGE": "posepipe:0.1.0"})
    {'Type': 'docker', 'Tag': 'posepipe:0.1.0'}
    >>> container({"APPTAINER_CONTAINER": "/images/p.sif", "SINGULARITY_CONTAINER": "/images/p.sif"})
    {'Type': 'apptainer', 'URI': 'file:///images/p.sif'}
    >>> container({}) is None
    True
    """
    tag = {"Tag": environ[TAG]} if environ.get(TAG) else {}
    for variable in _APPTAINER:
        if image := environ.get(variable):
            uri = image if "://" in image else Path(image).as_uri() if Path(image).is_absolute() else ""
            kind = variable.partition("_")[0].lower()
            return {"Type": kind, **tag, **({"URI": uri} if uri else {})}
    if not tag:
        return None
    return {"Type": "podman" if environ.get("container") == "podman" else "docker", **tag}
