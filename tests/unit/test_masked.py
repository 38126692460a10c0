import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedstil_mpi.models.masked import Masked, ReferenceCodeMasked, decompose
from support.golden_files import golden

cases = pytest.mark.parametrize("path", golden("i_fedweit_layer"), ids=lambda path: path.stem)
layers = pytest.mark.parametrize("layer_kind", ["linear", "conv"])
kinds = pytest.mark.parametrize("kind", [Masked, ReferenceCodeMasked])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reversed_axes(value: Tensor) -> Tensor:
    """The golden arrays have all axes in the opposite order."""
    return value.permute(*reversed(range(value.dim())))


def load(path, layer_kind: str, kind: type[Masked]) -> tuple[dict[str, Tensor], nn.Module, Masked]:
    """The arrays of one layer without their prefix, the decomposed layer, and its decomposition."""
    case = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    arrays = {key.removeprefix(f"{layer_kind}_"): value for key, value in case.items() if key.startswith(layer_kind)}
    layer: nn.Module
    if layer_kind == "linear":
        layer = nn.Linear(*reversed(arrays["w"].shape))
        layer.bias.data.copy_(arrays["bias"])
    else:
        out, into, *kernel = arrays["w"].shape
        layer = nn.Conv2d(into, out, kernel, int(case["stride"]), int(case["padding"]), bias=False)
    layer.weight.data.copy_(arrays["w"])
    return arrays, layer, decompose(layer, kind, float(case["lambda_l1"]), float(case["lambda_mask"]))


def fill(part: Masked, case: dict[str, Tensor]) -> None:
    """The case's random values in the place of what a task begins with."""
    part.restart(reversed_axes(case["init_sw"]), reversed_axes(case["aw_kb"]))
    part.mask.data.copy_(case["mask"].view_as(part.mask))
    part.adaptive.data.copy_(reversed_axes(case["aw"]))
    part.attention.data.copy_(case["atten"])


def random_layer(kind: type[Masked], seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[nn.Conv2d, Masked]:
    """A decomposed convolution of 4 x 3 x 2 x 2 with random parts, half of which are pruned, and a bank of 3."""
    generator = rng(seed)
    layer = nn.Conv2d(3, 4, 2, dtype=dtype)
    part = decompose(layer, kind, threshold=0.7, mask_threshold=0.5)
    part.restart(layer.parametrizations.weight.original, torch.randn(3, 4, 3, 2, 2, generator=generator, dtype=dtype))
    for parameter in (part.mask, part.adaptive, part.attention):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return layer, part


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=1e-4, atol=1e-5)


# -- as the reference has it -------------------------------------------------------------------------------------------


@cases
@layers
def test_golden_beginning(path, layer_kind):
    case, layer, part = load(path, layer_kind, ReferenceCodeMasked)
    part.restart(layer.parametrizations.weight.original, reversed_axes(case["init_aw_kb"]))
    close(layer.parametrizations.weight.original, reversed_axes(case["init_sw"]))
    close(part.mask.flatten(), case["init_mask"])
    close(part.adaptive, reversed_axes(case["init_aw"]))
    close(part.attention, case["init_atten"])
    close(part.knowledge, reversed_axes(case["init_aw_kb"]))
    close(layer.eval().weight, case["w"])


@cases
@layers
def test_golden_layer(path, layer_kind):
    case, layer, part = load(path, layer_kind, ReferenceCodeMasked)
    fill(part, case)
    close(layer.train()(case["x"]), case["y_train"])
    close(layer.eval()(case["x"]), case["y_eval"])
    close(part.theta(layer.parametrizations.weight.original, prune=False), reversed_axes(case["theta_upload"]))
    assert part.size(part.adaptive, part.mask).item() == pytest.approx(float(case["sparseness"]), rel=1e-5)


@pytest.mark.parametrize("mask", [-0.7, 0.0, 0.31, 1.9])
def test_a_new_base_of_the_reference_is_theta_whatever_was_learned(mask):
    layer, part = random_layer(ReferenceCodeMasked)
    part.mask.data.fill_(mask)
    base = layer.parametrizations.weight.original
    base.data.copy_(torch.randn(base.shape, generator=rng(3)))
    part.restart(base, torch.randn(2, *base.shape, generator=rng(4)))
    torch.testing.assert_close(layer.eval().weight, base, rtol=0, atol=1e-6)
    assert (part.mask == mask).all()  # it stays


