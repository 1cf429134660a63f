"""What writes a job's runs to MLflow: messages, a process of its own, and the way into the store."""
