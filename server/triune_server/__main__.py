"""python -m triune_server: a server's commands alone, so that a running server holds nothing of the builder in memory."""

from triune_runtime.command_line import errors_told
from triune_runtime.interruption import end_on_interrupt

end_on_interrupt()

with errors_told(passing=()):
    from .cli import app  # while this is imported, ctrl-C is heard

    app()
