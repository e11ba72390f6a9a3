"""``hf:PLACE``: models of transformers by their configuration, with random weights.

Nothing is fetched unless ``download=true`` asks for it, and then the configuration alone; code that comes with a model is never
run.
"""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import BadInput, first_line
from ..spec import ModelSpec, Source, TensorSpec
from ._library import imported

SOURCE = Source(
    form="hf:FOLDER|CONFIG|ID",
    title="a model of transformers by its config.json, such as hf:path/to/folder",
    patterns=("hf:*",),
    needs=("transformers",),
    extra="hf",
)
_TOKENS = 128
_SAMPLES = 16_000
"""A second of sound at the usual rate."""


def find(words: str, settings: dict[str, Any]) -> ModelSpec:
    """The spec of a model.

    Settings: ``task`` chooses the head, such as ``causal-lm``, or ``base`` for none; ``download`` allows to fetch a
    configuration; any other replaces an entry of the configuration.
    """
    place = words.removeprefix("hf:")
    path = Path(place)
    if not place:
        raise BadInput(f"{words!r} names no model", "write hf: with a folder, a config.json, or a model's id")
    if place.endswith(".json") and not path.is_file():
        raise BadInput(f"there is no file {place!r}", "check the path; it is relative to the folder you are in")
    if path.is_dir() and not (path / "config.json").is_file():
        raise BadInput(f"{place!r} has no config.json", "name a folder that a model of transformers was saved to")
    owner = path.resolve().parent if path.name == "config.json" else path.resolve()
    return ModelSpec(
        name=words,
        factory=partial(_factory, words, place),
        settings=settings,
        changed=bool(settings),
        source="transformers",
        label=owner.name.removesuffix(".json"),
    )


def _factory(words: str, place: str) -> Callable[..., Any]:
    transformers = imported("transformers")
    transformers.logging.set_verbosity_error()  # its advice is for those who train or generate

    def build(task: str = "", download: bool | str = False, **entries: Any) -> Any:
        config = _config(transformers, place, str(download).lower() == "true", entries)
        kind = _class(transformers, config, task)
        try:
            module = kind(config)
        except ImportError as error:  # a part that another package has
            raise BadInput(f"{words} can't be built: {first_line(error)}", "install what it needs") from error
        found = _inputs(config, module)
        return module, {item.name: item for item in found} if found else None

    return build


def _config(transformers: Any, place: str, download: bool, entries: dict[str, Any]) -> Any:
    here = place if Path(place).exists() else _cached(place)
    if here is None and not download:
        what = f"{place!r} is no folder or file here, and its configuration is not in the hub's cache"
        raise BadInput(what, "check the path, or fetch the configuration by --kwarg download=true")
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            here or place, local_files_only=here is not None, trust_remote_code=False, return_unused_kwargs=True, **entries
        )
    except (OSError, ValueError, KeyError) as error:
        what = f"no configuration is read from {place!r}: {first_line(error)}"
        hint = "it has to be of an architecture that transformers has itself; other code is never run"
        raise BadInput(what, hint if here else "check the id, and that the hub is reached") from error
    if unused:
        raise BadInput(f"the configuration of {place!r} has no entry {next(iter(unused))!r}", "its config.json names them")
    return config


def _cached(place: str) -> str | None:
    """The file of an id's configuration in the hub's cache, if it was fetched before.

    It is looked up here, since transformers asks the hub for some things even where only local files are allowed.
    """
    try:
        found = imported("huggingface_hub").try_to_load_from_cache(place, "config.json")
    except ValueError:  # what is no id
        return None
    return found if isinstance(found, str) else None


def _class(transformers: Any, config: Any, task: str) -> Callable[[Any], Any]:
    """What makes a module of a configuration: the class of the task asked for, that it names, or the model without a head."""
    if task and task != "base":
        heads = {
            name.removeprefix("AutoModelFor").lower(): name for name in dir(transformers) if name.startswith("AutoModelFor")
        }
        if (word := task.replace("-", "").lower()) not in heads:
            near = ", ".join(
                ("causal-lm", "masked-lm", "seq-2-seq-lm", "sequence-classification", "image-classification", "base")
            )
            raise BadInput(f"transformers has no task {task!r}", f"such as {near}")
        auto = getattr(transformers, heads[word])
    elif not task and (named := [getattr(transformers, name, None) for name in config.architectures or ()]) and named[0]:
        return named[0]
    else:
        auto = transformers.AutoModel
    if type(config) not in auto._model_mapping:
        raise BadInput(
            f"a {config.model_type} has no head for {task or 'base'!r}", "--kwarg task=base is the model without one"
        )
    return auto._model_mapping[type(config)]


def _inputs(config: Any, module: Any) -> tuple[TensorSpec, ...]:
    """The main input of the model, by name, and the decoder's where it has one; none where it is of another kind."""
    main = module.main_input_name
    text = config.get_text_config()
    found: tuple[TensorSpec, ...]
    if main == "input_ids":
        found = (_ids("input_ids", text),)
    elif main == "pixel_values":
        vision = getattr(config, "vision_config", config)
        side = getattr(vision, "image_size", None) or 224
        sides = tuple(side) if isinstance(side, tuple | list) else (side, side)
        found = (TensorSpec((1, getattr(vision, "num_channels", 3), *sides), name=main),)
    elif main == "input_values":
        found = (TensorSpec((1, _SAMPLES), name=main),)
    elif main == "input_features" and hasattr(config, "num_mel_bins") and hasattr(config, "max_source_positions"):
        found = (TensorSpec((1, config.num_mel_bins, 2 * config.max_source_positions), name=main),)
    else:
        return ()
    if config.is_encoder_decoder and "decoder_input_ids" in inspect.signature(module.forward).parameters:
        found += (_ids("decoder_input_ids", text),)
    return found


def _ids(name: str, config: Any) -> TensorSpec:
    longest = getattr(config, "max_position_embeddings", None) or _TOKENS
    return TensorSpec((1, min(_TOKENS, longest)), "int64", name, below=config.vocab_size)
