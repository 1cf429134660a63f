"""Where the time of a training goes: measured in its epochs, split by torch's profiler, and what to change.

It watches `tuner.train.loop.fit`, which trains as it does without it. Nothing here is imported where nobody asks.
"""
