"""The command line: `app` lists the commands; the other modules implement them, one module for each group.

Imports every other package.
"""
