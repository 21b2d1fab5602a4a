"""`python -m robustrecon`."""

from .cli import main

main()
