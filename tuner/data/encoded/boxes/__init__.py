"""Images and boxes: rectangles around objects, each with a class."""
