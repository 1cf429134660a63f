"""What answers a request: its replicas, and how they decode, batch and predict."""
