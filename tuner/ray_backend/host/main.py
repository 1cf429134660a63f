"""The script of a host's process, which takes the address to listen on.

It listens at once: proxies wait for what it imports as they wait for their trials.
"""

import os
import sys
from multiprocessing.connection import Listener

if __name__ == "__main__":
    before = os.umask(0o077)  # nobody else may connect
    listener = Listener(sys.argv[1], "AF_UNIX", backlog=1024)
    os.umask(before)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # its standard input was a pipe, whose end tells that it listens
    os.close(nothing)

    from tuner.ray_backend.host.server import serve

    serve(listener)
