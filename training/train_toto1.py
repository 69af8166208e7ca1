"""Trains toto1-nano: python -m training.train_toto1 --data CORPUS --out RUN [--minutes 35] [--without-copyleft]."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .data import TrainingSet, WindowSampler, load_series
from .leaks import without_copies
from .models.toto1 import Toto1, Toto1Config, mixture_log_density
from .optimise import MuonAdam, clip_gradients, schedule
from .runs import Run
from .synthetic import generate

# name -> (input tokens, groups of four rows, share of the steps); about 3,000 tokens each
BUCKETS = {"short": (6, 120, 0.3), "middle": (20, 36, 0.35), "long": (64, 12, 0.35)}
# Log densities above this gain nothing: a constant stretch must not pull all mass onto a point.
DENSITY_LIMIT = 3.0
TARGET_LIMIT = 30.0


def raw_units(rng: np.random.Generator, values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Unit-scale windows -> random scale and offset. This scaler is not scale-free: below 0.3 it squashes, and the zeros
    of left padding are seen relative to the level."""
    shape = (*values.shape[:2], 1)
    scale = np.exp(rng.uniform(np.log(0.05), np.log(50), shape))
    level = np.exp(rng.normal(0.8, 1.3, shape)) * rng.choice([-1, 1, 1, 1], shape) * (rng.uniform(size=shape) < 0.75)
    # inner gaps carry the last value, leading ones zero, as the callers of the model fill them
    index = np.where(observed, np.arange(values.shape[-1]), -1)
    last = np.maximum.accumulate(index, -1)
    filled = np.take_along_axis(values, last.clip(0), -1)
    return np.where(last >= 0, (filled + level) * scale, 0).astype(np.float32)


def batch_loss(model: Toto1, values: np.ndarray, observed: np.ndarray, ids: np.ndarray, bf16: bool) -> torch.Tensor:
    """values, observed [G, 4, (S+1)·P]: negative log density of patch i+1 in the units of patch i."""
    p = model.config.patch_size
    x, seen = torch.from_numpy(values), torch.from_numpy(observed)
    z, loc, scale = model.normalise(x[..., :-p], seen[..., :-p], x.shape[-1] - p)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        df, loc_k, scale_k, log_weight = model.head(model.hidden(z, torch.from_numpy(ids)))
    following = x[..., p:].unflatten(-1, (-1, p))
    target = ((following - loc[..., None]) / scale[..., None]).clamp(-TARGET_LIMIT, TARGET_LIMIT)
    weight = seen[..., p:].unflatten(-1, (-1, p)) & (seen[..., :-p].long().cumsum(-1)[..., p - 1 :: p] >= 3)[..., None]
    density = mixture_log_density(target, df.float(), loc_k.float(), scale_k.float(), log_weight.float())
    return -(density.clamp(max=DENSITY_LIMIT) * weight).sum() / weight.sum().clamp(min=1)


def parameter_groups(model: Toto1, lr: float) -> list[dict]:
    muon = [p for n, p in model.named_parameters() if p.dim() == 2 and ("transformer" in n or "unembed" in n)]
    chosen = {id(p) for p in muon}
    return [{"params": muon, "lr": lr, "kind": "muon", "decay": 0.02}, {"params": [p for p in model.parameters() if id(p) not in chosen], "lr": lr * 0.3}]


def initialise(model: Toto1) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
    head = model.model.output_distribution
    nn.init.normal_(head.loc_proj.bias, std=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds series/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--minutes", type=float, default=35)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.008)
    parser.add_argument("--synthetic", type=int, default=16000)
    parser.add_argument("--float32-from", type=float, default=0.85)
    parser.add_argument("--without-copyleft", action="store_true", help="leave the GPL/LGPL sources out")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(args.seed)
    run = Run(args.out, args.steps, args.minutes)
    config = Toto1Config()
    model = Toto1(config)
    initialise(model)
    optimiser = MuonAdam(parameter_groups(model, args.lr))
    training = TrainingSet(without_copies(load_series(args.data, args.without_copyleft)))
    p = config.patch_size
    sampler = WindowSampler(training, generate(args.seed + 11, args.synthetic, 68 * p), args.seed)
    rng = np.random.default_rng(args.seed + 1)
    extra = {"sampler": (lambda: sampler.rng.bit_generator.state, lambda s: setattr(sampler.rng.bit_generator, "state", s)),
             "units": (lambda: rng.bit_generator.state, lambda s: setattr(rng.bit_generator, "state", s))}  # fmt: skip
    run.resume(model, optimiser, extra)
    print(f"{sum(q.numel() for q in model.parameters())} parameters, {len(training.length)} series", flush=True)
    names = list(BUCKETS)
    shares = [BUCKETS[n][2] for n in names]
    while run.progress < 1:
        name = names[rng.choice(len(names), p=shares)]
        tokens, groups, _ = BUCKETS[name]
        run.threads.begin()
        values, observed, ids = sampler.draw(name, groups, (tokens + 1) * p)
        loss = batch_loss(model, raw_units(rng, values, observed), observed, ids, run.progress < args.float32_from)
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
    run.finish("toto1-nano", {"seed": args.seed, "lr": args.lr, "withoutCopyleft": args.without_copyleft, "parameters": sum(q.numel() for q in model.parameters())})


if __name__ == "__main__":
    main()
