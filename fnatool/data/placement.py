"""Where an image, or the part of it that a model is shown, lies in the model's input; and the way back for what the
model finds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]  # height, width
Pair = tuple[float, float]  # down, across


@dataclass(frozen=True)
class Placement:
    """input = image · scale + shift, down and across; coordinates have (0, 0) at the corner of the first pixel."""

    image: Size
    scale: Pair
    shift: Pair

    def points_to_image(self, points: npt.NDArray[np.floating]) -> Floats:
        """[…, 2] x, y in the input → in the image."""
        scale, shift = np.array(self.scale[::-1]), np.array(self.shift[::-1])
        return np.asarray((points - shift) / scale, np.float32)

    def boxes_to_image(self, boxes: npt.NDArray[np.floating]) -> Floats:
        """[n, 4] left, top, right, bottom in the input → in the image, cut to it."""
        corners = self.points_to_image(boxes.reshape(-1, 2, 2))
        return np.clip(corners, 0, np.array(self.image[::-1], np.float32)).reshape(-1, 4)
