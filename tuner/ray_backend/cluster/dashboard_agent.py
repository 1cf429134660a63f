"""What Ray's node manager runs in place of its own agent of the dashboard, which no job uses.

The node manager has to have an agent: it ends when that ends, and waits for its ports. Ray's own one computes for a
second as it starts, although it has nothing to do where there is no dashboard. This one says that it has no ports, as
Ray's does where the packages of the dashboard are not installed, and ends with the node manager. It imports the
standard library alone, and nothing of tuner.
"""

import os
import sys
import time
from pathlib import Path

PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
"""What Ray calls the ports, each of which is written to a file of the session."""

_NONE = "-1"
_PAUSE = 1.0  # seconds between looks at the node manager


def main(arguments: list[str]) -> None:
    """Be the agent.

    Args:
        arguments: What Ray passes to its own agent: the path of its script, and options.
    """
    options = dict(each.removeprefix("--").partition("=")[::2] for each in arguments if each.startswith("--"))
    folder = Path(options["session-dir"])
    for port in PORTS:
        file = folder / f"{port}_{options['node-id']}"
        unfinished = file.with_suffix(".new")
        unfinished.write_text(_NONE)
        unfinished.rename(file)
    node_manager = int(os.environ["RAY_RAYLET_PID"])
    while os.getppid() == node_manager:
        time.sleep(_PAUSE)


if __name__ == "__main__":
    main(sys.argv[1:])
