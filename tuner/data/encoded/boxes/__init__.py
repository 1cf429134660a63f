"""Images and boxes: rectangles around objects, each with a class. Each format has a folder; here is what they share."""
