"""A server that only pretends, and what this tool measures of it: the tool's own cost, and whether its figures are right."""
