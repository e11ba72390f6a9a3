"""What a model holds in memory, as a record; and what optimisers keep besides, by their rules. No torch here."""

from dataclasses import dataclass

from ..cost import Footprint, Held

_STEP_BYTES = 4
"""Adam counts its steps in a float32 number for each parameter."""


@dataclass(frozen=True, slots=True)
class Optimiser:
    """``state_bytes`` are kept from step to step; ``peak_bytes`` is the most of a whole training step, weights included.

    The step goes through the parameters one by one (``foreach=False``, torch's default on the CPU). On CUDA torch takes all at
    once, and temporary copies of all of them.
    """

    name: str
    state_bytes: int
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Training:
    """``saved_bytes`` wait for the backward pass when the forward pass has ended, the outputs among them."""

    saved_bytes: int
    gradient_bytes: int
    optimisers: tuple[Optimiser, ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. Activations are everything that the run itself takes; the peak is the most that is alive at once.

    ``total_peak_bytes`` is that peak with weights and inputs. In training gradients are part of the peak.
    """

    held: tuple[Held, ...]
    param_bytes: int
    buffer_bytes: int
    input_bytes: int
    output_bytes: int
    activation_bytes: int
    peak_activation_bytes: int
    peak_operator: str
    peak_module: str
    total_peak_bytes: int
    training: Training | None


def memory_of(footprint: Footprint, train: bool) -> Memory:
    """The record of a footprint."""
    before = footprint.param_bytes + footprint.buffer_bytes + footprint.input_bytes
    peak = footprint.peak_activation_bytes
    return Memory(
        held=footprint.held,
        param_bytes=footprint.param_bytes,
        buffer_bytes=footprint.buffer_bytes,
        input_bytes=footprint.input_bytes,
        output_bytes=footprint.output_bytes,
        activation_bytes=footprint.activation_bytes,
        peak_activation_bytes=peak,
        peak_operator=footprint.peak_operator,
        peak_module=footprint.peak_module,
        total_peak_bytes=before + peak,
        training=_training(footprint, before) if train else None,
    )


def _training(footprint: Footprint, before: int) -> Training:
    """Adam (Kingma and Ba, arXiv 1412.6980) keeps two moments, momentum one; Adam makes two copies of a parameter at a step."""
    trained, gradients = sum(footprint.trained), footprint.gradient_bytes
    moments = 2 * trained + _STEP_BYTES * len(footprint.trained)
    copies = 2 * max(footprint.trained, default=0)
    rules = (("sgd", 0, 0), ("sgd with momentum", trained, 0), ("adam", moments, copies), ("adamw", moments, copies))
    return Training(
        footprint.saved_bytes,
        gradients,
        tuple(
            Optimiser(
                name, state, before + state + max(footprint.peak_activation_bytes, gradients + footprint.output_bytes + step)
            )
            for name, state, step in rules
        ),
    )
