"""Models as graphs that others compute: how they are traced, written as ONNX, and timed."""
