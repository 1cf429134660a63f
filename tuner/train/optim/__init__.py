"""Optimizers, learning-rate schedules, and what a step needs beside them. To add one, see the module of its union.

It imports models (the stages of layers) and the ground.
"""
