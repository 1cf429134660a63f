"""What a process of ours does with signals, with memory, and as it starts.

It imports the ground, and is imported by every package.
"""
