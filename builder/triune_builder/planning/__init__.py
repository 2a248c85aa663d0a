"""`triune plan`: what a model needs on which GPUs, and how fast it will be there, from config.json and headers alone."""
