"""Heads: passes that put a task's head on tensors of a network."""

from passes.heads.attaching import STYLES, Attached, attach, default_taps, seen_by
from passes.heads.detection import BoxCoding, HeadLevel
from passes.heads.image import HeadImage, image_of
from passes.heads.style import HeadSpec
from passes.heads.tap import Tap
from passes.heads.taps import chart

__all__ = [
    "STYLES",
    "Attached",
    "BoxCoding",
    "HeadImage",
    "HeadLevel",
    "HeadSpec",
    "Tap",
    "attach",
    "chart",
    "default_taps",
    "image_of",
    "seen_by",
]
