"""Images and their labels in CSV files."""
