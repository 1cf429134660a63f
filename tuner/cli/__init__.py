"""The command line: `app` names the commands; beside it are one file for each group of them, and what they share."""
