"""`python -m fnatool`."""

from fnatool.cli import main

main()
