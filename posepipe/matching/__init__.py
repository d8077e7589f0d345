"""Similarity of a brain and a template: candidate poses, pose optimisation and scores.

- :class:`~posepipe.matching.brain.Brain`: an image and its mask, resampled and standardised for the comparison.
- :class:`~posepipe.matching.target.Target`: the same for a template.
- :class:`~posepipe.matching.comparison.Comparison`: one brain against one target.
- :mod:`~posepipe.matching.channels`: the channels that are compared (outline and texture, at several blurs);
  :mod:`~posepipe.matching.gauss_newton`: pose optimisation; :mod:`~posepipe.matching.mutual_information`: its last steps.
- :mod:`~posepipe.matching.rotation_bank`: a template sampled at a grid of rotations; :mod:`~posepipe.matching.similarity`: the similarity
  measures that are reported.
"""
