"""Muon for hidden matrices, Adam for everything else, and the schedule both follow.

Learning rates are given in effective units: the size of an update of the matrix that multiplies the input. A layer
that stores W and multiplies by W·factor gets its rate divided by that factor. Must not know about data.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdam(torch.optim.Optimizer):
    """Groups: {"params", "lr", "kind": "muon"|"adam", "factor", "decay"}; `lr_scale` is set by the schedule."""

    def __init__(self, groups: list[dict]):
        super().__init__(groups, {"lr": 1e-3, "factor": 1.0, "decay": 0.0, "kind": "adam"})
        self.lr_scale = 1.0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            lr = group["lr"] * self.lr_scale / group["factor"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"], state["m"] = 0, torch.zeros_like(p)
                    if group["kind"] == "adam":
                        state["v"] = torch.zeros_like(p)
                state["step"] += 1
                if group["decay"]:
                    p.mul_(1 - group["lr"] * self.lr_scale * group["decay"])
                if group["kind"] == "muon":
                    state["m"].lerp_(p.grad, 0.05)
                    update = orthogonalise(p.grad.lerp(state["m"], 0.95))
                    # 0.2·√max(dims) gives the update the root mean square an Adam step has
                    p.add_(update, alpha=-lr * 0.2 * math.sqrt(max(p.shape)))
                else:
                    state["m"].lerp_(p.grad, 0.1)
                    state["v"].lerp_(p.grad.square(), 0.02)
                    m = state["m"] / (1 - 0.9 ** state["step"])
                    v = state["v"] / (1 - 0.98 ** state["step"])
                    p.addcdiv_(m, v.sqrt().add_(1e-12), value=-lr)


def schedule(progress: float, warmup: float = 0.02, decay_from: float = 0.35) -> float:
    """Linear warm-up, constant, then linear to zero; progress in [0, 1]."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 1.0 if progress < decay_from else max(1 - (progress - decay_from) / (1 - decay_from), 0.0)


def clip_gradients(model: nn.Module, limit: float) -> float:
    return float(nn.utils.clip_grad_norm_(model.parameters(), limit))
