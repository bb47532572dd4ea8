"""``python -m nngen.cli``."""

from nngen.cli import main

main()
