"""A batch of pictures to draw on, in layers.

A layer's outline is given row by row: where its middle is and how wide it is. So one layer of a whole batch costs a few
array operations. Shapes: B images, H rows, W columns; numbers are float32, colours RGB between 0 and 1.
"""

from typing import NamedTuple

import numpy as np

Numbers = float | np.ndarray
Ends = tuple[Numbers, Numbers]


class Layer(NamedTuple):
    rows: slice
    alpha: np.ndarray
    """[B, rows, W]: how much of each pixel is covered."""


class Canvas:
    """A batch of pictures [B, 3, H, W] with a coordinate system for each: x to the right, v upwards."""

    def __init__(self, pixels: np.ndarray, foot: np.ndarray, middle: np.ndarray, size: np.ndarray):
        """Puts (x, v) = (0, 0) at row `foot`, column `middle` and lets `size` image heights be the unit; each [B]."""
        height, width = pixels.shape[2:]
        y = (np.arange(height, dtype=np.float32) + 0.5) / height
        x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / height
        self.pixels = pixels
        self.v = (foot[:, None] - y) / size[:, None]
        self.x = (x - middle[:, None]) / size[:, None]
        self.sharpness = height * size[:, None]

    def layer(self, low: Numbers, high: Numbers, middle: Ends, half: Ends, corner: int = 8) -> Layer:
        """Where a shape between the heights `low` and `high` covers the pixels.

        `middle` and `half` (half-width) are pairs, at the low and the high end, one number or [B] each. `corner`, a
        power of two, makes it an ellipse (2) or a box with ever sharper corners. A negative half-width hides it.
        """
        ends = (low, high, *middle, *half)
        low, high, low_middle, high_middle, low_half, high_half = (
            np.reshape(e, (-1, 1)).astype(np.float32) for e in ends
        )
        margin = 0.5 / self.sharpness
        touched = np.flatnonzero(((self.v > low - margin) & (self.v < high + margin)).any(axis=0))
        rows = slice(touched[0], touched[-1] + 1) if len(touched) else slice(0, 0)
        v = self.v[:, rows]
        share = np.clip((v - low) / (high - low), 0, 1)
        bend = 2 * share - 1
        while corner > 1:
            bend, corner = bend * bend, corner // 2
        centre = low_middle + share * (high_middle - low_middle)
        width = (low_half + share * (high_half - low_half)) * np.sqrt(1 - bend)
        alpha = np.abs(self.x[:, None, :] - centre[:, :, None])
        alpha *= -self.sharpness[:, :, None]
        alpha += (0.5 + width * self.sharpness)[:, :, None]
        np.clip(alpha, 0, 1, out=alpha)
        within = np.clip(0.5 + np.minimum(v - low, high - v) * self.sharpness, 0, 1)
        alpha *= (within * (low_half >= 0))[:, :, None]
        return Layer(rows, alpha)

    def blend(self, layer: Layer, colour: np.ndarray) -> None:
        """Puts a colour, [B, 3] or by rows [B, 3, H], over the picture where the layer covers it."""
        pixels = self.pixels[:, :, layer.rows]
        colour = colour[:, :, None, None] if colour.ndim == 2 else colour[:, :, layer.rows, None]
        change = colour - pixels
        change *= layer.alpha[:, None]
        pixels += change

    def paint(self, colour: np.ndarray, low: Numbers, high: Numbers, middle: Ends, half: Ends, corner: int = 8) -> None:
        """A `layer` blended at once."""
        self.blend(self.layer(low, high, middle, half, corner), colour)

    def split(self, height: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
        """Colours by rows [B, 3, H]: one colour above a height [B], another below."""
        return np.where((self.v > height[:, None])[:, None], above[:, :, None], below[:, :, None])
