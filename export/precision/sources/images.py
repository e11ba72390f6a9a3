"""Calibration data from a folder of images, prepared as the model's metadata says that its inputs are."""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ....models.errors import BadInput, first_line
from .check import spread

if TYPE_CHECKING:
    from ..calibration import Input


@dataclass(frozen=True, slots=True)
class Preparation:
    """From an image to an input: resized, the middle cut out, pixels laid on a range, ``mean`` taken off, divided by ``std``.

    Attributes:
        height, width: of the input; ``resize`` is the image's shorter side before the cut, in pixels.
        low, high: what black and white are before ``mean``, one number for each channel.
        swapped: whether blue comes first.
        last: whether channels are the last dimension.
    """

    height: int
    width: int
    resize: int
    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    swapped: bool
    last: bool

    @classmethod
    def of(cls, inputs: Sequence["Input"], metadata: Mapping[str, str]) -> "Preparation":
        """Read it from what the file says.

        Raises:
            BadInput: when the model takes no single image, or doesn't say its mean and std.
        """
        instead = "give a file.npz or a loader instead of a folder"
        layout = metadata.get("input_layout", "NCHW, RGB")
        shape = inputs[0].shape if len(inputs) == 1 else ()
        channels, height, width = _image_sides(shape, layout)
        if channels not in (1, 3) or inputs[0].dtype.kind != "f":
            raise BadInput("the model does not take one image of 1 or 3 channels", instead)
        if height is None or width is None:
            raise BadInput("the model's image size is open, so that images have none to be brought to", instead)
        mean, std = _numbers(metadata, "mean"), _numbers(metadata, "std")
        if len(mean) != channels or len(std) != channels or 0 in std:
            what = f"the file's metadata has no mean and std of {channels} channels, so that images can't be prepared for it"
            raise BadInput(what, instead)
        low, high = _numbers(metadata, "input_range") or (0.0, 1.0)
        resize, crop = _numbers(metadata, "resize"), _numbers(metadata, "crop")
        # An input of another size than the published one keeps the share of the image that is cut away.
        short = round(min(height, width) * (resize[0] / crop[0] if resize and crop else 1))
        how = metadata.get("interpolation", "bilinear")
        return cls(height, width, short, low, high, mean, std, how, "BGR" in layout, layout.startswith("NHWC"))


def _image_sides(shape: tuple[int | None, ...], layout: str) -> tuple[int | None, int | None, int | None]:
    if len(shape) != 4:
        return None, None, None
    return (shape[3], shape[1], shape[2]) if layout.startswith("NHWC") else (shape[1], shape[2], shape[3])


def _numbers(metadata: Mapping[str, str], key: str) -> tuple[float, ...]:
    """A number or a list of numbers, as JSON or with commas alone; none where it says nothing or something else."""
    text = metadata.get(key, "")
    try:
        return tuple(float(number) for number in json.loads(text if text.startswith("[") else f"[{text}]"))
    except (ValueError, TypeError):
        return ()


def read_images(folder: Path, inputs: Sequence["Input"], metadata: Mapping[str, str], most: int) -> list[dict[str, np.ndarray]]:
    """At most so many images of a folder and those below it, in the order of their paths; other files are passed over.

    Raises:
        BadInput: when there is no image, one can't be read, or the model's inputs are no image.
    """
    from PIL import Image

    preparation = Preparation.of(inputs, metadata)
    known = Image.registered_extensions()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file())
    if not paths:
        raise BadInput(f"there is no image in the folder {str(folder)!r}", "JPEG, PNG, and whatever else Pillow reads")
    chosen = [prepare(paths[place], preparation) for place in spread(len(paths), most)]
    batch = inputs[0].shape[0] or 1
    if len(chosen) < batch:
        what = f"the folder {str(folder)!r} has {len(chosen)} images, and the model takes {batch} at once"
        raise BadInput(what, "add images, or export with --batch 1")
    whole = range(0, len(chosen) - len(chosen) % batch, batch)
    return [{inputs[0].name: np.stack(chosen[start : start + batch]).astype(inputs[0].dtype)} for start in whole]


def prepare(path: Path, how: Preparation) -> np.ndarray:
    """One image as the model takes it, without a batch.

    Raises:
        BadInput: when it can't be read.
    """
    from PIL import Image, ImageOps

    filters = {"nearest": Image.Resampling.NEAREST, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                image = ImageOps.exif_transpose(opened).convert("RGB" if len(how.mean) == 3 else "L")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInput(f"the image {str(path)!r} can't be read: {first_line(error)}", "mend it or take it out") from error
    short = max(how.resize / min(image.size), how.width / image.width, how.height / image.height)
    size = (max(how.width, round(image.width * short)), max(how.height, round(image.height * short)))
    image = image.resize(size, filters.get(how.interpolation, Image.Resampling.BILINEAR))
    left, top = (image.width - how.width) // 2, (image.height - how.height) // 2
    cut = np.asarray(image.crop((left, top, left + how.width, top + how.height)), dtype=np.float32)
    pixels: np.ndarray = cut.reshape(how.height, how.width, -1)
    pixels = pixels[..., ::-1] if how.swapped else pixels
    pixels = how.low + pixels * np.float32((how.high - how.low) / 255)
    pixels = (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return pixels if how.last else pixels.transpose(2, 0, 1)
