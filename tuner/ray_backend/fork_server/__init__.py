"""The fork server: the process from which workers of a Ray on this host are forked, with their libraries imported.

Imports the internals of Ray beside it and the workers' modules, and nothing of the control loop.
"""
