"""``python -m tuner`` is the command line."""

from tuner.cli.app import console

if __name__ == "__main__":
    console()
