"""Comparing a brain with a template: what poses are proposed, fitted and judged by.

- :class:`~posepipe.matching.brain.Brain`: an image and its mask, ready to be compared.
- :class:`~posepipe.matching.target.Target`: a template, the same.
- :class:`~posepipe.matching.comparison.Comparison`: one against the other.
- :mod:`~posepipe.matching.channels`: what is compared (outline, texture, at several blurs);
  :mod:`~posepipe.matching.gauss_newton`: fitting poses to it; :mod:`~posepipe.matching.mutual_information`: the last steps of a fit.
- :mod:`~posepipe.matching.rotation_bank`: a template turned every way; :mod:`~posepipe.matching.similarity`: figures of a finished pose.
"""
