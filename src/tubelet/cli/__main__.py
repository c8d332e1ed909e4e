"""`python -m tubelet.cli` is the command `tubelet`."""

from tubelet.cli import main

main()
