"""One page that shows what was made of a network and why: `fnatool.report`."""

from __future__ import annotations

import sys

from fnatool import CalledFolder

sys.modules[__name__].__class__ = CalledFolder
