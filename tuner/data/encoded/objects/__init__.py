"""Masks of objects, as the codes of `tuner.instances`: how they are drawn, and how they lie behind decoded images."""
