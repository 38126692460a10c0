import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedstil_mpi.models.adaptive import Adaptive, AttentiveAdaptive, decompose, parts, receive_base, tying
from support.golden_files import golden

PREFIXES = ("linear", "conv")
cases = pytest.mark.parametrize("path", golden("h_adaptive"), ids=lambda path: path.stem)
kinds = pytest.mark.parametrize("kind", PREFIXES)


def load(path, kind: str) -> tuple[dict[str, Tensor], float, nn.Module]:
    """The arrays of one layer without their prefix, alpha, and the plain layer."""
    case = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    arrays = {key.removeprefix(f"{kind}_"): value for key, value in case.items() if key.startswith(kind)}
    layer: nn.Module
    if kind == "linear":
        layer = nn.Linear(*reversed(arrays["global"].shape))
        layer.bias.data.copy_(arrays["bias"])
    else:
        out, into, *kernel = arrays["global"].shape
        layer = nn.Conv2d(into, out, kernel, int(case["stride"]), int(case["padding"]), bias=False)
    layer.weight.data.copy_(arrays["global"])
    return arrays, float(case["alpha"]), layer


def tied(layer: nn.Module) -> Tensor:
    part, adaptive = parts(layer)
    return tying(part.alpha, adaptive, part.alpha_anchor, part.anchor)


def close(found: Tensor, expected: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found.detach(), expected, rtol=rtol, atol=atol)


@cases
@kinds
def test_golden_decomposed_layer(path, kind):
    case, alpha, layer = load(path, kind)
    decompose(layer, alpha)
    part, adaptive = parts(layer)
    close(part.alpha, case["alpha_vector"])
    close(adaptive, case["adaptive_init"])
    close(layer.weight, case["global"])
    assert tied(layer).item() == 0
    adaptive.data.copy_(case["adaptive"])
    close(layer.weight, case["theta"])
    close(layer(case["x"]), case["y"])
    (layer(case["x"]) ** 2).sum().backward()
    close(adaptive.grad, case["grad_adaptive"], rtol=1e-3, atol=1e-6)
    assert tied(layer).item() == pytest.approx(float(case["tying_l1"]), rel=1e-4)


@cases
@kinds
def test_golden_new_base(path, kind):
    case, alpha, layer = load(path, kind)
    decompose(layer, alpha, trained_anchor=True)
    part, adaptive = parts(layer)
    adaptive.data.copy_(case["adaptive"])
    part.alpha_anchor.data += 1
    receive_base(layer, case["new_global"])
    close(adaptive, case["adaptive_after_update"])
    close(layer.weight, case["theta_after_update"])
    assert tied(layer).item() == 0


@cases
@kinds
def test_golden_attentive_layer(path, kind):
    case, alpha, layer = load(path, kind)
    parametrize.register_parametrization(layer, "weight", AttentiveAdaptive(layer.weight, alpha))
    part, adaptive = layer.parametrizations.weight[0], layer.parametrizations.weight.original
    close(adaptive, case["att_adaptive_init"][..., 0])
    close(layer.weight, case["global"])
    part.receive_bank(case["att_bank"])
    close(part.attention, case["att_alpha_after_update"])
    close(adaptive, case["att_adaptive_init"][..., 0])  # A stays with the client
    part.attention.data.copy_(case["att_alpha"])
    adaptive.data.copy_(case["adaptive"])
    close(layer(case["x"]), case["att_y"])
    (layer(case["x"]) ** 2).sum().backward()
    assert part.attention.grad.abs().min() > 0
    assert adaptive.grad.abs().sum() > 0


@kinds
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.8, 0.9, 1.0])
def test_right_after_a_base_arrives_the_weight_is_the_base(kind, alpha):
    layer: nn.Module = nn.Linear(7, 5) if kind == "linear" else nn.Conv2d(3, 4, 3)
    decompose(layer, alpha)
    parts(layer)[1].data.normal_()
    base = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(2))
    receive_base(layer, base)
    torch.testing.assert_close(layer.weight, base, rtol=0, atol=1e-6)
    if alpha >= 0.5:
        assert torch.equal(layer.weight, base)


def test_only_the_adaptive_part_learns_unless_the_anchors_do():
    for trained_anchor, names in ((False, {"original"}), (True, {"original", "0.anchor", "0.alpha_anchor"})):
        layer = nn.Linear(4, 3, bias=False)
        decompose(layer, 0.9, trained_anchor=trained_anchor)
        learning = {name for name, parameter in layer.named_parameters() if parameter.requires_grad}
        assert learning == {f"parametrizations.weight.{name}" for name in names}


def test_the_gradient_of_the_adaptive_part_is_that_of_the_weight():
    layer, x = nn.Linear(4, 3, bias=False), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    weight = layer.weight.detach().clone().requires_grad_()
    decompose(layer, 0.3)
    F.cross_entropy(layer(x), torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    F.cross_entropy(x @ weight.T, torch.tensor([0, 1, 2, 0, 1, 2])).backward()
    torch.testing.assert_close(parts(layer)[1].grad, weight.grad)


def test_tying_pulls_towards_the_anchor_by_sign():
    layer = nn.Linear(3, 2, bias=False)
    decompose(layer, 0.5)
    moved = torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.5, -0.25]])
    parts(layer)[1].data += moved
    tied(layer).backward()
    assert tied(layer).item() == pytest.approx(3.75, rel=1e-5)
    assert torch.equal(parts(layer)[1].grad, moved.sign())


def test_parts_live_where_the_weight_lives():
    """The meta device stands in for a GPU."""
    weight = torch.empty(3, 2, device="meta")
    for part in (Adaptive(weight, 0.9, trained_anchor=True), AttentiveAdaptive(weight, 0.1)):
        assert {tensor.device.type for tensor in part.state_dict().values()} == {"meta"}
