"""python -m triune_server"""

from .cli import main

main()
