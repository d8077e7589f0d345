"""Refinement of the initial pose: rigid registration to the template, by Gauss–Newton steps in torch or by ANTs.

- :func:`~posepipe.refinement.refine.refine_pose` and :class:`~posepipe.refinement.refine.Refined`.
- :mod:`~posepipe.refinement.ants`: ANTs' rigid registration.
"""
