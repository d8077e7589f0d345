"""Run by the interpreter of FireANTs' environment, without posepipe: registers the pairs of files that it is given line by line."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """A line in: ``[template, image]``; a line out: ``ANSWER`` and the matrix template → image (LPS), seconds and peak memory."""
    import torch

    torch.set_num_threads(int(sys.argv[1]))
    import fireants.registration.moments
    import fireants.registration.rigid  # noqa: F401

    _answer({"ready": True})
    for line in sys.stdin:
        try:
            _answer(_registered(*json.loads(line)))
        except Exception as error:  # one image that fails must not end the others
            _answer({"error": f"{type(error).__name__}: {error}"})


def _registered(template: str, image: str) -> dict:
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.moments import MomentsRegistration
    from fireants.registration.rigid import RigidRegistration

    begun, before = time.perf_counter(), time.process_time()
    fixed, moving = (BatchedImages([Image.load_file(path, device="cpu")]) for path in (template, image))
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    moments = MomentsRegistration(scale=1, fixed_images=fixed, moving_images=moving, moments=2, orientation="rot")
    moments.optimize()
    rigid = RigidRegistration(
        scales=[4, 2, 1], iterations=[200, 100, 50], fixed_images=fixed, moving_images=moving, optimizer="Adam", optimizer_lr=3e-3,
        init_translation=moments.get_rigid_transl_init(), init_moment=moments.get_rigid_moment_init(),
    )  # fmt: skip
    rigid.optimize()
    seconds, processor = time.perf_counter() - begun, time.process_time() - before
    matrix = rigid.get_rigid_matrix()[0].detach().cpu().numpy().tolist()
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next((int(row.split()[1]) * 1024 / 1e6 for row in status if row.startswith("VmHWM:")), 0.0)
    return {"matrix": matrix, "read": read, "seconds": seconds, "processor": processor, "peak_mb": peak}


def _answer(what: dict) -> None:
    print("ANSWER " + json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
