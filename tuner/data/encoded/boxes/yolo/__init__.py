"""Images with label files of YOLO."""
