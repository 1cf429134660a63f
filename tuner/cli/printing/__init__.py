"""What the commands print: tables, JSON, progress. Nothing here decides what is done."""
