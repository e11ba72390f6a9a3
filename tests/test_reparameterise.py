"""The inference form computes the same with fewer operators, for architectures and for any module with something to fold."""

import pytest
import torch
from torch import Tensor, nn

import mixbench
from mixbench.models.errors import BadInput
from mixbench.models.reparameterise import reparameterise


def lively(module: nn.Module) -> nn.Module:
    """Norms with statistics and scales that are not 0 and 1, so that a wrong fold shows."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and norm.running_mean is not None:
            for tensor, low, high in (
                (norm.weight, 0.6, 1.4),
                (norm.bias, -0.2, 0.2),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return module.double().eval()


@pytest.mark.parametrize("name", ["ghostnetv2", "ghostnet"])
def test_ghostnets_fold_every_norm_and_keep_their_outputs(name: str) -> None:
    module = lively(mixbench.build(name, device="cpu").module)
    folded = reparameterise(module)
    assert not any(isinstance(child, nn.BatchNorm2d) for child in folded.modules())
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-10)


def test_the_folded_parameters_are_those_that_were_published() -> None:
    counted = mixbench.count(mixbench.build("ghostnetv2", reparameterised=True))
    assert counted.params == counted.params_bn_folded == 6125716
    assert counted.totals.macs == 167048288
    assert not any(item.operator == "aten::native_batch_norm" for item in counted.operators)


def test_the_original_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    reparameterise(module)
    assert module.training
    assert isinstance(module[1], nn.BatchNorm2d)
    torch.testing.assert_close(module.state_dict(), before)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Sequential(nn.Conv1d(3, 4, 3, bias=False), nn.BatchNorm1d(4), nn.ReLU()), torch.randn(2, 3, 9)),
        (nn.Sequential(nn.Conv3d(2, 4, 2, groups=2), nn.BatchNorm3d(4)), torch.randn(1, 2, 3, 4, 5)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(5, 3)),
    ],
)
def test_neighbours_in_a_sequential_fold(module: nn.Module, x: Tensor) -> None:
    module, x = lively(module), x.double()
    folded = reparameterise(module)
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in module.parameters()) + 4
    assert not any(isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for child in folded.modules())
    torch.testing.assert_close(folded(x), module(x), rtol=1e-12, atol=1e-12)


def test_a_norm_that_is_no_fixed_map_stays() -> None:
    without_statistics = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    apart = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    for module in (without_statistics, apart):
        assert any(isinstance(child, nn.BatchNorm2d) for child in reparameterise(module).modules())


def test_a_module_may_offer_a_form_of_its_own() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x

        def reparameterised(self) -> nn.Module:
            return nn.Identity()

    assert isinstance(reparameterise(nn.Sequential(Twice()))[0], nn.Identity)  # type: ignore[index]


def test_training_the_inference_form_is_refused() -> None:
    with pytest.raises(BadInput, match="for inference"):
        mixbench.build("ghostnet", mixbench.Workload(mode="train"), reparameterised=True)
