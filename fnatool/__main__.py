"""`python -m fnatool`."""

from fnatool.cli.entry import main

main()
