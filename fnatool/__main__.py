"""`python -m fnatool`."""

from fnatool.entry import main

main()
