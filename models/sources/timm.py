"""``timm:NAME``: image models of timm, with random weights. Nothing is fetched."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import BadInput
from ..spec import ModelSpec, Preprocessing, Source, TensorSpec
from ._library import imported, refuse_weights, unknown

SOURCE = Source(
    form="timm:NAME",
    title="an image model of timm, such as timm:resnet50",
    patterns=("timm:*",),
    needs=("timm",),
    extra="timm",
)
_FETCHING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "cache_dir")


def find(words: str, settings: dict[str, Any]) -> ModelSpec:
    """The spec of a model, with or without the tag of its weights; settings go to ``timm.create_model``."""
    name = words.removeprefix("timm:")
    if not name or set(name) & set(":/\\"):  # timm would look these up in a hub or in a folder
        raise BadInput(f"{words!r} is not timm:NAME", "write for example timm:resnet50; hf: takes folders and ids of the hub")
    refuse_weights(words, settings, _FETCHING)
    return ModelSpec(
        name=words,
        factory=partial(_factory, name),
        settings=settings,
        changed=bool(settings),
        source="timm",
        preprocessing=partial(_preprocessing, name),
    )


def _factory(name: str) -> Callable[..., Any]:
    timm = imported("timm")
    if not timm.is_model(name):
        raise unknown("timm", name, timm.list_models(), "timm.list_models() lists all")

    def build(**settings: Any) -> Any:
        module = timm.create_model(name, pretrained=False, **settings)
        channels, height, width = module.pretrained_cfg.get("input_size") or (3, 224, 224)
        size = settings.get("img_size") or (height, width)
        sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
        return module, (TensorSpec((1, settings.get("in_chans", channels), *sides)),)

    return build


def _preprocessing(name: str) -> Preprocessing | None:
    timm = imported("timm")
    said = timm.get_pretrained_cfg(name)
    if said is None:
        return None
    crop = said.input_size[-1]
    return Preprocessing(
        layout="NCHW, RGB",
        range=(0.0, 1.0),
        mean=tuple(said.mean),
        std=tuple(said.std),
        resize=int(crop / said.crop_pct),  # as timm's own transforms round it
        crop=crop,
        interpolation=said.interpolation,
        source=f"timm {timm.__version__}, {'.'.join(filter(None, (said.architecture, said.tag)))}",
    )