# -- as in the paper ---------------------------------------------------------------------------------------------------


@cases
@layers
def test_paper_layer_by_hand(path, layer_kind):
    case, layer, part = load(path, layer_kind, Masked)
    fill(part, case)
    # The mask belongs to the last axis, the output channels.
    mask, adaptive = 1 / (1 + torch.exp(-case["mask"])), case["aw"]
    lent = torch.einsum("...k,k->...", case["aw_kb"], case["atten"])
    training = mask * case["init_sw"] + adaptive + lent
    mask, adaptive = mask * (mask > part.mask_threshold), adaptive * (adaptive.abs() > part.threshold)
    close(reversed_axes(layer.train().weight), training)
    close(reversed_axes(layer.eval().weight), mask * case["init_sw"] + adaptive + lent)


def test_a_task_of_the_paper_begins_with_the_masked_base_alone():
    layer, part = random_layer(Masked)
    base = layer.parametrizations.weight.original
    part.restart(base, torch.randn(5, *base.shape, generator=rng(4)))
    torch.testing.assert_close(layer.train().weight, base / (1 + np.exp(-2.0)))
    assert not part.adaptive.any()
    assert part.attention.tolist() == [0.0] * 5


def test_size_counts_the_mask_behind_its_sigmoid():
    layer, part = random_layer(Masked)
    part.restart(layer.parametrizations.weight.original, part.knowledge)
    assert part.size(part.adaptive, part.mask).item() == pytest.approx(4 / (1 + np.exp(-2.0)))
    part.adaptive.data[0, 0] = -0.25  # four weights
    assert part.size(part.adaptive, part.mask).item() == pytest.approx(4 / (1 + np.exp(-2.0)) + 1)


# -- both --------------------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_pruning_happens_in_one_mode_only(kind, training):
    layer, part = random_layer(kind)
    base = layer.parametrizations.weight.original
    pruned, whole = part.theta(base, prune=True), part.theta(base, prune=False)
    assert not torch.allclose(pruned, whole)
    prunes = training if kind is ReferenceCodeMasked else not training
    assert torch.equal(layer.train(training).weight, pruned if prunes else whole)


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_gradients(kind, training):
    layer, part = random_layer(kind, dtype=torch.float64)
    part.train(training)
    names = ["mask", "adaptive", "attention"]

    def theta(base: Tensor, *values: Tensor) -> Tensor:
        return functional_call(part, dict(zip(names, values, strict=True)), (base,))

    inputs = [layer.parametrizations.weight.original, *(part.get_parameter(name) for name in names)]
    assert torch.autograd.gradcheck(theta, [value.detach().clone().requires_grad_() for value in inputs])


@kinds
def test_what_is_pruned_gets_no_gradient(kind):
    layer, part = random_layer(kind)
    part.train(kind is ReferenceCodeMasked)
    layer.weight.sum().backward()
    assert torch.equal(part.adaptive.grad, (part.adaptive.abs() > 0.7).float())


@kinds
def test_the_weight_lives_on_as_the_base(kind):
    layer = nn.Linear(3, 2)
    weight, before = layer.weight, layer.weight.detach().clone()
    part = decompose(layer, kind, 0.0, 0.0)
    assert torch.equal(weight, before)
    assert any(weight is parameter for parameter in layer.parameters())
    ratio = 1.0 if kind is ReferenceCodeMasked else 1 / (1 + np.exp(-2.0))
    torch.testing.assert_close(layer.weight, before * ratio)
    assert {name.split(".")[-1] for name, _ in layer.named_parameters()} == {
        "bias", "original", "mask", "adaptive", "attention",
    }  # fmt: skip
    assert part.mask.shape == (2, 1)


@kinds
def test_parts_live_where_the_weight_lives(kind):
    """The meta device stands in for a GPU."""
    weight = torch.empty(3, 2, 1, 1, device="meta")
    part = kind(weight, 0.1, 0.1)
    part.restart(weight, torch.randn(4, 3, 2, 1, 1))
    assert {tensor.device.type for tensor in part.state_dict().values()} == {"meta"}
    assert part(weight).device.type == "meta"
