"""Fourier transforms as products with constant matrices.

Why: DFT is in no table of a phone's runtime (ONNX Runtime 1.32, `tools/mobile_helpers/*.md`: NNAPI, CoreML NeuralNetwork and
MLProgram; coremltools 9, ExecuTorch 1.5 and LiteRT refuse torch.fft too), and ONNX Runtime's own is slow at a map's size,
where matrices win although they multiply more: several times as fast on AFFNet's mixers.

Forms, for a map of H x W and R = W // 2 + 1 columns:

- up to 64 pixels one matrix over the whole map, H W x 2 H R (the Kronecker product of both directions): two products in all,
  faster at 8 x 8 and below, slower from 8 x 12 on;
- above that, stacked: a row times W x 2 R gives its real and its imaginary parts; then one matrix of 2 H x 2 H over rows,
  [[cos, sin], [-sin, cos]], as a 1x1 convolution whose channels are the rows. Its columns are ordered (row, part), as the
  first product leaves them, so that nothing is transposed, split or gathered in between. A convolution with constant weights
  is in every table, while a product whose left factor is constant is not in NeuralNetwork's, and it is faster: ONNX Runtime
  packs it.

Width comes first: then only R columns pass the other direction. Signs are part of the constants, so there is no Neg. The
matrices are the transforms of unit vectors by numpy, made in float64 and rounded once; blocks of one size share them. The
inverse drops the imaginary part of the columns 0 and W / 2, as torch's and numpy's do.

The size is baked in: ONNX Runtime refuses another one, and an open height or width is refused here.

What an AFFNet has is swapped before capture (`complex` makes it swappable). DFT nodes of any other model are swapped in the
graph, one matrix a node of up to some 500 points; the bookkeeping of complex numbers around them stays.

Proof: against torch.fft within 1e-12 in float64 for drawn sizes, both forms, odd and even, 1 x 1 too; AFFNet's float32
logits within 1e-5 of their scale; each DFT node against ONNX Runtime's (`tests/test_rewrites_fft.py`).
"""

from functools import lru_cache

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...models.errors import BadInput
from ._graph import Making, constant, each, first, operand, sizes
from .base import Rewrite
from .complex import Spectrum

KRONECKER_PIXELS = 64
"""The largest map that is transformed by one matrix."""
LARGEST_MATRIX = 2**20
"""Numbers in the matrix of a DFT node, some 500 complex points: a longer one is better off as a fast transform."""


@lru_cache(maxsize=64)
def forward_matrices(height: int, width: int) -> tuple[np.ndarray, ...]:
    """What takes maps to planes, in float64: (H W, 2 H R), or (W, 2 R) and (2 H, 2 H)."""
    if height * width <= KRONECKER_PIXELS:
        pixels = np.eye(height * width).reshape(-1, height, width)
        return (_planes(np.fft.rfft2(pixels, norm="ortho")),)
    along_width = _planes(np.fft.rfft(np.eye(width), norm="ortho"))
    turns = np.fft.fft(np.eye(height), norm="ortho")
    over_rows = np.block([[turns.real, -turns.imag], [turns.imag, turns.real]])
    return along_width, over_rows[:, _by_row(height)]


@lru_cache(maxsize=64)
def inverse_matrices(height: int, width: int) -> tuple[np.ndarray, ...]:
    """What takes planes back to maps, in float64: (2 H R, H W), or (2 H, 2 H) and (2 R, W)."""
    columns = width // 2 + 1
    if height * width <= KRONECKER_PIXELS:
        planes = np.eye(2 * height * columns).reshape(-1, 2, height, columns)
        maps = np.fft.irfft2(planes[:, 0] + 1j * planes[:, 1], s=(height, width), norm="ortho")
        return (maps.reshape(-1, height * width),)
    turns = np.fft.ifft(np.eye(height), norm="ortho")
    over_rows = np.block([[turns.real, -turns.imag], [turns.imag, turns.real]])
    parts = np.concatenate((np.eye(columns), 1j * np.eye(columns)))
    return over_rows[_by_row(height)], np.fft.irfft(parts, n=width, norm="ortho")


def _planes(spectra: np.ndarray) -> np.ndarray:
    """(N, ...) complex to (N, 2 ...): all real parts of a row, then its imaginary parts."""
    flat = spectra.reshape(len(spectra), -1)
    return np.concatenate((flat.real, flat.imag), 1)


def _by_row(height: int) -> np.ndarray:
    """Where (part, row) lies in the order (row, part)."""
    return np.arange(2 * height).reshape(2, height).T.reshape(-1)


