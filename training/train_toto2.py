"""Trains toto2-nano: python -m training.train_toto2 --data CORPUS --out RUN [--minutes 55] [--without-copyleft]."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .data import VARIATES, TrainingSet, WindowSampler, load_series
from .leaks import without_copies
from .models.toto2 import QUANTILES, Toto2, Toto2Config, UnitLinear
from .optimise import MuonAdam, clip_gradients, schedule
from .runs import Run
from .synthetic import generate

# name -> (input tokens, groups of four rows, share of the steps); about 4,000 tokens each
BUCKETS = {"short": (7, 144, 0.3), "middle": (22, 46, 0.35), "long": (66, 15, 0.35)}
TARGET_LIMIT = 8.0


def masked_patches(rng: np.random.Generator, name: str, groups: int, tokens: int) -> np.ndarray:
    """bool [groups, tokens]: true = the patch is hidden and must be predicted from before it."""
    hidden = np.zeros((groups, tokens), bool)
    longest = {"short": 2, "middle": 6, "long": 14}[name]
    for g in range(groups):
        u = rng.uniform()
        tail = 0 if u < 0.3 else 1 if u < 0.65 else 2 if u < 0.78 else 3 if u < 0.87 else int(rng.integers(4, 15))
        tail = min(tail, longest)
        if tail:
            hidden[g, -tail:] = True
        if name != "short" and rng.uniform() < 0.4:
            for _ in range(int(rng.integers(1, 2 + tokens // 12))):
                start = int(rng.integers(1, tokens))
                hidden[g, start : start + int(rng.integers(1, 4))] = True
    return hidden


def make_tiny(rng: np.random.Generator, values: np.ndarray, observed: np.ndarray, hidden: np.ndarray, patch: int) -> None:
    """Contexts shorter than a patch, as `forecast()` sees them: left-padded zeros that count as observed."""
    tokens = hidden.shape[1]
    for g in np.flatnonzero(rng.uniform(size=len(hidden)) < 0.1):
        last = tokens - 1 - int(rng.uniform() < 0.3)
        hidden[g] = False
        hidden[g, last + 1 :] = True
        start = last * patch
        pad = int(rng.integers(1, patch - 2))
        level = np.abs(rng.standard_normal(VARIATES) * 3 * (rng.uniform(size=VARIATES) < 0.8))
        values[g] += level[:, None].astype(np.float32) * np.sign(rng.standard_normal())
        values[g, :, : start + pad] = 0
        observed[g, :, :start] = False
        observed[g, :, start : start + patch] = True


def pinball(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """prediction [..., 9], target and weight [...]."""
    levels = torch.tensor(QUANTILES)
    error = target[..., None] - prediction
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    return 2 * (loss * weight).sum() / weight.sum().clamp(min=1)


def batch_loss(model: Toto2, values: np.ndarray, observed: np.ndarray, ids: np.ndarray, hidden: np.ndarray, bf16: bool) -> torch.Tensor:
    """values, observed [G, 4, (S+1)·P]; hidden [G, S]. Output i is scored on patch i+1 in the units of patch i."""
    p = model.config.patch_size
    x, seen = torch.from_numpy(values), torch.from_numpy(observed)
    cover = torch.from_numpy(hidden)[:, None, :].expand(-1, x.shape[1], -1)
    visible = seen[..., :-p] & ~cover.repeat_interleave(p, -1)
    z, loc, scale = model.normalise(x[..., :-p], visible)
    group = torch.from_numpy(ids)[..., None].expand_as(loc).clone()
    patch_seen = visible.unflatten(-1, (-1, p))
    group[~patch_seen.any(-1) & ~cover] = -1
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prediction = model.network(z, (~patch_seen).float(), group)
    following = x[..., p:].unflatten(-1, (-1, p))
    target = torch.asinh((following - loc[..., None]) / scale[..., None]).clamp(-TARGET_LIMIT, TARGET_LIMIT)
    weight = seen[..., p:].unflatten(-1, (-1, p)).float()
    weight = weight * (visible.long().cumsum(-1)[..., p - 1 :: p] >= 3)[..., None] * torch.where(cover, 1.5, 1.0)[..., None]
    return pinball(prediction.float(), target, weight)


def parameter_groups(model: Toto2, lr: float) -> list[dict]:
    groups = []
    for name, module in model.named_modules():
        if isinstance(module, UnitLinear):
            hidden = name.startswith("transformer") or name.endswith(("proj.linear1", "patch_proj.linear2"))
            kind = "muon" if hidden and name != "patch_proj.linear1" else "adam"
            rate = lr if kind == "muon" else lr * 0.3
            groups.append({"params": [module.weight], "lr": rate, "kind": kind, "factor": module.factor, "decay": 0.02 if kind == "muon" else 0.0})
            if module.bias is not None:
                groups.append({"params": [module.bias], "lr": lr * 0.3, "factor": module.factor})
    groups.append({"params": [p for n, p in model.named_parameters() if "per_dim_scale" in n], "lr": lr})
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds series/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=15000)
    parser.add_argument("--minutes", type=float, default=55)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--synthetic", type=int, default=24000)
    parser.add_argument("--float32-from", type=float, default=0.85, help="progress from which matrix products leave bfloat16")
    parser.add_argument("--without-copyleft", action="store_true", help="leave the GPL/LGPL sources out")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    run = Run(args.out, args.steps, args.minutes)
    config = Toto2Config()
    model = Toto2(config)
    optimiser = MuonAdam(parameter_groups(model, args.lr))
    training = TrainingSet(without_copies(load_series(args.data, args.without_copyleft)))
    p = config.patch_size
    synthetic = generate(args.seed + 7, args.synthetic, 68 * p)
    sampler = WindowSampler(training, synthetic, args.seed)
    rng = np.random.default_rng(args.seed + 1)
    extra = {"sampler": (lambda: sampler.rng.bit_generator.state, lambda s: setattr(sampler.rng.bit_generator, "state", s)),
             "masks": (lambda: rng.bit_generator.state, lambda s: setattr(rng.bit_generator, "state", s))}  # fmt: skip
    run.resume(model, optimiser, extra)
    print(f"{sum(q.numel() for q in model.parameters())} parameters, {len(training.length)} series, {len(synthetic)} synthetic", flush=True)
    names = list(BUCKETS)
    shares = [BUCKETS[n][2] for n in names]
    while run.progress < 1:
        name = names[rng.choice(len(names), p=shares)]
        tokens, groups, _ = BUCKETS[name]
        run.threads.begin()
        values, observed, ids = sampler.draw(name, groups, (tokens + 1) * p)
        hidden = masked_patches(rng, name, groups, tokens)
        if name == "short":
            make_tiny(rng, values, observed, hidden, p)
        loss = batch_loss(model, values, observed, ids, hidden, run.progress < args.float32_from)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clip_gradients(model, 1.0)
        optimiser.lr_scale = schedule(run.progress)
        optimiser.step()
        if not math.isfinite(value := float(loss.detach())):
            raise SystemExit(f"loss became {value} at step {run.step}; lower --lr")
        run.threads.end(tokens * groups)
        run.record(value)
        if run.step % 400 == 0:
            run.save(model, optimiser, extra)
    run.save(model, optimiser, extra)
    run.finish("toto2-nano", {"seed": args.seed, "lr": args.lr, "withoutCopyleft": args.without_copyleft, "parameters": sum(q.numel() for q in model.parameters())})


if __name__ == "__main__":
    main()
