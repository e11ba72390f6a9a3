"""Modern Hopfield layers against outputs of the authors' package, nn.MultiheadAttention, and derivations by hand."""

import copy
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mixbench
from mixbench.models import Hopfield, HopfieldDecoderLayer, HopfieldEncoderLayer, HopfieldLayer, HopfieldPooling
from mixbench.models.association import Mask, Steps, association
from mixbench.models.energy import fixed_point
from mixbench.models.reparameterise import reparameterise
from mixbench.models.spec import TensorSpec

ROOT = Path(__file__).resolve().parent.parent
CASES = json.loads((ROOT / "tests" / "golden" / "hopfield.json").read_text())["cases"]
KINDS: dict[str, Any] = {"Hopfield": Hopfield, "HopfieldPooling": HopfieldPooling, "HopfieldLayer": HopfieldLayer}
STATIC = dict.fromkeys(("stored_pattern_as_static", "state_pattern_as_static", "pattern_projection_as_static"), True)
NO_NORMS = {
    f"normalize_{name}{end}": False
    for name in ("stored_pattern", "state_pattern", "pattern_projection")
    for end in ("", "_affine")
}


def by_rule(name: str, shape: tuple[int, ...], scale: float = 1.0, shift: float = 0.0) -> Tensor:
    """SplitMix64 from the first 8 bytes of the name's sha256: uniform in [-scale, scale) + shift, in row-major order."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        z = seed + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    numbers = (z >> np.uint64(11)).astype(np.float64) / 2.0**53
    return torch.from_numpy(((numbers - 0.5) * 2 * scale + shift).reshape(shape))


def filled(layer: nn.Module) -> Any:
    """The layer in float64 and eval mode, its weights as in the golden file."""
    layer = layer.double().eval()
    state = layer.state_dict()
    for key in state.keys() - {"beta"}:
        t = state[key]
        state[key] = by_rule(key, tuple(t.shape), 0.5, 1.0 if "norm_" in key and key.endswith("weight") else 0.0)
    layer.load_state_dict(state)
    return layer


def call_of(case: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """The input and the masks of a golden case."""
    name, batch, heads = case["name"], case["B"], case["kwargs"].get("num_heads", 1)
    length, stored, quantity = case["L"], case["S"], case["kwargs"].get("quantity", 1)

    def patterns(tag: str, count: int, width: str) -> Tensor:
        return by_rule(f"in:{name}:{tag}", (batch, count, case[width]))

    inputs: Any
    if case["inp"] == "self":
        inputs, stored = patterns("x", length, "E"), length
    elif case["inp"] == "triple":
        inputs = (patterns("stored", stored, "kdim"), patterns("state", length, "E"), patterns("proj", stored, "vdim"))
    elif case["inp"] == "pool":
        inputs = patterns("stored", stored, "E")
    else:
        inputs = patterns("state", length, "E")
    masks = {}
    if case["mask"] == "causal":
        masks["association_mask"] = torch.ones(length, stored, dtype=torch.bool).triu(1)
    elif case["mask"]:
        shape = (length, stored) if case["mask"] == "bool2d" else (batch * heads, length, stored)
        blocked = by_rule(f"mask:{name}", shape) > 0.3
        blocked[..., 0] = False
        masks["association_mask"] = blocked
    if case["pad"]:
        masks["stored_pattern_padding_mask"] = torch.stack([torch.arange(stored) >= stored - pad for pad in case["pad"]])
    assert case["inp"] != "query" or quantity
    return inputs, masks


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(q: Tensor, k: Tensor, beta: Tensor, most: list[int], eps: float) -> tuple[Tensor, list[int]]:
    """The association with its stop rule head by head, written as plainly as the definition; limits below 0 are none."""
    matrices, made = [], []
    for head, limit in enumerate(most):
        a = torch.softmax(beta[head] * q[:, head] @ k[:, head].mT, -1)
        step, going = 0, limit != 0
        while going:
            before, a = a, torch.softmax(beta[head] * (a @ k[:, head]) @ k[:, head].mT, -1)
            step += 1
            moved = (a - before).square().sum((1, 2)).sqrt().max().item()
            going = (limit < 0 or step < limit) and moved > eps
        matrices.append(a)
        made.append(step)
    return torch.stack(matrices, 1), made


# The original's outputs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_everything_is_the_originals(case: dict[str, Any]) -> None:
    layer = KINDS[case["cls"]](**case["kwargs"])
    state = layer.state_dict()
    assert {key: list(t.shape) for key, t in state.items()} == case["state_shapes"]
    assert list(state) == list(case["state_shapes"])
    assert sum(p.numel() for p in layer.parameters()) == case["params"]
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == case["trainable"]
    layer = filled(layer)
    inputs, masks = call_of(case)
    out = layer(inputs, **masks)
    assert list(out.shape) == case["out_shape"]
    assert out.flatten().tolist() == pytest.approx(case["out"], abs=1e-9)
    matrix = layer.get_association_matrix(inputs, **masks)
    assert list(matrix.shape) == case["assoc_shape"]
    assert matrix.flatten().tolist() == pytest.approx(case["assoc"], abs=1e-9)
    values = layer.get_projected_pattern_matrix(inputs, **masks)
    assert list(values.shape) == case.get("proj_shape", list(values.shape))
    if "grad_norms" in case:
        (out * by_rule(f"probe:{case['name']}", tuple(out.shape))).sum().backward()
        found = {name: p.grad.norm().item() for name, p in layer.named_parameters() if p.grad is not None}
        assert found == pytest.approx(case["grad_norms"], abs=1e-8)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_float32_is_as_close_as_float32_can_be(case: dict[str, Any]) -> None:
    layer = filled(KINDS[case["cls"]](**case["kwargs"])).float()
    inputs, masks = call_of(case)
    inputs = inputs.float() if isinstance(inputs, Tensor) else tuple(x.float() for x in inputs)
    out = layer(inputs, **masks).double().flatten()
    expected = torch.tensor(case["out"], dtype=torch.float64)
    # Where eps decides when to stop, rounding may decide otherwise, and then eps is what remains.
    limit = 1e-3 if case["kwargs"].get("update_steps_max", 0) is None else 1e-5 * expected.abs().max().item()
    assert (out - expected).abs().max().item() < limit


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_without_norms_it_is_torchs_multihead_attention(bias: bool, extra: bool) -> None:
    """The same keys and shapes, the same outputs; the tuple's order is (key, query, value)."""
    theirs = nn.MultiheadAttention(12, 3, batch_first=True, bias=bias, add_bias_kv=extra, add_zero_attn=extra).double()
    ours = Hopfield(
        12, num_heads=3, input_bias=bias, concat_bias_pattern=extra, add_zero_association=extra, **NO_NORMS
    ).double()
    state = {f"association_core.{key}": random(*t.shape, seed=len(key)) for key, t in theirs.state_dict().items()}
    assert {key: t.shape for key, t in state.items()} == {key: t.shape for key, t in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict({key.removeprefix("association_core."): t for key, t in state.items()})
    stored, query = random(2, 6, 12, seed=1), random(2, 4, 12, seed=2)
    padding = torch.arange(6) >= torch.tensor([[6], [4]])
    mask = random(4, 6, seed=3) > 1
    mask[:, 0] = False
    expected, weights = theirs(query, stored, stored, padding, True, mask, average_attn_weights=False)
    torch.testing.assert_close(ours((stored, query, stored), padding, mask), expected, atol=1e-12, rtol=0)
    matrix = ours.get_association_matrix((stored, query, stored), padding, mask)
    torch.testing.assert_close(matrix, weights, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_bias": False},
        {"batch_first": False},
        {"hidden_size": 5, "output_size": 7},
        {"normalize_hopfield_space": True},
        {"concat_bias_pattern": True, "add_zero_association": True, "update_steps_max": 2},
    ],
)
def test_the_inference_form_has_one_norm_and_projects_at_once(options: dict[str, Any]) -> None:
    layer, x = filled(Hopfield(12, num_heads=2, **options)), random(3, 5, 12)
    inference: Any = reparameterise(layer)
    calls: list[Any] = []
    inference.norm_stored_pattern.register_forward_hook(lambda *given: calls.append(given))
    torch.testing.assert_close(inference(x), layer(x), atol=1e-12, rtol=0)
    assert len(calls) == 1
    stored, state, projection = x, random(3, 5, 12), random(3, 5, 12)
    triple = (stored, state, projection)
    torch.testing.assert_close(inference(triple), layer(triple), atol=1e-12, rtol=0)
    saved = sum(p.numel() for p in layer.parameters()) - sum(p.numel() for p in inference.parameters())
    added = 0 if options.get("input_bias", True) else 3 * 12
    assert saved == 2 * 2 * 12 - added, "two of three norms are gone, and there is a bias in any case"


