"""triune doctor: is this machine fit for this model, and why is a server slow; triune profile. A file for each group of checks."""
