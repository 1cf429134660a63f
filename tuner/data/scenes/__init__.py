"""Scenes of digits, made by a seed."""
