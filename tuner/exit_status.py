"""Exit statuses of the commands."""

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: done; failed: no trial has a result, or too many failed; what the user gave is wrong; interrupted."""
