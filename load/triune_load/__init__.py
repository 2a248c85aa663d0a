"""Load tests of servers of language models, with every answer checked. `triune-load --help`; the manual is docs/load.md."""
