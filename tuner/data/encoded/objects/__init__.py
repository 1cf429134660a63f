"""Masks of objects, coded as by `tuner.interfaces.instances`: how they are drawn, and lie behind decoded images."""
