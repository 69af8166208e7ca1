"""Scores kronos-nano on the tails of the candle files: CRPS of closes 1, 5 and 20 bars ahead and 80% band coverage.

    python -m training.evaluate_kronos --data CORPUS --visible CANDLES --tokenizer DIR_OR_state.pt --model DIR_OR_state.pt

Per series up to --windows origins, evenly spaced over the part training never read; context 128 bars. Baseline: random
walk from the last close with the standard deviation of one-bar changes in the context, grown with the square root of
the lead. CRPS of sampled paths is the unbiased estimate; each origin is divided by its baseline deviation, so that
price levels do not matter; ratios are of sums. Must not know how models train.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from .candles import HORIZON, Candles, calendar, complete, load_candles, normalise
from .models.kronos import Kronos, KronosConfig, KronosTokenizer, TokenizerConfig

LEADS = (1, 5, 20)
CONTEXT = 128
EVALUATION_ONLY = {"AAPL-1d": "2016-12-31", "AMD-1d": "2016-12-31", "GOOGL-1d": "2016-12-31", "600977-5min": "1970-01-01"}


def load(kind: str, path: Path):
    model_class, config_class = (KronosTokenizer, TokenizerConfig) if kind == "tokenizer" else (Kronos, KronosConfig)
    config = config_class()
    if path.is_dir():
        fields = config_class.__dataclass_fields__
        config = config_class(**{k: v for k, v in json.loads((path / "config.json").read_text()).items() if k in fields})
        state = load_file(path / "model.safetensors")
    else:
        state = torch.load(path, weights_only=False)["model"]
    model = model_class(config)
    model.load_state_dict(state)
    return model.eval()


def evaluation_files(visible: Path) -> list[Candles]:
    out = []
    for name, until in EVALUATION_ONLY.items():
        with open(visible / f"{name}.csv", newline="") as file:
            records = list(csv.DictReader(file))
        stamps = [datetime.datetime.fromisoformat(r["timestamp"].replace("Z", "+00:00")) for r in records]
        rows = np.array([[float(r[c]) for c in ("open", "high", "low", "close", "volume")] + [float(r.get("amount") or "nan")] for r in records], np.float32)
        # wall-clock fields of the stamp's own offset
        local = np.array([int(t.replace(tzinfo=datetime.timezone.utc).timestamp()) for t in stamps])
        out.append(Candles("visible", name, complete(rows), calendar(local), local, sum(t.date().isoformat() <= until for t in stamps)))
    return out


def normal_crps(y: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    z = (y - mean) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return deviation * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


def sample_crps(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y [n], x [n, samples]; unbiased in the number of samples."""
    m = x.shape[1]
    ordered = np.sort(x, 1)
    spread = (ordered * (2 * np.arange(1, m + 1) - m - 1)).sum(1) / (m * (m - 1))
    return np.abs(x - y[:, None]).mean(1) - spread


def in_larger_units(c: Candles) -> Candles:
    """Prices far below 1 (altcoins in bitcoin) in a larger unit: the format adds 1e-5 to every deviation."""
    if c.rows[:, 3].mean() >= 0.01:
        return c
    return replace(c, rows=c.rows * np.array([1e5, 1e5, 1e5, 1e5, 1, 1e5], np.float32))


def origins(c: Candles, windows: int) -> list[int]:
    """Index of the first forecast bar; every forecast bar lies past the training end."""
    low, high = max(c.training_end, CONTEXT), len(c.rows) - HORIZON
    if high < low:
        return []
    return sorted({int(v) for v in np.linspace(low, high, windows)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--visible", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer, model = load("tokenizer", args.tokenizer), load("model", args.model)
    generator = torch.Generator().manual_seed(args.seed)
    places = [(in_larger_units(c), o) for c in load_candles(args.data, args.visible) + evaluation_files(args.visible) for o in origins(c, args.windows)]
    rows = {name: {lead: [] for lead in LEADS} for name in ("model", "walk", "inside", "walkInside")}
    errors = []
    for at in range(0, len(places), 16):
        part = places[at : at + 16]
        context = np.stack([c.rows[o - CONTEXT : o] for c, o in part])
        stamps = torch.from_numpy(np.stack([c.stamps[o - CONTEXT : o + HORIZON] for c, o in part]))
        x, mean, deviation = normalise(context, CONTEXT)
        with torch.no_grad():
            s1, s2 = tokenizer.encode(torch.from_numpy(x))
            rebuilt = tokenizer.decode(s1, s2)[:, :, 3].numpy()
            g1, g2 = model.generate(s1, s2, stamps, HORIZON, args.samples, args.temperature, args.top_p, generator)
            closes = tokenizer.decode(g1, g2)[:, -HORIZON:, 3].view(len(part), args.samples, HORIZON).numpy()
        closes = closes * (deviation[:, :, 3:4] + 1e-5) + mean[:, :, 3:4]
        last = context[:, -1, 3].astype(np.float64)
        sigma = np.sqrt((np.diff(context[:, :, 3].astype(np.float64), axis=1) ** 2).mean(1))
        usable = sigma > 0
        errors.append((np.abs(rebuilt - x[:, :, 3]) * (deviation[:, :, 3]) / np.maximum(sigma, 1e-12)[:, None])[usable].mean())
        for lead in LEADS:
            y = np.array([c.rows[o + lead - 1, 3] for c, o in part], np.float64)[usable]
            paths, scale = closes[usable, :, lead - 1].astype(np.float64), sigma[usable]
            walk = scale * math.sqrt(lead)
            low, high = np.quantile(paths, (0.1, 0.9), axis=1)
            rows["model"][lead] += list(sample_crps(y, paths) / scale)
            rows["walk"][lead] += list(normal_crps(y, last[usable], walk) / scale)
            rows["inside"][lead] += list((y >= low) & (y <= high))
            rows["walkInside"][lead] += list(np.abs(y - last[usable]) <= 1.2815516 * walk)
    result = {"origins": len(places), "context": CONTEXT, "samples": args.samples, "temperature": args.temperature, "topP": args.top_p,
              "reconstructionError": float(np.mean(errors)), "leads": {}}  # fmt: skip
    for lead in LEADS:
        ratio = float(np.sum(rows["model"][lead]) / np.sum(rows["walk"][lead]))
        result["leads"][lead] = {"crpsRatio": ratio, "coverage80": float(np.mean(rows["inside"][lead])), "walkCoverage80": float(np.mean(rows["walkInside"][lead]))}
        print(f"{lead:2} bars: CRPS ratio to random walk {ratio:.3f}  coverage80 {result['leads'][lead]['coverage80']:.3f} (walk {result['leads'][lead]['walkCoverage80']:.3f})")
    print(f"{len(places)} origins; mean close reconstruction error {result['reconstructionError']:.3f} of a one-bar deviation")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
