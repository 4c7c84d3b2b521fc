"""Optimizers beyond the Trainer's own: Muon with AdamW.

Muon (Jordan et al. 2024, torch.optim.Muon) turns the update of each hidden matrix into an orthogonal one; embeddings,
norms and biases are no such matrices and take AdamW. Together they learn a language from scratch in about half the
steps of AdamW.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for hidden matrices, AdamW for everything else, as one optimiser with one schedule.

    Args:
        model: its parameters that need gradients are taken.
        learning_rate: of both.
        weight_decay: for matrices and embeddings.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float):
        matrices, tables, vectors = _by_kind(model)
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            muon = torch.optim.Muon(
                matrices,
                lr=learning_rate,
                momentum=_MOMENTUM,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",  # Steps as long as AdamW's, so that one rate suits both.
            )
            self._parts.append(muon)
        groups = [{"params": tables, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        groups = [group for group in groups if group["params"]]
        if groups:
            self._parts.append(torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95)))
        super().__init__([*matrices, *tables, *vectors], {"lr": learning_rate})
        self._share_groups()

    def _share_groups(self) -> None:
        """The schedule changes `param_groups`: they are the parts' own dictionaries."""
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        if closure is not None:
            raise ValueError("a closure is not supported")
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def _by_kind(model: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Trainable parameters as hidden matrices, embedding tables, and vectors."""
    of_tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    matrices: list[Tensor] = []
    tables: list[Tensor] = []
    vectors: list[Tensor] = []
    for parameter in model.parameters():  # A tied output layer comes once.
        if parameter.requires_grad:
            if id(parameter) in of_tables:
                tables.append(parameter)
            else:
                (matrices if parameter.ndim == 2 else vectors).append(parameter)
    return matrices, tables, vectors
