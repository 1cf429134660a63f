"""Exit statuses of the commands."""

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""The job is done; it failed (no trial has a result, or too many failed); the user's input is wrong; interrupted."""
