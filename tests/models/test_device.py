"""Which device a model gets."""

from __future__ import annotations

import pytest
import torch

from chat_app.models.device import spread_over_gpus


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ({}, "cuda:0"),
        ({"cuda:0": 5}, "cuda:1"),
        ({"cuda:0": 5, "cuda:1": 3, "cuda:2": 4}, "cuda:1"),
        ({"cpu": 9}, "cuda:0"),
    ],
)
def test_a_new_model_gets_the_gpu_on_which_the_others_take_least(taken: dict[str, int], chosen: str) -> None:
    for device in ("automatic", "cuda"):
        assert spread_over_gpus(device, taken) == chosen
    for device in ("cpu", "cuda:2"):
        assert spread_over_gpus(device, taken) == device


@pytest.mark.parametrize("count", [0, 1])
def test_without_several_gpus_the_setting_stays(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert spread_over_gpus("automatic", {"cuda:0": 5}) == "automatic"
