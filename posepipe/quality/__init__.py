"""Quality control of a pose: the verdict ``pass``, ``review`` or ``fail`` with its reasons, and the probability that the pose is correct.

- :func:`~posepipe.quality.verdict.judge_pose` and :class:`~posepipe.quality.verdict.Quality`.
- :func:`~posepipe.quality.confidence.confidence`, with the model of the calibration file (:mod:`posepipe.models.calibration`).
"""