class MatrixSpectrum(Spectrum):
    """`Spectrum` without torch.fft, for fixed height and width."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._fixed(x.shape[2], x.shape[3])
        matrix, *over_rows = (_like(x, matrix) for matrix in forward_matrices(height, width))
        shape = (-1, 2 * height, 1, width // 2 + 1)
        if not over_rows:
            return (x.reshape(-1, x.shape[1], height * width) @ matrix).reshape(shape)
        return F.conv2d((x @ matrix).reshape(shape), over_rows[0][:, :, None, None])

    def inverse(self, planes: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
        """Planes (B C, 2 H, 1, R) back to (B, C, H, W)."""
        height, width = self._fixed(*size)
        matrix, *along_width = (_like(planes, matrix) for matrix in inverse_matrices(height, width))
        columns = width // 2 + 1
        if not along_width:
            maps = planes.reshape(-1, channels, 2 * height * columns) @ matrix
            return maps.reshape(-1, channels, height, width)
        rows = F.conv2d(planes, matrix[:, :, None, None]).reshape(-1, channels, height, 2 * columns)
        return rows @ along_width[0]

    def _fixed(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(height, int) or not isinstance(width, int):
            what = "the transforms are written out for one size of map, and height or width is open"
            raise BadInput(what, "export one file a size, or --keep fft for an ONNX Runtime on a desktop")
        return height, width


def _like(x: Tensor, matrix: np.ndarray) -> Tensor:
    """A matrix in the map's precision, rounded by numpy: a cast in torch would be one more node to capture."""
    rounded = matrix if x.dtype == torch.float64 else matrix.astype(np.float32)
    return torch.from_numpy(rounded.copy()).to(x.device)


def _matrices(module: nn.Module) -> nn.Module | None:
    return MatrixSpectrum() if type(module) is Spectrum else None


def _dft(make: Making, node: ir.Node) -> ir.Value | None:
    """A DFT of x (..., N at some axis, ..., parts) by one matrix: the axis next to the parts, both as one, and back."""
    x, given = first(node), operand(node, 1)
    shape, axis, length = sizes(x), _axis(node), constant(given)
    if shape is None or axis is None or (given is not None and length is None):
        return None
    axis, last = axis % len(shape), len(shape) - 1
    count, parts = shape[axis], shape[last]
    order = [*(i for i in range(last) if i != axis), axis, last]
    outer = [shape[i] for i in order[:-2]]
    if count is None or parts is None or outer.count(None) > 1:  # one open size a Reshape finds by itself
        return None
    real = bool(node.attributes.get_int("inverse", 0) and node.attributes.get_int("onesided", 0))
    points = int(length) if length is not None else 2 * (count - 1) if real else count
    if points < 1 or count * parts * 2 * points > LARGEST_MATRIX:
        return None
    lead = [-1 if size is None else size for size in outer]
    matrix, results = _dft_matrix(count, parts, node, points)
    turned = make.op("Reshape", [make.op("Transpose", [x], {"perm": order}), make.integers(*lead, count * parts)])
    kind = np.float32 if x.dtype is None else x.dtype.numpy()
    product = make.op("MatMul", [turned, make.constant(matrix.astype(kind))])
    product = make.op("Reshape", [product, make.integers(*lead, matrix.shape[1] // results, results)])
    return make.op("Transpose", [product], {"perm": [order.index(i) for i in range(len(shape))]})


def _axis(node: ir.Node) -> int | None:
    """An input since opset 20, an attribute before."""
    if (given := operand(node, 2)) is not None:
        found = constant(given)
        return None if found is None else int(found)
    return node.attributes.get_int("axis", -2)


def _dft_matrix(count: int, parts: int, node: ir.Node, points: int) -> tuple[np.ndarray, int]:
    """The matrix (N parts, M results) of a DFT node, and its results: 1 for real numbers, 2 for complex ones."""
    units = np.eye(count * parts).reshape(-1, count, parts)
    signal = units[..., 0] + (1j * units[..., 1] if parts == 2 else 0)
    inverse, half = node.attributes.get_int("inverse", 0), node.attributes.get_int("onesided", 0)
    if inverse and half:
        return np.fft.irfft(signal, n=points), 1
    full = np.fft.ifft if inverse else np.fft.fft
    spectrum = np.fft.rfft(signal.real, n=points) if half else full(signal, n=points)
    pairs = np.stack((spectrum.real, spectrum.imag), -1)
    return pairs.reshape(len(pairs), -1), 2


REWRITE = Rewrite("Fourier transforms as constant matrices", module=_matrices, graph=each("DFT", form=_dft))
