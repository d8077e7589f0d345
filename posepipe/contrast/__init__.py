"""The contrast of an image: conversion of T1w to T2-like images, and a check of the contrast against the template.

- :class:`~posepipe.contrast.converter.Converter` converts a newborn's T1w image by a conditional GAN (Salehi et al. 2018, §3.3).
- :mod:`~posepipe.contrast.check` compares a brain's contrast with the template's.
"""
