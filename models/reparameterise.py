"""The inference form of a model: the same function by fewer operators, where that is exact.

One mechanism for all architectures. A batch norm in inference is an affine map of each channel, so it folds into the
convolution or linear layer whose output it alone reads. Two kinds of places are known to be such: neighbours in an
``nn.Sequential``, and pairs of attributes that a module names in its ``folds``. A module that has a cheaper inference form of
another kind returns it from a method ``reparameterised()``.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reparameterise(module: nn.Module) -> nn.Module:
    """A copy in eval mode, equal within rounding, with batch norms folded and cheaper forms taken where modules offer them.

    The copy is for inference: it has fewer parameters and other keys. The original is left as it is.
    """
    return _reparameterise(copy.deepcopy(module).eval())


def _reparameterise(module: nn.Module) -> nn.Module:
    for name, child in list(module.named_children()):
        setattr(module, name, _reparameterise(child))
    for layer, norm in list(_foldable(module)):
        setattr(module, layer, _fold(getattr(module, layer), getattr(module, norm)))
        setattr(module, norm, nn.Identity())
    offered = getattr(module, "reparameterised", None)
    return offered() if callable(offered) else module


def _foldable(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a layer and of the norm that alone reads its output."""
    pairs: list[tuple[str, str]] = list(getattr(module, "folds", ()))
    if isinstance(module, nn.Sequential):
        names = list(module._modules)
        pairs += pairwise(names)
    for layer_name, norm_name in pairs:
        layer, norm = getattr(module, layer_name, None), getattr(module, norm_name, None)
        # Without running statistics a norm depends on its input also in eval mode.
        if isinstance(layer, (*_CONVOLUTIONS, nn.Linear)) and isinstance(norm, _NORMS) and norm.running_mean is not None:
            yield layer_name, norm_name


def _fold(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        assert isinstance(norm, nn.BatchNorm1d)
        return fuse_linear_bn_eval(layer, norm)
    assert isinstance(layer, _CONVOLUTIONS)
    assert isinstance(norm, _NORMS)
    return fuse_conv_bn_eval(layer, norm)