@pytest.mark.parametrize(
    "options",
    [
        NO_NORMS,
        {"normalize_stored_pattern_eps": 1e-3},
        {"normalize_state_pattern_affine": False},
        {"stored_pattern_as_static": True, "hidden_size": 12},
        {"pattern_projection_as_connected": True},
        {"stored_pattern_size": 9},
    ],
)
def test_the_inference_form_of_other_layers_is_the_layer(options: dict[str, Any]) -> None:
    layer = filled(Hopfield(12, **options))
    width = options.get("stored_pattern_size", 12)
    given = (random(3, 5, width), random(3, 5, 12), random(3, 5, 12))
    inference = reparameterise(layer)
    assert inference.state_dict().keys() == layer.state_dict().keys()
    torch.testing.assert_close(inference(given), layer(given), atol=0, rtol=0)


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"elementwise_affine": False}])
def test_norms_of_another_kind_are_called(options: dict[str, Any]) -> None:
    layer, x = filled(Hopfield(12, num_heads=2)), random(3, 5, 12)
    layer.norm_stored_pattern = nn.LayerNorm(12, **options).double()
    torch.testing.assert_close(layer(x), layer((x, x, x)), atol=1e-12, rtol=0)
    torch.testing.assert_close(reparameterise(layer)(x), layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("layer", "params"),
    [
        (lambda: Hopfield(32), 4_416),
        (lambda: Hopfield(64), 17_024),
        (lambda: Hopfield(512), 1_053_696),
        (lambda: HopfieldPooling(64), 17_088),
        (lambda: HopfieldPooling(64, quantity=3), 17_216),
        (lambda: HopfieldLayer(64), 17_088),
        (lambda: HopfieldLayer(64, quantity=10), 17_664),
        (lambda: HopfieldLayer(64, quantity=10, lookup_weights_as_separated=True), 18_304),
        (lambda: Hopfield(64, num_heads=4, hidden_size=32), 33_600),
        (lambda: Hopfield(64, num_heads=4, hidden_size=32, pattern_size=24, output_size=10), 24_234),
        (lambda: Hopfield(64, stored_pattern_size=48, pattern_projection_size=40, num_heads=2, hidden_size=16), 7_376),
        (lambda: HopfieldEncoderLayer(Hopfield(64)), 281_536),
        (lambda: HopfieldDecoderLayer(Hopfield(64), Hopfield(64)), 298_688),
        (Hopfield.retrieval, 0),
    ],
)
def test_parameters_are_the_originals(layer: Any, params: int) -> None:
    assert sum(p.numel() for p in layer().parameters()) == params


