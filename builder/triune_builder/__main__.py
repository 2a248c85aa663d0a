"""python -m triune_builder"""

from triune_runtime.command_line import errors_told
from triune_runtime.interruption import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    with errors_told(passing=()):
        from .cli import app  # while this is imported, ctrl-C is heard

        app()
