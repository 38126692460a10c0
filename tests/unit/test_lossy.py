"""Codecs of weights: how many bytes, how large the error, and what happens to damaged payloads."""

import math

import pytest
import torch

from fedstil_mpi.comm.flat import Layout
from fedstil_mpi.comm.lossy import LossyCodec, groups
from fedstil_mpi.config.sections import LOSSY

LAYOUT = Layout(("depthwise", "linear", "scale"), ((32, 1, 3, 3), (10, 90), (33,)), torch.float32)
SCALARS = 32 * 9 + 900 + 33


def codec(name):
    return LossyCodec(name, groups(LAYOUT))


def values(seed=0):
    return torch.randn(SCALARS, generator=torch.Generator().manual_seed(seed)) * 1e-3


def test_a_scale_for_each_output_channel_of_at_least_64_scalars():
    assert groups(LAYOUT) == ((4, 72), (10, 90), (1, 33))  # eight channels of 9 together
    assert groups(Layout(("prime", "none"), ((7, 3), (0, 5)), torch.float32)) == ((1, 21), (1, 0))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("float16", 2 * SCALARS), ("bfloat16", 2 * SCALARS), ("int8", SCALARS), ("int4", math.ceil(SCALARS / 2))),
        *(("int3", 3 * math.ceil(SCALARS / 8)), ("ternary", math.ceil(SCALARS / 5)), ("sign", math.ceil(SCALARS / 8))),
    ],
)
def test_bytes_by_hand(name, size):
    """A checksum, a scale of two bytes for each of 15 groups, and the codes: eight of three bits to three bytes, five of three
    values to one."""
    scales = 0 if name.endswith("float16") else 2 * 15
    assert len(codec(name).encode(values())) == codec(name).size == 4 + scales + size


@pytest.mark.parametrize(("dead_zone", "bits", "error"), [(1.2, 1.024, 0.345), (1.5, 0.717, 0.498)])
def test_an_entropy_code_of_fewer_bits_than_one(dead_zone, bits, error):
    """A Gaussian's entropy of the codes, and the share of its energy that they miss, by numerical integration."""
    large = LossyCodec("ternary_entropy", ((1000, 1000),), dead_zone)
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1))
    payload = large.encode(x)
    assert 8 * len(payload) / 1e6 == pytest.approx(bits, abs=0.02)
    assert len(payload) < large.size
    missed = (large.decode(payload) - x).square().sum() / x.square().sum()
    assert missed == pytest.approx(error, abs=0.005)


@pytest.mark.parametrize(("name", "top"), [("int8", 127), ("int4", 7), ("int3", 3)])
def test_an_integer_code_is_off_by_half_a_step_at_most(name, top):
    x = values()
    back = codec(name).decode(codec(name).encode(x))
    for got, wanted in zip(back.split([288, 900, 33]), x.split([288, 900, 33]), strict=True):
        assert (got - wanted).abs().max() <= 0.51 * wanted.abs().max() / top


@pytest.mark.parametrize("name", ["ternary", "ternary_entropy"])
def test_ternary_scales_are_the_least_squares_ones(name):
    x = values()[288:1188].view(10, 90)
    back = codec(name).decode(codec(name).encode(values()))[288:1188].view(10, 90)
    for row, got in zip(x, back, strict=True):
        q = got.sign()
        assert len(got.unique()) == 3
        assert got.abs().max().item() == pytest.approx((row @ q / (q @ q)).item(), rel=2**-8)  # a bfloat16


@pytest.mark.parametrize("name", LOSSY)
def test_zeros_stay_zeros(name):
    assert not codec(name).decode(codec(name).encode(torch.zeros(SCALARS))).any()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_what_was_rounded_once_is_not_rounded_again(name):
    once = codec(name).decode(codec(name).encode(values()))
    assert torch.equal(codec(name).decode(codec(name).encode(once)), once)


@pytest.mark.parametrize("name", LOSSY)
def test_a_damaged_payload_is_refused(name):
    payload = codec(name).encode(values())
    for place in range(0, len(payload), 37):
        damaged = payload.clone()
        damaged[place] ^= 16
        with pytest.raises(ValueError, match="damaged"):
            codec(name).decode(damaged)
    for length in (0, 3, len(payload) - 1):
        with pytest.raises(ValueError, match="damaged"):
            codec(name).decode(payload[:length])


@pytest.mark.parametrize("name", LOSSY)
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_is_not_finite_is_not_sent(name, number):
    x = values()
    x[700] = number
    with pytest.raises(ValueError, match="not finite"):
        codec(name).encode(x)


def test_half_precision_sends_its_largest_number_and_leaves_the_rest_for_later():
    _, arrives = codec("float16").send(torch.full((SCALARS,), -1e5))
    assert arrives.unique().tolist() == [-65504]


@pytest.mark.parametrize("name", LOSSY)
def test_the_sender_knows_what_arrives(name):
    """To the last bit, zeros' signs included."""
    payload, arrives = codec(name).send(values())
    assert arrives.numpy().tobytes() == codec(name).decode(payload).numpy().tobytes()


def test_numbers_whose_squares_are_none_are_sent_as_zeros():
    """Else more of them would be farther out than Chebyshev's inequality lets them, and the payload too long."""
    tiny = torch.full((SCALARS,), -1e-30)
    assert not codec("ternary_entropy").decode(codec("ternary_entropy").encode(tiny)).any()
