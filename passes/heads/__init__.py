"""Heads: passes that put a task's head on tensors of a network."""

from passes.heads.attaching import STYLES, Attached, Head, attach, default_taps
from passes.heads.detection import Detection, Level
from passes.heads.image import Image, image_of
from passes.heads.taps import Tap, chart

__all__ = ["STYLES", "Attached", "Detection", "Head", "Image", "Level", "Tap", "attach", "chart", "default_taps", "image_of"]
