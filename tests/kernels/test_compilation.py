"""The switch CHAT_APP_KERNELS: unset and on compile, off leaves all to torch, anything else is a sentence."""

from __future__ import annotations

import pytest
import torch

from chat_app.errors import SettingError
from chat_app.kernels import compilation
from chat_app.kernels.packed_weights import PackedWeights, get_kernel, kernels_are_on

SWITCH = "CHAT_APP_KERNELS"


@pytest.mark.parametrize("value", [None, "", "on"])
def test_kernels_are_on_by_default(value, monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert kernels_are_on()


def test_off_starts_no_compiler(monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    monkeypatch.setattr(compilation, "_start_kernel", lambda eight_bits: pytest.fail("a kernel was asked for"))
    assert not kernels_are_on()
    assert isinstance(get_kernel(True).exception(), OSError)


@pytest.mark.parametrize("eight_bits", [True, False])
def test_off_leaves_packing_and_products_to_torch(eight_bits, monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    generator = torch.Generator().manual_seed(1)
    weight, rows = torch.randn(96, 70, generator=generator), torch.randn(3, 96, generator=generator)
    weights = PackedWeights([(70, 96)], eight_bits)
    weights.pack(0, weight, None)
    assert weights.kernel is None
    expected = rows @ weight
    assert (weights.multiply(0, rows) - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("value", ["ON", "0", "guard", "nothing at all" * 10])
def test_an_unknown_value_is_a_sentence(value, monkeypatch):
    monkeypatch.setenv(SWITCH, value)
    with pytest.raises(SettingError, match=SWITCH) as caught:
        get_kernel(False)
    assert str(caught.value).endswith("Leave it out, or set it to on, off or guarded.")
    assert len(str(caught.value)) < 150
