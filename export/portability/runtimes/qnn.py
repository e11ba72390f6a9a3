"""QNN, Qualcomm's accelerators through ONNX Runtime."""

from ..base import Runtime
from ..table import documented

RUNTIME = Runtime(
    title="QNN (Qualcomm)",
    table=lambda: documented("qnn"),
    static_shapes=True,
    notes=("by operator only: which types each of them takes depends on the backend, HTP or GPU",),
)
