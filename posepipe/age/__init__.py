"""How old a brain is, from the image: its size, and how well the cohorts of an atlas match it.

- :class:`~posepipe.age.estimator.AgeEstimator` fits the cohorts and says an age with its error, or that it cannot tell.
- :mod:`~posepipe.age.curves` holds the model of it (:class:`~posepipe.age.curves.AgeModel`), whose constants lie in ``age.toml``.
"""
