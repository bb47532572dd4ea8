"""``python -m nngen``."""

from nngen.cli import main

main()