def test_initialisation_is_the_originals() -> None:
    torch.manual_seed(0)
    layer = HopfieldLayer(256, quantity=64, lookup_weights_as_separated=True, normalize_hopfield_space=True,
                          normalize_hopfield_space_affine=True)  # fmt: skip
    for name, parameter in layer.named_parameters():
        if "norm" in name:
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all()
        elif "bias" in name:
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert parameter.mean().abs().item() < 1e-3


# Updates and the stop rule -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=4), st.sampled_from([1e-6, 1e-4, 1e-2, 0.3]), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_any_limits_stop_as_the_definition_says(most: list[int], eps: float, seed: int) -> None:
    heads = len(most)
    q, k = random(2, heads, 3, 4, seed=seed), random(2, heads, 5, 4, seed=seed + 1)
    beta = random(heads, seed=seed + 2).abs() + 0.3
    steps = Steps(tuple(most), (eps,) * heads)
    matrix, made = association(q, k, beta.view(-1, 1, 1), steps, Mask())
    expected, count = plain(q, k, beta, most, eps)
    assert made is not None
    assert list(made) == count
    torch.testing.assert_close(matrix, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 4, [0, 2, 3], torch.tensor([3, 0, 1]), None, -1, [2, None, 1]])
@pytest.mark.parametrize("eps", [1e-4, [1e-4, 1e-2, 1e-6]])
def test_output_and_matrix_agree_for_any_limits(steps: Any, eps: Any) -> None:
    layer = filled(Hopfield(12, num_heads=3, scaling=0.7, update_steps_max=steps, update_steps_eps=eps))
    triple = (random(2, 6, 12), random(2, 4, 12, seed=1), random(2, 6, 12, seed=2))
    matrix, values = layer.get_association_matrix(triple), layer.get_projected_pattern_matrix(triple)
    made = layer.executed_steps
    expected = layer.association_core.merge(matrix @ values)
    torch.testing.assert_close(layer(triple), expected, atol=1e-12, rtol=0)
    assert layer.executed_steps == made


def test_an_eps_of_zero_always_makes_every_update() -> None:
    triple = tuple(random(1, 5, 12, seed=seed) for seed in range(3))
    lazy, busy = (
        Hopfield(12, num_heads=2, scaling=1e-6, update_steps_max=6, update_steps_eps=eps).eval().double() for eps in (1e-4, 0.0)
    )
    busy.load_state_dict(lazy.state_dict())
    lazy(triple), busy(triple)
    assert lazy.executed_steps == (1, 1)
    assert busy.executed_steps == (6, 6)
    mixed = Hopfield(12, num_heads=2, update_steps_max=[4, 2], update_steps_eps=0).double()
    assert mixed(triple).shape == (1, 5, 12)
    assert mixed.executed_steps == (4, 2)


@pytest.mark.parametrize("scaling", [-40.0])
def test_a_head_that_never_rests_is_reported(scaling: float) -> None:
    memory = Hopfield.retrieval(scaling)
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    with pytest.raises(RuntimeError, match=r"still moves by .* after 10,000 updates"):
        memory((x, x[:, :1], x))


def test_updates_read_stored_patterns_and_only_the_last_reads_values() -> None:
    layer = Hopfield.retrieval(2.0, update_steps_max=2, update_steps_eps=0).double()
    stored, state, values = random(1, 5, 4), random(1, 3, 4, seed=1), random(1, 5, 7, seed=2)
    once = torch.softmax(2 * state @ stored.mT, -1) @ stored
    twice = torch.softmax(2 * once @ stored.mT, -1) @ stored
    expected = torch.softmax(2 * twice @ stored.mT, -1) @ values
    torch.testing.assert_close(layer((stored, state, values)), expected, atol=1e-12, rtol=0)


