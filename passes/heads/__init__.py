"""Heads: passes that put a task's head on tensors of a network."""

from passes.heads.attaching import STYLES, Attached, Head, attach
from passes.heads.detection import Detection, Level
from passes.heads.record import Image, Pose, image_of, record
from passes.heads.taps import Tap, chart

__all__ = ["STYLES", "Attached", "Detection", "Head", "Image", "Level", "Pose", "Tap", "attach", "chart", "image_of", "record"]
