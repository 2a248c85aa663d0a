"""triune doctor: is this machine fit for a model, and why is a server slow; triune profile. A file for each group of checks."""