def test_the_retrieval_preset_reaches_the_fixed_point_of_the_theory() -> None:
    patterns = random(6, 16)
    noisy = patterns + 0.3 * random(6, 16, seed=1)
    memory = Hopfield.retrieval(4.0, update_steps_eps=1e-12)
    found = memory((patterns[None], noisy[None], patterns[None]))[0]
    torch.testing.assert_close(found, fixed_point(noisy, patterns, 4.0), atol=1e-9, rtol=0)
    torch.testing.assert_close(found, patterns, atol=1e-4, rtol=0)
    assert (memory.scaling, memory.input_size, memory.update_steps_max) == (4.0, None, None)


# Masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3, None])
@pytest.mark.parametrize("extra", [{}, {"add_zero_association": True}, {"concat_bias_pattern": True}])
def test_hidden_patterns_have_no_say(steps: int | None, extra: dict[str, bool]) -> None:
    layer = filled(Hopfield(12, num_heads=2, scaling=1.0, update_steps_max=steps, **extra))
    x, y = random(2, 6, 12), random(2, 4, 12, seed=1)
    short = layer((x[:, :4], y, x[:, :4]))
    padding = torch.arange(6).expand(2, 6) >= 4
    blocked = padding[0].expand(4, 6)
    added = torch.zeros(4, 6, dtype=torch.float64).masked_fill(blocked, -torch.inf)
    for masks in ((padding, None), (None, blocked), (None, blocked.to(torch.uint8)), (None, added), (padding, added),
                  (None, blocked.expand(4, 4, 6))):  # fmt: skip
        torch.testing.assert_close(layer((x, y, x), *masks), short, atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [0, 1, 3, None])
def test_a_state_that_sees_nothing_retrieves_zeros_with_finite_gradients(steps: int | None) -> None:
    layer = filled(Hopfield(12, num_heads=2, update_steps_max=steps))
    x = random(2, 5, 12).requires_grad_()
    blocked = torch.arange(5)[:, None].expand(5, 5) == 0
    for mask in (blocked, torch.zeros(5, 5, dtype=torch.float64).masked_fill(blocked, -torch.inf)):
        out = layer(x, association_mask=mask)
        torch.testing.assert_close(out[:, 0], layer.association_core.out_proj.bias.expand(2, 12))
        out.square().sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
        assert (layer.get_association_matrix(x, association_mask=mask)[:, :, 0] == 0).all()


def test_a_floating_mask_is_added_to_the_logits() -> None:
    layer = filled(Hopfield(12, num_heads=3, update_steps_max=2, update_steps_eps=0))
    x, bias = random(2, 5, 12), random(6, 5, 5, seed=1)
    q, k, v = layer._projected(x)
    expected = q
    for values in (k, k, v):
        logits = layer.scaling * expected @ k.mT + bias.view(2, 3, 5, 5)
        expected = torch.softmax(logits, -1) @ values
    torch.testing.assert_close(layer(x, association_mask=bias), layer.association_core.merge(expected), atol=1e-12, rtol=0)


# Where the original is wrong -----------------------------------------------------------------------------------------


def test_each_head_has_its_own_scaling() -> None:
    betas = [0.2, 1.0, 3.0]
    x = random(2, 5, 12)
    for steps in (0, 1, 3):
        layer = filled(Hopfield(12, num_heads=3, scaling=betas, update_steps_max=steps))
        matrix = layer.get_association_matrix(x)
        for head, beta in enumerate(betas):
            alone = filled(Hopfield(12, num_heads=3, scaling=beta, update_steps_max=steps))
            torch.testing.assert_close(matrix[:, head], alone.get_association_matrix(x)[:, head], atol=1e-6, rtol=0)


def test_scaling_can_be_trained_and_moves_with_the_module() -> None:
    for numbers in (torch.tensor([0.5, 2.0]), torch.tensor(0.5), torch.tensor([0.5])):
        layer = Hopfield(12, num_heads=2, scaling=nn.Parameter(numbers))
        assert "beta" in dict(layer.named_parameters())
        layer(random(1, 4, 12, dtype=torch.float32)).sum().backward()
        assert layer.beta is not None
        assert layer.beta.grad is not None
        assert (layer.beta.grad != 0).all()
    fixed = Hopfield(12, num_heads=2, scaling=torch.tensor([0.5, 2.0])).double()
    assert fixed.beta is not None
    assert fixed.beta.dtype == torch.float64
    assert "beta" in fixed.state_dict()
    assert not any("beta" in name for name, _ in fixed.named_parameters())
    assert fixed.scaling is not fixed.beta
    original = {key: t for key, t in fixed.state_dict().items() if key != "beta"}
    fixed.load_state_dict(original)  # the package's checkpoints have none
    assert fixed.scaling.tolist() == [0.5, 2.0]
    assert Hopfield(12, scaling=2).scaling == 2.0


def test_static_patterns_do_not_mix_samples() -> None:
    for static in STATIC:
        layer = filled(Hopfield(12, num_heads=3, hidden_size=4, **{static: True, **NO_NORMS}))
        sizes = {"stored": 12, "state": 12, "pattern": 12} | {static.split("_")[0]: 4}
        triple = [random(2, 5, size, seed=size) for size in sizes.values()]
        alone = layer([x[:1] for x in triple])
        torch.testing.assert_close(layer(triple)[:1], alone, atol=1e-12, rtol=0)
        q, k, v = layer._projected(triple)
        part = {"stored": k, "state": q, "pattern": v}[static.split("_")[0]]
        given = triple[list(sizes).index(static.split("_")[0])]
        for head in range(3):
            torch.testing.assert_close(part[:, head], given)


