"""How good a pose is: the verdict ``pass``, ``review`` or ``fail`` with its reasons, and the probability that the pose is right.

- :func:`~posepipe.quality.verdict.judge_pose` and :class:`~posepipe.quality.verdict.Quality`.
- :func:`~posepipe.quality.confidence.confidence`, whose model lies in the calibration (:mod:`posepipe.models.calibration`).
"""
