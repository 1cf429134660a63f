"""Images that are sorted into folders, one for each class."""
