"""Scores a checkpoint on the visible evaluation split: one window at the end of every series.

    python -m training.evaluate toto2 --data CORPUS --checkpoint FOLDER_OR_state.pt [--stride 5] [--json FILE]

MASE: mean over series, in-sample seasonal naive error of the context as denominator (0 or undefined: series skipped).
WQL: sum of pinball losses over sum of absolute values of a group, nine levels. Seasonal naive is scored twice: as a
point forecast at every level, and with normal intervals from its in-sample residuals. Must not know how models train.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .data import Series, load_series

LEVELS = np.arange(1, 10) / 10
NORMAL = np.array([-1.2815516, -0.8416212, -0.5244005, -0.2533471, 0, 0.2533471, 0.5244005, 0.8416212, 1.2815516])
MAX_CONTEXT = 2048
Forecaster = Callable[[list[np.ndarray], int], list[np.ndarray]]  # contexts (NaN = missing), horizon -> [9, horizon] each


def forward_fill(x: np.ndarray) -> np.ndarray:
    index = np.where(np.isfinite(x), np.arange(len(x)), -1)
    last = np.maximum.accumulate(index)
    return np.where(last >= 0, x[last.clip(0)], 0).astype(np.float32)


def seasonal_naive(context: np.ndarray, period: int, horizon: int) -> tuple[np.ndarray, float]:
    """Point forecast [horizon] and residual standard deviation; a context shorter than two periods falls back to period 1."""
    x = forward_fill(context).astype(np.float64)
    m = period if len(x) > period else 1
    point = x[len(x) - m :][np.arange(horizon) % m]
    error = context[m:].astype(np.float64) - context[:-m]
    error = error[np.isfinite(error)]
    return point, float(np.sqrt((error**2).mean())) if len(error) else 0.0


def scale_of(context: np.ndarray, period: int) -> float:
    m = period if len(context) > period else 1
    error = np.abs(context[m:].astype(np.float64) - context[:-m])
    error = error[np.isfinite(error)]
    return float(error.mean()) if len(error) else float("nan")


class Score:
    """Sums for one forecaster in one group."""

    def __init__(self):
        self.mase, self.loss, self.total, self.inside, self.points = [], 0.0, 0.0, 0, 0

    def add(self, quantiles: np.ndarray, actual: np.ndarray, scale: float) -> None:
        seen = np.isfinite(actual)
        y, q = actual[seen].astype(np.float64), quantiles[:, seen].astype(np.float64)
        error = y[None] - q
        self.loss += float((2 * np.maximum(LEVELS[:, None] * error, (LEVELS[:, None] - 1) * error)).mean(0).sum())
        self.total += float(np.abs(y).sum())
        if scale > 0 and len(y):
            self.mase.append(float(np.abs(error[4]).mean() / scale))
        self.inside += int(((y >= q[0]) & (y <= q[8])).sum())
        self.points += len(y)

    def summary(self) -> dict:
        return {"mase": float(np.mean(self.mase)), "wql": self.loss / self.total, "coverage80": self.inside / max(self.points, 1)}


def evaluate(series: list[Series], forecaster: Forecaster, stride: int = 1) -> dict:
    groups: dict[str, list[Series]] = {}
    for s in series:
        if s.evaluation_group:
            groups.setdefault(s.evaluation_group, []).append(s)
    rows = []
    for name, members in groups.items():
        members = members[::stride]
        scores = {k: Score() for k in ("model", "seasonalNaive", "seasonalNaiveIntervals", "naive")}
        for horizon in sorted({s.horizon for s in members}):
            part = [s for s in members if s.horizon == horizon]
            contexts = [s.values[: -s.horizon][-MAX_CONTEXT:] for s in part]
            keep = [i for i, c in enumerate(contexts) if np.isfinite(c).any() and np.isfinite(part[i].values[-horizon:]).any()]
            part, contexts = [part[i] for i in keep], [contexts[i] for i in keep]
            for s, context, q in zip(part, contexts, forecaster(contexts, horizon)):
                actual, scale = s.values[-horizon:], scale_of(context, s.period)
                point, sigma = seasonal_naive(context, s.period, horizon)
                steps = np.arange(horizon) // s.period + 1
                scores["model"].add(q, actual, scale)
                scores["seasonalNaive"].add(np.tile(point, (9, 1)), actual, scale)
                scores["seasonalNaiveIntervals"].add(point + NORMAL[:, None] * sigma * np.sqrt(steps), actual, scale)
                scores["naive"].add(np.tile(forward_fill(context)[-1:], (9, horizon)), actual, scale)
        rows.append({"name": name, "series": len(members), **{k: v.summary() for k, v in scores.items()}})
    mean = {}
    for base in ("seasonalNaive", "seasonalNaiveIntervals"):
        mean[base] = {k: float(np.exp(np.mean([np.log(r["model"][k] / r[base][k]) for r in rows]))) for k in ("mase", "wql")}
    return {"groups": rows, "geometricMean": mean}


def by_padded_length(contexts: list[np.ndarray], patch: int, tokens: int, run: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """Left-pads to whole patches, batches equal lengths (about `tokens` patches at once), keeps the order.
    run(values [n, L], observed [n, L]) -> [n, 9, horizon]."""
    order: dict[int, list[int]] = {}
    for i, c in enumerate(contexts):
        order.setdefault(-(-len(c) // patch), []).append(i)
    out: list[np.ndarray] = [np.empty(0)] * len(contexts)
    for patches, members in order.items():
        size = max(1, tokens // patches)
        for at in range(0, len(members), size):
            chunk = members[at : at + size]
            x = np.zeros((len(chunk), patches * patch), np.float32)
            seen = np.zeros(x.shape, bool)
            for row, i in enumerate(chunk):
                x[row, -len(contexts[i]) :] = forward_fill(contexts[i])
                seen[row, -len(contexts[i]) :] = np.isfinite(contexts[i])
            for row, q in zip(chunk, run(x, seen)):
                out[row] = q
    return out


def toto2_forecaster(model) -> Forecaster:
    import torch

    def forecast(contexts: list[np.ndarray], horizon: int) -> list[np.ndarray]:
        def run(x, seen):
            ids = torch.zeros(len(x), 1, dtype=torch.long)
            return model.forecast(torch.from_numpy(x)[:, None], torch.from_numpy(seen)[:, None], ids, horizon)[:, :, 0].permute(1, 0, 2).numpy()

        return by_padded_length(contexts, model.config.patch_size, 4000, run)

    return forecast


def toto1_forecaster(model, samples: int, seed: int) -> Forecaster:
    import torch

    generator = torch.Generator().manual_seed(seed)

    def forecast(contexts: list[np.ndarray], horizon: int) -> list[np.ndarray]:
        def run(x, seen):
            paths = model.sample(torch.from_numpy(x)[:, None], torch.from_numpy(seen)[:, None], horizon, samples, generator)[:, 0]
            return torch.quantile(paths, torch.tensor(LEVELS, dtype=torch.float32), dim=-1).permute(1, 0, 2).numpy()

        return by_padded_length(contexts, model.config.patch_size, 1500, run)

    return forecast


def load_model(family: str, path: Path):
    """A training state (state.pt) or an exported folder."""
    import torch
    from safetensors.torch import load_file

    if family == "toto2":
        from .models.toto2 import Toto2 as Model, Toto2Config as Config
    else:
        from .models.toto1 import Toto1 as Model, Toto1Config as Config
    if path.is_dir():
        fields = Config.__dataclass_fields__
        config = Config(**{k: v for k, v in json.loads((path / "config.json").read_text()).items() if k in fields})
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path / "model.safetensors").items()}
    else:
        config, state = Config(), torch.load(path, weights_only=False)["model"]
    model = Model(config)
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["toto1", "toto2"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--stride", type=int, default=1, help="score every n-th series")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = load_model(args.family, args.checkpoint)
    forecaster = toto2_forecaster(model) if args.family == "toto2" else toto1_forecaster(model, args.samples, args.seed)
    with torch.no_grad():
        result = evaluate(load_series(args.data), forecaster, args.stride)
    for r in result["groups"]:
        m, s, t = r["model"], r["seasonalNaive"], r["seasonalNaiveIntervals"]
        print(f"{r['name']:18} {r['series']:5} series  MASE {m['mase']:.3f} ({m['mase'] / s['mase']:.3f})  WQL {m['wql']:.4f} ({m['wql'] / s['wql']:.3f}; "
              f"{m['wql'] / t['wql']:.3f} against intervals)  coverage80 {m['coverage80']:.3f}")  # fmt: skip
    print("geometric mean of ratios", json.dumps(result["geometricMean"]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
