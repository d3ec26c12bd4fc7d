"""Models of torch as seeds."""

import sys

from fnatool import CalledFolder

sys.modules[__name__].__class__ = CalledFolder  # fnatool.export(…) is the function, fnatool.export.… what is in here
