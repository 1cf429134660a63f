"""One step of the optimizer: how it is computed, and how it is recorded to be repeated without Python.

It imports the optimizers, tasks and the ground. A way to record is a `Recorder`; see `recording`.
"""
