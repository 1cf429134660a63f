"""The training of one trial in this process, without Ray and MLflow: one of a file, or one that was recorded."""
