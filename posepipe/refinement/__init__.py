"""From an initial pose to the final one: rigid registration to the template, by posepipe's own steps in torch or by ANTs.

- :func:`~posepipe.refinement.refine.refine_pose` and :class:`~posepipe.refinement.refine.Refined`.
- :mod:`~posepipe.refinement.ants`: ANTs' rigid registration.
"""
