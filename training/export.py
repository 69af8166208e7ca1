"""Writes a trained state as a checkpoint folder: config.json, model.safetensors, golden/ and (from cards.py) README.md.

    python -m training.export toto2-nano --state RUN/state.pt --out models/toto2-nano
    python -m training.export kronos-nano --state RUN/state.pt --tokenizer models/kronos-tokenizer-nano --out models/kronos-nano

golden/ holds inputs and what this package's forward makes of them (truth: float64 network on the stored weights for Toto, float32 for Kronos), so that
another implementation can be compared without PyTorch. Must not know how the weights came about.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from .models.kronos import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig
from .models.toto1 import Toto1, Toto1Config
from .models.toto2 import Toto2, Toto2Config

FAMILIES = {"toto2-nano": (Toto2, Toto2Config), "toto1-nano": (Toto1, Toto1Config), "kronos-nano": (Kronos, KronosConfig), "kronos-tokenizer-nano": (KronosTokenizer, TokenizerConfig)}
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}


def example_series(rows: int, length: int, seed: int) -> np.ndarray:
    """Seasonal test series with level, trend and noise, float32 [rows, length]."""
    rng = np.random.default_rng(seed)
    t = np.arange(length)[None]
    period = rng.choice([7, 12, 24], (rows, 1))
    wave = np.sin(2 * np.pi * (t / period + rng.uniform(size=(rows, 1))))
    level = rng.uniform(2, 40, (rows, 1))
    return (level + level * 0.3 * wave + 0.01 * level * t / 10 + 0.05 * level * rng.standard_normal((rows, length))).astype(np.float32)


def example_candles(rows: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(0.004 * rng.standard_normal((rows, length + 1)).cumsum(1))
    opened, closed = close[:, :-1], close[:, 1:]
    span = 0.2 * np.abs(rng.standard_normal((2, rows, length)))
    volume = rng.gamma(3, 100, (rows, length))
    x = np.stack((opened, np.maximum(opened, closed) + span[0], np.minimum(opened, closed) - span[1], closed, volume, volume * closed), -1).astype(np.float32)
    hours = np.arange(length + 16) + 9
    stamps = np.stack((0 * hours, hours % 24, hours // 24 % 7, 1 + hours // 24 % 28, np.full_like(hours, 6)), -1)
    return x, np.broadcast_to(stamps, (rows, *stamps.shape)).copy()


def write_case(folder: Path, name: str, function: str, options: dict, checkpoint: dict, inputs: dict, truth: dict, single: dict) -> None:
    """Expected values with the tolerance that two float32 runs may need: 8 times the distance of ours from the truth."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = []
    for key, value in truth.items():
        entry = {"name": key, "dtype": DTYPES[value.dtype], "shape": list(value.shape)}
        if value.dtype == torch.float32:
            distance = float((value - single[key]).abs().max())
            rms = float(value.double().square().mean().sqrt())
            # without a float64 run (single is truth) the bound is a plain share of the values' size
            floor = 2e-5 if single[key] is value else 1e-6
            expected.append({**entry, "compare": "close", "maxAbsDiff32": distance, "atol": max(8 * distance, floor * rms), "rtol": 2.4e-7})
        else:
            expected.append({**entry, "compare": "equal"})
    listed = [{"name": k, "dtype": DTYPES[v.dtype], "shape": list(v.shape)} for k, v in inputs.items()]
    case = {"format": 1, "name": name, "function": function, "checkpoint": checkpoint, "options": options, "inputs": listed, "expected": expected}
    (folder / "case.json").write_text(json.dumps(case, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in {**inputs, **truth}.items()}, folder / "tensors.safetensors")


def golden_toto2(model: Toto2, out: Path) -> None:
    p = model.config.patch_size
    univariate = torch.from_numpy(example_series(3, 4 * p, 1))[:, None]
    joint = torch.from_numpy(example_series(3, 5 * p, 2))[None]
    gaps = torch.rand(joint.shape, generator=torch.Generator().manual_seed(3)) > 0.1
    gaps[0, 1, : 2 * p + 5] = False  # wholly unobserved leading patches
    cases = {
        "univariate": (univariate, torch.ones_like(univariate, dtype=torch.bool), torch.zeros(3, 1, dtype=torch.long), 40),
        "joint": (joint, gaps, torch.tensor([[0, 0, 1]]), 2 * p + 6),
    }
    for name, (x, seen, ids, horizon) in cases.items():
        x = torch.where(seen, x, 0.0)
        single = {"quantiles": model.float().forecast(x, seen, ids, horizon)}
        truth = {"quantiles": model.double().forecast(x, seen, ids, horizon)}
        options = {"horizon": horizon, "decodeBlockSize": 0, "hasMissingValues": True, "scalerFallbackMinObs": 0, "quantileRealCapK": 0}
        write_case(out / "golden" / name, f"toto2-nano-{name}", "toto2.forecast", options, {"model": {"bundled": "toto2-nano"}},
                   {"target": x, "mask": seen, "ids": ids}, truth, single)  # fmt: skip
    model.float()


