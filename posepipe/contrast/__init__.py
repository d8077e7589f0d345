"""The contrast of an image: T1-weighted slices converted to T2-like ones, and whether a brain has the contrast of its template.

- :class:`~posepipe.contrast.converter.Converter` converts a newborn's T1w image by a conditional GAN (Salehi et al. 2018, §3.3).
- :mod:`~posepipe.contrast.check` compares a brain's contrast with the template's.
"""
