"""Export the models that the page runs, and what Python's ONNX Runtime makes of the picture with each of them.

Run: python examples/browser/prepare.py [MODEL ...] [--weights MODEL=FILE ...] [--labels FILE]
Needs mixbench and Pillow. It writes models/, with index.json, which the page reads first.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

FOLDER = Path(__file__).resolve().parent
MODELS = ("ghostnetv2", "affnet")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def export(model: str, folder: Path, *options: str) -> Path:
    """Export a model with the mixbench of this Python, and return its file."""
    path = folder / f"{model}.onnx"
    subprocess.run([sys.executable, "-m", "mixbench", "export", model, "-o", str(path), *options], check=True)
    return path


def preprocess(image: Image.Image, metadata: dict[str, str]) -> np.ndarray:
    """The input that a file asks for: shorter side resized, middle cut out, normalised; (1, 3, crop, crop) float32."""
    resize, crop = int(metadata["resize"]), int(metadata["crop"])
    shorter = min(image.size)
    width, height = (resize * side // shorter for side in image.size)
    image = image.convert("RGB").resize((width, height), FILTERS[metadata["interpolation"]])
    left, top = (width - crop) // 2, (height - crop) // 2
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop)), np.float64) / 255
    low, high = json.loads(metadata["input_range"])
    mean, std = np.array(json.loads(metadata["mean"])), np.array(json.loads(metadata["std"]))
    normalised = (pixels * (high - low) + low - mean) / std
    return normalised.transpose(2, 0, 1)[None].astype(np.float32)


def entry(path: Path, image: Image.Image) -> dict[str, Any]:
    """What index.json says of a file: its name, and its logits for the picture as Python has them."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    (logits,) = session.run(None, {session.get_inputs()[0].name: preprocess(image, metadata)})
    return {"file": path.name, "expected": [float(value) for value in logits.ravel()]}


def prepare(
    models: tuple[str, ...] = MODELS, folder: Path = FOLDER / "models", options: dict[str, list[str]] | None = None
) -> None:
    """Export the models into a folder and write its index."""
    folder.mkdir(exist_ok=True)
    with Image.open(FOLDER / "scene.png") as image:
        entries = [entry(export(model, folder, *(options or {}).get(model, [])), image) for model in models]
    (folder / "index.json").write_text(json.dumps({"models": entries, "runtime": onnxruntime.__version__}), encoding="utf-8")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--weights", action="append", default=[], metavar="MODEL=FILE")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line, for all models")
    arguments = parser.parse_args()
    options: dict[str, list[str]] = {
        model: ["--labels", arguments.labels] if arguments.labels else [] for model in arguments.models
    }
    for word in arguments.weights:
        model, _, file = word.partition("=")
        if model not in options or not file:
            parser.error(f"--weights {word} is not MODEL=FILE for one of {', '.join(options)}")
        options[model] += ["--weights", file]
    prepare(tuple(arguments.models), options=options)


if __name__ == "__main__":
    main()
