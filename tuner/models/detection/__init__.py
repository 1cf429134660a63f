"""Detectors: models that find the objects of an image and their boxes, and compute their loss themselves.

They import nothing but what all models do.
"""
