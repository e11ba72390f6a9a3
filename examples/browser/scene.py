"""Draw the example's picture, a boat on a lake at evening, so that it is nobody's but ours. Needs Pillow.

Run: python examples/browser/scene.py, which writes scene.png beside it.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT, FINE = 480, 360, 3
"""Drawn three times as large and shrunk, which smooths the edges."""
HORIZON = 0.62


def shade(top: tuple[int, int, int], bottom: tuple[int, int, int], height: int) -> np.ndarray:
    """A vertical gradient: (height, width, 3) in 0 to 255."""
    share = np.linspace(0, 1, height)[:, None, None]
    rows = (1 - share) * np.array(top) + share * np.array(bottom)
    return np.broadcast_to(rows, (height, WIDTH * FINE, 3))


def ridge(base: float, rise: float, phase: float) -> list[tuple[float, float]]:
    """The outline of a range of hills, in the drawing's pixels."""
    x = np.linspace(0, 1, 200)
    waves = 0.6 * np.sin(7 * x + phase) + 0.3 * np.sin(17 * x + 2 * phase) + 0.1 * np.sin(41 * x + 5 * phase)
    y = base - rise * (0.55 + 0.45 * waves)
    outline = [(float(a) * WIDTH * FINE, float(b) * HEIGHT * FINE) for a, b in zip(x, y, strict=True)]
    return [*outline, (WIDTH * FINE, HORIZON * HEIGHT * FINE), (0, HORIZON * HEIGHT * FINE)]


def draw() -> Image.Image:
    """The whole picture."""
    line = int(HORIZON * HEIGHT * FINE)
    sky = shade((44, 62, 112), (255, 190, 120), line)
    water = shade((240, 160, 110), (28, 46, 84), HEIGHT * FINE - line)
    image = Image.fromarray(np.concatenate([sky, water]).astype(np.uint8))
    pen = ImageDraw.Draw(image)

    def disc(x: float, y: float, radius: float, colour: str) -> None:
        pen.ellipse([(x - radius) * FINE, (y - radius) * FINE, (x + radius) * FINE, (y + radius) * FINE], colour)

    def shape(points: list[tuple[float, float]], colour: str) -> None:
        pen.polygon([(x * FINE, y * FINE) for x, y in points], colour)

    disc(330, 165, 34, "#ffd58a")
    disc(330, 165, 28, "#fff0c4")
    pen.polygon(ridge(HORIZON, 0.26, 0.4), "#7a6a8e")
    pen.polygon(ridge(HORIZON, 0.16, 2.1), "#4b4a72")
    pen.polygon(ridge(HORIZON, 0.07, 4.0), "#2c3354")
    waves = np.random.default_rng(0)
    for _ in range(70):  # the sun on the water
        y = waves.uniform(HORIZON * HEIGHT + 3, HEIGHT - 4)
        half = waves.uniform(3, 10) * (y / HEIGHT)
        x = 330 + waves.normal() * 16 * (y / HEIGHT) ** 2
        pen.line([((x - half) * FINE, y * FINE), ((x + half) * FINE, y * FINE)], "#ffe2a8", width=FINE)
    shape([(150, 92), (150, 246), (78, 246)], "#f4efe6")
    shape([(157, 112), (157, 246), (222, 246)], "#d96c4f")
    shape([(151, 84), (155, 84), (155, 262), (151, 262)], "#3a2b26")
    shape([(70, 256), (236, 256), (212, 284), (94, 284)], "#6e3b2e")
    shape([(70, 256), (236, 256), (232, 262), (75, 262)], "#f1e3c8")
    for place in range(5):
        half = 62 - 9 * place
        y = 291 + 8 * place
        pen.line([((153 - half) * FINE, y * FINE), ((153 + half) * FINE, y * FINE)], "#3b3550", width=2 * FINE)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("scene.png"), optimize=True)
