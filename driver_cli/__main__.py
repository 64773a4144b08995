"""`python -m driver_cli` is the `metis` command."""

from .main import main

main()
