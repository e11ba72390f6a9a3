"""``torchvision:NAME``: torchvision's models, with random weights. Nothing is fetched."""

import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import BadInput
from ..spec import ModelSpec, Preprocessing, Source, TensorSpec
from ..versions import versions
from ._library import imported, refuse_weights, unknown

SOURCE = Source(
    form="torchvision:NAME",
    title="a model of torchvision, such as torchvision:vit_b_16",
    patterns=("torchvision:*",),
    needs=("torchvision",),
    extra="torchvision",
)
_SIDE = 224
_FRAMES = 16
"""Of a clip, at which torchvision's video models were trained."""


def find(words: str, settings: dict[str, Any]) -> ModelSpec:
    """The spec of a model; settings go to its builder."""
    name = words.removeprefix("torchvision:")
    if not name:
        raise BadInput(f"{words!r} is not torchvision:NAME", "write for example torchvision:resnet50")
    refuse_weights(words, settings, ("weights", "weights_backbone", "pretrained", "pretrained_backbone"))
    return ModelSpec(
        name=words,
        factory=partial(_factory, name),
        settings=settings,
        changed=bool(settings),
        source="torchvision",
        preprocessing=partial(_preprocessing, name),
    )


def _factory(name: str) -> Callable[..., Any]:
    models = _models()
    if name not in models.list_models():
        raise unknown("torchvision", name, models.list_models(), "torchvision.models.list_models() lists all")
    builder = models.get_model_builder(name)
    # Without a word on its backbone, a detector would fetch trained weights for that.
    none = {word: None for word in ("weights", "weights_backbone") if word in inspect.signature(builder).parameters}
    example = TensorSpec(_shape(_transforms(name).get("crop_size", _SIDE)))

    def build(**settings: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how slow its initialisation is
            return builder(**none, **settings), (example,)

    return build


def _models() -> Any:
    imported("torchvision")
    return imported("torchvision.models")


def _shape(crop: Any) -> tuple[int, ...]:
    """Of one image, or of one clip where the crop has two sides."""
    return (1, 3, _FRAMES, *crop) if isinstance(crop, tuple | list) else (1, 3, crop, crop)


def _transforms(name: str) -> dict[str, Any]:
    """What the transforms of its newest weights are called with; empty where none are published."""
    try:
        transforms = _models().get_model_weights(name).DEFAULT.transforms
    except (ValueError, AttributeError):
        return {}
    return dict(getattr(transforms, "keywords", {}))


def _preprocessing(name: str) -> Preprocessing | None:
    said = _transforms(name)
    if not isinstance(said.get("crop_size"), int):
        return None
    steps = _models().get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(
        layout="NCHW, RGB",
        range=(0.0, 1.0),
        mean=tuple(steps.mean),
        std=tuple(steps.std),
        resize=steps.resize_size[0],
        crop=steps.crop_size[0],
        interpolation=steps.interpolation.value,
        source=f"torchvision {versions('torchvision').get('torchvision', '')}, {_models().get_model_weights(name).DEFAULT}",
    )
