"""python -m triune_builder"""

from triune_runtime.interruption import end_on_interrupt

if __name__ == "__main__":
    end_on_interrupt()
    from .cli import app  # while this is imported, ctrl-C is heard

    app()
