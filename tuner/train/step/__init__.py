"""One step of the optimizer: where its batch comes from, how it is computed, and how it is recorded and repeated.

It imports the optimizers, tasks, data and the ground. A way to record is a `Recorder`; see `recording`.
"""
