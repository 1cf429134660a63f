"""Code that runs on workers: trials, their output, checkpoints and system metrics. Imports nothing of the driver."""
