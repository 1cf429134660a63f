"""Which versions of the models answer, and how one takes over from another."""