def golden_toto1(model: Toto1, out: Path) -> None:
    x = torch.from_numpy(example_series(3, 4 * model.config.patch_size, 4))[None]
    seen = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) > 0.05
    x = torch.where(seen, x, 0.0)
    ids = torch.tensor([[0, 0, 1]])
    single = {"forecast": model.float().decode_mean(x, seen, ids, 70)}
    truth = {"forecast": model.double().decode_mean(x, seen, ids, 70)}
    model.float()
    write_case(out / "golden" / "mean", "toto1-nano-mean", "toto1.decodeMean", {"horizon": 70, "cache": False, "exogenous": 0},
               {"model": {"bundled": "toto1-nano"}}, {"series": x, "mask": seen, "ids": ids[..., None].expand(x.shape)}, truth, single)  # fmt: skip


def normalised_example(tokenizer: KronosTokenizer) -> tuple[Tensor, Tensor]:
    """Bars whose tokens do not change when values move a little: the encoder reads every bar alone, and the last bit of a
    close on a boundary may fall either way in another order of additions."""
    x, stamps = example_candles(2, 600, 6)
    z = torch.from_numpy(((x - x.mean(1, keepdims=True)) / (x.std(1, keepdims=True) + 1e-5)).clip(-5, 5).astype(np.float32))
    generator = torch.Generator().manual_seed(7)
    s1, s2 = tokenizer.encode(z)
    stable = torch.ones_like(s1, dtype=torch.bool)
    for _ in range(12):
        a, b = tokenizer.encode(z + 0.004 * (2 * torch.rand(z.shape, generator=generator) - 1))
        stable &= (a == s1) & (b == s2)
    kept = torch.stack([row[keep][:32] for row, keep in zip(z, stable)])
    return kept, torch.from_numpy(stamps[:, : 32 + 16])


def golden_tokenizer(model: KronosTokenizer, out: Path) -> None:
    with torch.no_grad():
        x, _ = normalised_example(model)
    with torch.no_grad():
        latent = model.latent(x)
        s1, s2 = model.tokens_of(latent)
        single = {"reconstruction": model.decode(s1, s2)}
    print(f"smallest distance of a bit from its threshold: {float(latent.abs().min()):.2e}")
    write_case(out / "golden" / "tokens", "kronos-tokenizer-nano-tokens", "kronos.tokenizer", {}, {"tokenizer": {"bundled": "kronos-tokenizer-nano"}},
               {"x": x}, {"s1": s1, "s2": s2, **single}, single)  # fmt: skip


def golden_kronos(model: Kronos, tokenizer: KronosTokenizer, out: Path) -> None:
    with torch.no_grad():
        x, stamps = normalised_example(tokenizer)
        s1, s2 = tokenizer.encode(x)
    t = s1.shape[1]

    steps = 8
    with torch.no_grad():
        g1, g2 = model.generate(s1, s2, stamps, steps, 1, 1.0, 1.0, None)
        logits = model(g1[:, :-1], g2[:, :-1], stamps[:, : t + steps - 1], g1[:, 1:])
        # [steps, B, vocabulary]: what every step saw at its last position
        single = {name: value[:, t - 1 :].transpose(0, 1).contiguous() for name, value in zip(("s1Logits", "s2Logits"), logits)}
        single["prediction"] = tokenizer.decode(g1, g2)[:, -steps:]
    gap = min(float((single[k].topk(2).values @ torch.tensor([1.0, -1.0])).min()) for k in ("s1Logits", "s2Logits"))
    print(f"smallest gap of the two best logits: {gap:.4f}")
    truth = {"contextS1": s1, "contextS2": s2, "s1": g1[:, t:].T, "s2": g2[:, t:].T, **single}
    options = {"maxContext": model.config.max_context, "predLen": steps, "sampleCount": 1, "topK": 1, "temperature": 1.0, "clip": 5, "forced": False}
    write_case(out / "golden" / "greedy", "kronos-nano-greedy", "kronos.generate", options,
               {"model": {"bundled": "kronos-nano"}, "tokenizer": {"bundled": "kronos-tokenizer-nano"}},
               {"x": x, "stamps": stamps[:, :t], "futureStamps": stamps[:, t : t + steps]}, truth, single)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(FAMILIES))
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="exported tokenizer folder (for kronos-nano)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model_class, config_class = FAMILIES[args.name]
    model = model_class(config_class())
    model.load_state_dict(torch.load(args.state, weights_only=False)["model"])
    model.eval()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(model.config.to_dict(), indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, args.out / "model.safetensors", metadata={"format": "pt"})
    if args.name == "toto2-nano":
        golden_toto2(model, args.out)
    elif args.name == "toto1-nano":
        golden_toto1(model, args.out)
    elif args.name == "kronos-tokenizer-nano":
        golden_tokenizer(model, args.out)
    else:
        from .evaluate_kronos import load

        golden_kronos(model, load("tokenizer", args.tokenizer), args.out)
    print(f"{args.out}: {(args.out / 'model.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    main()
