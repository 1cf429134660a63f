"""Images with annotation files of Pascal VOC."""
