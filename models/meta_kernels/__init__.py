"""Result shapes of common operators on the meta device, without torch's own meta kernels.

torch computes most of them in Python and, on first use, loads its compiler and sympy for it: a second for a number that takes
microseconds. A kernel here is given plain meta tensors and the operator's own arguments; it returns the result, or None for
anything unusual (mixed dtypes, odd strides, errors), and torch's own kernel then runs and explains. Tests compare shapes,
dtypes and strides with torch's: a kernel may be left out, but never differ.
"""

from . import backward, contraction, fourier, movement, norm, pointwise, pooling, reduction  # noqa: F401 - each registers its kernels
from .table import run

__all__ = ["run"]
