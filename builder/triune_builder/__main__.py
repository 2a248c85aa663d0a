"""python -m triune_builder"""

from .cli import app

if __name__ == "__main__":
    app()
