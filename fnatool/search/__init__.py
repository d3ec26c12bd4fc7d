"""Search: which member of a Space is best for a task within a budget."""

import sys

from fnatool import CalledFolder

sys.modules[__name__].__class__ = CalledFolder  # fnatool.search(…) is the function, fnatool.search.… what is in here