def test_pooling_keeps_samples_apart_when_the_batch_comes_second() -> None:
    first = filled(HopfieldPooling(12, num_heads=2, quantity=3))
    second = filled(HopfieldPooling(12, num_heads=2, quantity=3, batch_first=False))
    second.load_state_dict({k: t if k != "pooling_weights" else t.transpose(0, 1) for k, t in first.state_dict().items()})
    x = random(4, 6, 12)
    torch.testing.assert_close(second(x.transpose(0, 1)), first(x), atol=1e-12, rtol=0)
    assert first(x).shape == (4, 36)


def test_batch_second_is_the_same_association() -> None:
    first, second = (filled(Hopfield(12, num_heads=2, update_steps_max=2, batch_first=order)) for order in (True, False))
    triple = (random(3, 6, 12), random(3, 4, 12, seed=1), random(3, 6, 12, seed=2))
    padding = torch.arange(6) >= torch.tensor([[6], [5], [3]])
    turned = tuple(x.transpose(0, 1) for x in triple)
    torch.testing.assert_close(second(turned, padding).transpose(0, 1), first(triple, padding), atol=1e-12, rtol=0)


def test_lists_are_taken_for_tuples() -> None:
    layer = filled(Hopfield(12))
    triple = [random(1, 3, 12), random(1, 2, 12, seed=1), random(1, 3, 12, seed=2)]
    torch.testing.assert_close(layer(triple), layer(tuple(triple)))
    pool = filled(HopfieldPooling(12))
    torch.testing.assert_close(pool([triple[0], triple[2]]), pool((triple[0], triple[2])))


def test_a_lookup_with_another_stored_width_builds_and_runs() -> None:
    layer = HopfieldLayer(12, num_heads=2, stored_pattern_size=8, quantity=5)
    assert layer(torch.ones(2, 3, 12)).shape == (2, 3, 12)
    separate = HopfieldLayer(12, num_heads=2, stored_pattern_size=8, pattern_projection_size=6, quantity=5,
                             lookup_weights_as_separated=True, trainable=False, lookup_targets_as_trainable=False)  # fmt: skip
    assert separate.target_weights is not None
    assert separate.target_weights.shape == (1, 5, 6)
    assert not separate.lookup_weights.requires_grad and not separate.target_weights.requires_grad
    assert separate(torch.ones(2, 3, 12)).shape == (2, 3, 12)


