"""Images with annotation files of COCO."""
