"""The host of a GPU: one process that trains many trials at once, each of which a worker of Ray schedules.

A worker is the proxy of its trial: it starts the host if there is none, passes its task on, and reports to Ray what the
host sends. It imports no torch and has no context on the GPU.
"""
