"""python -m triune_server: a server's commands alone, so that a running server holds nothing of the builder in memory."""

from .cli import app

app()
