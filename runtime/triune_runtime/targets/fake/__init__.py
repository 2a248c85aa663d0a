"""A target without a model, for tests and for trying the server out."""
