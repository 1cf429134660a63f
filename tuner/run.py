"""``python -m tuner.run FILE`` runs an experiment; ``from tuner.run import run`` does so from Python."""

import sys

if __name__ == "__main__":
    from tuner.cli.app import console

    sys.argv.insert(1, "run")
    console()  # it imports what follows when it is needed
else:
    from tuner.jobs.driver import prepare, run
    from tuner.jobs.result import FAILED, INTERRUPTED, OK, WRONG, Result
    from tuner.trials.layout import job_folder

__all__ = ["FAILED", "INTERRUPTED", "OK", "WRONG", "Result", "job_folder", "prepare", "run"]
