"""Deployment: a model with all around it in one graph, and its answers as pictures."""

import sys

from fnatool import CalledFolder

sys.modules[__name__].__class__ = CalledFolder  # fnatool.deploy(…) is the function, fnatool.deploy.… what is in here