def test_the_association_space_can_be_normalised_without_naming_its_width() -> None:
    layer = filled(Hopfield(12, num_heads=3, normalize_hopfield_space=True, normalize_hopfield_space_affine=True))
    assert layer.normalize_hopfield_space and layer.normalize_hopfield_space_affine
    assert layer.association_core.p_norm_weight.shape == (4,)
    x = random(2, 5, 12)
    q, _, _ = layer._projected(x)
    core = layer.association_core
    raw = F.linear(layer.norm_state_pattern(x), core.in_proj_weight[:12], core.in_proj_bias[:12])
    for head in range(3):
        expected = F.layer_norm(raw[..., 4 * head : 4 * head + 4], (4,), core.p_norm_weight, core.p_norm_bias)
        torch.testing.assert_close(q[:, head], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"input_size": 10, "num_heads": 3}, "no multiple of num_heads=3"),
        ({}, "input_size may be left out only"),
        ({"input_size": 8, "association_activation": "rleu"}, "no function of torch"),
        ({"input_size": 8, "association_activation": "Tensor"}, "no function of torch"),
        ({"input_size": 8, "normalize_state_pattern": False}, "turn both off"),
        ({"input_size": 8, "normalize_hopfield_space_affine": True}, "does nothing without normalize_hopfield_space"),
        ({"input_size": 8, "scaling": True}, "neither a finite number"),
        ({"input_size": 8, "scaling": "big"}, "neither a finite number"),
        ({"input_size": 8, "scaling": math.inf}, "neither a finite number"),
        ({"input_size": 8, "num_heads": 2, "scaling": [1.0]}, "does not fit 2 heads"),
        ({"input_size": 8, "update_steps_max": 1.5}, "no number of updates"),
        ({"input_size": 8, "num_heads": 2, "update_steps_max": [1, 2, 3]}, "3 entries for 2 heads"),
        ({"input_size": 8, "update_steps_max": None, "update_steps_eps": 0}, "has to be positive"),
        ({"input_size": 8, "update_steps_eps": -1.0}, "has to be positive"),
        ({"input_size": 8, "dropout": 1.0}, "dropout=1.0"),
        ({"input_size": 8, "hidden_size": -1}, "have to be positive"),
        ({"input_size": 8, "concat_bias_pattern": True, "stored_pattern_as_static": True}, "in projected space"),
        ({"input_size": 8, "pattern_projection_as_connected": True, "pattern_size": 3}, "connected projections need equal"),
        ({**STATIC, "disable_out_projection": True}, "needs a width"),
    ],
)
def test_contradictions_are_refused_at_construction(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        Hopfield(**options)


def test_learned_patterns_that_cannot_work_are_refused_at_construction() -> None:
    with pytest.raises(ValueError, match="quantity=0"):
        HopfieldPooling(8, quantity=0)
    with pytest.raises(ValueError, match="set lookup_weights_as_separated"):
        HopfieldLayer(8, pattern_projection_size=5)
    with pytest.raises(ValueError, match="one width going in and out"):
        HopfieldEncoderLayer(Hopfield(8, output_size=9))


def test_a_call_that_does_not_fit_says_why() -> None:
    layer, x = Hopfield(8, num_heads=2), torch.ones(2, 3, 8)
    for call, words in (
        (lambda: layer((x, x)), "3 of them in the order"),
        (lambda: layer(x[0]), "batch, length and width"),
        (lambda: layer(torch.ones(2, 3, 7)), "7 wide, and 8 is needed"),
        (lambda: layer((x, x, x[:, :2])), "3 stored patterns and 2 projections"),
        (lambda: layer((x, torch.ones(3, 3, 8), x)), "batches of 2, 3, 2"),
        (lambda: layer(x, torch.ones(2, 4).bool()), r"not \(2, 3\)"),
        (lambda: layer(x, None, torch.ones(3, 4).bool()), "are understood"),
        (lambda: Hopfield.retrieval()((x, torch.ones(2, 3, 7), x)), "cannot be compared"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()


# Options -------------------------------------------------------------------------------------------------------------


def test_connected_values_pass_through_the_key_projection_first() -> None:
    layer = filled(Hopfield(12, num_heads=2, pattern_projection_as_connected=True, **NO_NORMS))
    core = layer.association_core
    stored, state, values = random(2, 5, 12), random(2, 3, 12, seed=1), random(2, 5, 12, seed=2)
    through = F.linear(values, core.k_proj_weight, core.in_proj_bias[12:24])
    expected = F.linear(through, core.v_proj_weight, core.in_proj_bias[24:])
    found = layer.get_projected_pattern_matrix((stored, state, values)).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_dropout_works_on_the_last_matrix_only_in_training() -> None:
    for steps in (0, 3):
        layer = Hopfield(12, num_heads=2, dropout=0.5, update_steps_max=steps, scaling=2.0)
        x = random(2, 30, 12, dtype=torch.float32)
        assert not torch.equal(layer(x), layer(x))
        torch.testing.assert_close(layer.get_association_matrix(x).sum(-1), torch.ones(2, 2, 30))
        layer.eval()
        torch.testing.assert_close(layer(x), layer(x), atol=0, rtol=0)


def test_options_can_be_read_and_not_written() -> None:
    limits = torch.tensor([1, 2])
    layer = HopfieldPooling(12, 5, 9, 7, 2, 0.3, limits, 1e-3, quantity=4, stored_pattern_size=6)
    assert (layer.input_size, layer.hidden_size, layer.output_size, layer.pattern_size) == (12, 5, 9, 7)
    assert (layer.scaling, layer.update_steps_eps, layer.quantity, layer.batch_first) == (0.3, 1e-3, 4, True)
    assert (layer.stored_pattern_dim, layer.state_pattern_dim, layer.pattern_projection_dim) == (6, 12, 12)
    assert layer.update_steps_max is not limits and layer.update_steps_max.tolist() == [1, 2]
    assert layer.normalize_stored_pattern and layer.normalize_stored_pattern_affine
    assert not layer.normalize_hopfield_space and not layer.stored_pattern_as_static
    for name in ("hidden_size", "scaling", "update_steps_max", "input_size"):
        with pytest.raises(AttributeError):
            setattr(layer.hopfield, name, 1)


def test_a_batch_of_one_serves_every_sample() -> None:
    layer = filled(Hopfield(12, num_heads=2, update_steps_max=2))
    stored, state = random(1, 6, 12), random(3, 4, 12, seed=1)
    many = stored.expand(3, -1, -1)
    torch.testing.assert_close(layer((stored, state, stored)), layer((many, state, many)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["layer", "pooling", "lookup"])
@pytest.mark.parametrize("steps", [0, 1, 3, None])
def test_forward_and_backward_in_every_dtype(kind: str, dtype: torch.dtype, steps: int | None) -> None:
    layer = mixbench.build(f"hopfield-{kind}", device="cpu", input_size=16, num_heads=4, update_steps_max=steps,
                           workload=mixbench.Workload((TensorSpec((2, 5, 16)),))).module.to(dtype)  # fmt: skip
    exact = copy.deepcopy(layer).double()
    x = random(2, 5, 16)
    out = layer(x.to(dtype))
    assert out.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(out.double(), exact(x), atol=tolerance, rtol=tolerance)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("steps", [0, 2])
def test_gradients_are_those_of_the_definition(steps: int) -> None:
    layer = filled(Hopfield(6, num_heads=2, update_steps_max=steps, update_steps_eps=1e-9))
    assert torch.autograd.gradcheck(layer, random(1, 3, 6).requires_grad_())


# Transformer layers --------------------------------------------------------------------------------------------------


def test_without_inner_norms_the_encoder_layer_is_torchs() -> None:
    ours = HopfieldEncoderLayer(Hopfield(12, num_heads=3, **NO_NORMS), 20).double().eval()
    theirs = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True).double().eval()
    names = {"self_attn": "hopfield_association.association_core", "linear1": "linear_residual", "linear2": "linear_output",
             "norm1": "norm_residual", "norm2": "norm_output"}  # fmt: skip
    state = {key: random(*t.shape, seed=len(key)) for key, t in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict({f"{names[key.split('.')[0]]}.{key.partition('.')[2]}": t for key, t in state.items()})
    x, padding = random(2, 5, 12), torch.arange(5) >= torch.tensor([[5], [3]])
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    torch.testing.assert_close(ours(x, mask, padding), theirs(x, mask, padding), atol=1e-10, rtol=0)


def test_without_inner_norms_the_decoder_layer_is_torchs() -> None:
    ours = HopfieldDecoderLayer(*(Hopfield(12, num_heads=3, **NO_NORMS) for _ in range(2)), 20).double().eval()
    theirs = nn.TransformerDecoderLayer(12, 3, 20, batch_first=True).double().eval()
    names = {"self_attn": "hopfield_association_self.association_core",
             "multihead_attn": "hopfield_association_cross.association_core", "linear1": "linear_residual",
             "linear2": "linear_output", "norm1": "norm_residual_self", "norm2": "norm_residual_cross",
             "norm3": "norm_output"}  # fmt: skip
    state = {key: random(*t.shape, seed=len(key)) for key, t in theirs.state_dict().items()}
    theirs.load_state_dict(state)
    ours.load_state_dict({f"{names[key.split('.')[0]]}.{key.partition('.')[2]}": t for key, t in state.items()})
    x, memory = random(2, 5, 12), random(2, 7, 12, seed=1)
    torch.testing.assert_close(ours(x, memory), theirs(x, memory), atol=1e-10, rtol=0)
    assert (ours.input_size, ours.output_size, ours.batch_first) == (12, 12, True)
    assert ours.get_association_matrix_self(x).shape == (2, 3, 5, 5)
    assert ours.get_association_matrix_cross((memory, x, memory)).shape == (2, 3, 5, 7)


# Cost ----------------------------------------------------------------------------------------------------------------


def macs(batch: int, states: int, stored: int, e: int, heads: int, a: int, p: int, out: int, made: list[int],
         fixed_state: bool = False, fixed_stored: bool = False) -> int:  # fmt: skip
    """The sheet of a layer by hand; fixed patterns are projected once a batch, and heads make ``made`` updates."""
    projections = (1 if fixed_state else batch) * states * e * heads * a
    projections += (1 if fixed_stored else batch) * stored * e * heads * (a + p)
    looks = sum(n + 1 for n in made) * batch * states * stored * a
    updates = sum(made) * batch * states * stored * a
    return projections + looks + updates + batch * heads * states * stored * p + batch * states * heads * p * out


@pytest.mark.parametrize("size", [(2, 8, 32, 1), (3, 5, 64, 4), (1, 16, 48, 6)])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_macs_are_the_formula(size: tuple[int, int, int, int], steps: int) -> None:
    batch, length, e, heads = size
    workload = mixbench.Workload((TensorSpec((batch, length, e)),))
    case = mixbench.build("hopfield", workload, input_size=e, num_heads=heads, update_steps_max=steps, update_steps_eps=0)
    counted = mixbench.count(case)
    assert counted.device == "meta"
    assert not counted.uncounted and not counted.notes
    assert counted.totals.macs == macs(batch, length, length, e, heads, e // heads, e // heads, e, [steps] * heads)
    assert counted.totals.macs == 4 * batch * length * e**2 + 2 * (steps + 1) * batch * length**2 * e


def test_macs_of_learned_patterns_project_them_once_a_batch() -> None:
    workload = mixbench.Workload((TensorSpec((4, 10, 32)),))
    pooled = mixbench.count(mixbench.build("hopfield-pooling", workload, input_size=32, num_heads=2, quantity=3))
    assert pooled.totals.macs == macs(4, 3, 10, 32, 2, 16, 16, 32, [0, 0], fixed_state=True)
    looked = mixbench.count(mixbench.build("hopfield-lookup", workload, input_size=32, num_heads=2, quantity=7))
    assert looked.totals.macs == macs(4, 10, 7, 32, 2, 16, 16, 32, [0, 0], fixed_stored=True)


def test_macs_are_of_the_updates_that_ran() -> None:
    layer = filled(Hopfield(12, num_heads=3, scaling=[0.3, 1.0, 5.0], update_steps_max=None))
    x = random(2, 6, 12)
    counted = mixbench.count_call(layer, x)
    made = list(layer.executed_steps)
    assert len(set(made)) > 1, "the heads were meant to differ"
    assert counted.totals.macs == macs(2, 6, 6, 12, 3, 4, 4, 12, made)
    assert counted.notes == (
        f"updates executed, with no limit: {min(made)} to {max(made)}, {sum(made) / 3:.2f} on average over heads",
    )
    assert not counted.uncounted


@pytest.mark.parametrize("settings_", [{"update_steps_max": None}, {"update_steps_max": 3, "scaling": 50}])
def test_a_count_that_depends_on_values_says_so(settings_: dict[str, Any]) -> None:
    counted = mixbench.count(mixbench.build("hopfield-lookup", **settings_))
    assert counted.device == "cpu"
    assert "depends on values" in counted.notes[0]
    assert "hopfield: updates executed" in counted.notes[1]
    assert counted.coverage == 1


@pytest.mark.parametrize("model", ["hopfield-layer", "hopfield-pooling", "hopfield-lookup"])
def test_every_variant_is_counted_on_meta_without_torchs_compiler(model: str) -> None:
    program = f"""
import sys, mixbench
counted = mixbench.count(mixbench.build({model!r}))
assert counted.device == "meta" and counted.coverage == 1 and not counted.uncounted, counted
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_backward_pass_of_a_layer_costs_twice_its_forward() -> None:
    counted = mixbench.count(mixbench.build("hopfield", mixbench.Workload(mode="train")))
    # The input asks for no gradient, but the affine maps of the norms do: nothing is saved.
    assert counted.backward.macs == 2 * counted.forward.macs


@pytest.mark.parametrize("words", [{"kind": "core"}, {"kind": "lookup", "retrieval": True}, {"heads": 3}])
def test_an_unknown_setting_is_named(words: dict[str, Any]) -> None:
    with pytest.raises(mixbench.MixbenchError, match=r"kind|no option 'heads'"):
        mixbench.build("hopfield", **words)


@pytest.mark.parametrize(
    ("name", "setting", "shapes"),
    [
        ("hopfield", {"input_size": 64}, ["1x128x64"]),
        ("hopfield", {"stored_pattern_size": 48}, ["1x128x48", "1x128x256", "1x128x256"]),
        ("hopfield", {"retrieval": True, "input_size": 40, "update_steps_max": 0}, ["1x128x40"]),
        ("hopfield-pooling", {"input_size": 64}, ["1x128x64"]),
        ("hopfield-pooling", {"pattern_projection_size": 96}, ["1x128x256", "1x128x96"]),
        ("hopfield-lookup", {"input_size": 64, "stored_pattern_size": 32}, ["1x128x64"]),
    ],
)
def test_the_example_input_is_as_wide_as_the_settings_ask_for(name: str, setting: dict[str, Any], shapes: list[str]) -> None:
    case = mixbench.build(name, **setting)
    assert list(map(str, case.workload.inputs)) == shapes
    assert mixbench.count(case).coverage == 1


def test_info_tells_retrieval_from_the_default() -> None:
    script = Path(sys.executable).with_name("mixbench")
    page = subprocess.run([script, "info", "hopfield"], capture_output=True, text=True, check=True).stdout
    text = " ".join(page.split())
    assert "For pure retrieval, Hopfield.retrieval(scaling=8)" in text
    assert "auc tiger, %" in text


def test_the_retrieval_example_finds_every_letter_and_draws_the_fall_of_the_energy(tmp_path: Path) -> None:
    picture = tmp_path / "retrieval.svg"
    command = [sys.executable, str(ROOT / "examples" / "hopfield_retrieval.py"), "--out", str(picture)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count("12 of 12 letters retrieved") == 2
    for line in (line for line in shown.splitlines() if line.startswith("energy ")):
        falls = [float(word) for word in line.removeprefix("energy ").split(" > ")]
        assert falls == sorted(falls, reverse=True)
        assert falls[0] > falls[-1] + 1
    drawing = ElementTree.parse(picture).getroot()
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 24
    command += ["--beta", "0.01"]
    assert "0 of 12 letters" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


# Compilers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_layer_in_one_graph_is_the_same(backend: str, steps: int) -> None:
    layer = filled(Hopfield(12, num_heads=3, update_steps_max=steps, update_steps_eps=1e-2))
    x = random(2, 5, 12)
    with torch.no_grad():
        compiled = torch.compile(layer, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x), layer(x), atol=1e-9, rtol=0)
    torch._dynamo.reset()


def test_updates_without_a_limit_run_between_two_graphs() -> None:
    layer = filled(Hopfield(12, num_heads=3, update_steps_max=None))
    x = random(2, 5, 12)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="eager")(x), layer(x), atol=1e-9, rtol=0)
    torch._dynamo.reset()


@pytest.mark.parametrize("steps", [0, 1, [3, 0, 2]])
@pytest.mark.parametrize("kind", [Hopfield, HopfieldPooling, HopfieldLayer])
def test_an_exported_layer_takes_any_batch_and_length_and_stops_heads_all_the_same(kind: Any, steps: Any) -> None:
    layer = filled(kind(12, num_heads=3, update_steps_max=steps, update_steps_eps=1e-1))
    sizes = ({0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("length", min=2)},)
    program = torch.export.export(layer, (random(2, 5, 12),), dynamic_shapes=sizes)
    x = random(4, 9, 12, seed=1)
    torch.testing.assert_close(program.module()(x), layer(x), atol=1e-9, rtol=0)


def test_updates_without_a_limit_refuse_to_be_exported() -> None:
    with pytest.raises(RuntimeError, match="give update_steps_max a number to export"):
        torch.export.export(Hopfield(12, update_steps_max=None), (torch.ones(2, 3, 12),))
