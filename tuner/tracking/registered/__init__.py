"""Models in the registry of MLflow: how one is registered, what a version holds, and where aliases lead."""
