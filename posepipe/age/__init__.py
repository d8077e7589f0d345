"""Age estimation from the image: by the brain's size and its similarity to the cohorts of an atlas.

- :class:`~posepipe.age.estimator.AgeEstimator` fits the cohorts and returns an age with its standard error and warnings.
- :mod:`~posepipe.age.curves` holds the model (:class:`~posepipe.age.curves.AgeModel`); its constants are in ``age.toml``.
"""
