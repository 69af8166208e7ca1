"""Candle corpus for Kronos: what may be read, the split, stamps, window normalisation and the window sampler.

Training reads the first 85% of every series of CORPUS/ohlcv, plus BTC to 2019-06-30 and ETH to 2018-12-31 of the
visible candle files. The visible equity files are left out: their years overlap the evaluation tails of other copies.
Must not know about models.
"""

from __future__ import annotations

import csv
import datetime
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .data import COPYLEFT

DATED_FILES = {"BTCUSD-1h": "2019-06-30T23:59:59+00:00", "ETHUSD-1d": "2018-12-31T23:59:59+00:00"}
HORIZON = 20
CLIP = 5.0


@dataclass(frozen=True)
class Candles:
    source: str
    id: str
    rows: np.ndarray  # float32 [n, 6] open, high, low, close, volume, amount; no NaN
    stamps: np.ndarray  # int64 [n, 5] minute, hour, weekday (Monday 0), day, month
    seconds: np.ndarray  # int64 [n]
    training_end: int  # evaluation starts here
    segments: tuple[tuple[int, int], ...] = ()  # row ranges training may read

    @property
    def symbol(self) -> str:
        return self.id.rsplit("-", 1)[0].replace("_", "").upper()


def apart_from_evaluation(candles: list[Candles]) -> list[Candles]:
    """Training ranges without the time spans in which another copy of the same symbol (other broker, other bar length)
    is evaluated; two days are left on both sides because some stamps are local."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for c in candles:
        if c.training_end < len(c.rows):
            spans.setdefault(c.symbol, []).append((int(c.seconds[c.training_end]) - 172800, int(c.seconds[-1]) + 172800))
    out = []
    for c in candles:
        allowed = np.arange(len(c.rows)) < c.training_end
        for low, high in spans.get(c.symbol, []):
            if low + 172800 != int(c.seconds[min(c.training_end, len(c.rows) - 1)]):
                allowed &= (c.seconds < low) | (c.seconds > high)
        edges = np.flatnonzero(np.diff(np.r_[False, allowed, False].astype(np.int8)))
        out.append(replace(c, segments=tuple((int(a), int(b)) for a, b in zip(edges[::2], edges[1::2]))))
    return out


def complete(rows: np.ndarray) -> np.ndarray:
    """Missing volume -> 0 and 0; missing amount -> volume times the mean price."""
    rows = rows.astype(np.float32).copy()
    volume = np.nan_to_num(rows[:, 4])
    amount = np.where(np.isnan(rows[:, 5]), volume * rows[:, :4].mean(1), rows[:, 5])
    rows[:, 4], rows[:, 5] = volume, np.where(np.isnan(rows[:, 4]), 0, amount)
    return rows


def calendar(seconds: np.ndarray) -> np.ndarray:
    days = np.floor_divide(seconds, 86400)
    date = days.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    return np.stack((seconds // 60 % 60, seconds // 3600 % 24, (days + 3) % 7, (date - month).astype(int) + 1, month.astype(int) % 12 + 1), 1).astype(np.int64)


def load_candles(root: Path, visible: Path | None, without_copyleft: bool = False) -> list[Candles]:
    out = []
    for path in sorted((root / "ohlcv").glob("*.json")):
        if without_copyleft and path.stem in COPYLEFT:
            continue
        values, seconds = np.load(path.with_suffix(".npy")), np.load(path.with_suffix(".ts.npy"))
        for s in json.loads(path.read_text())["series"]:
            span = slice(s["offset"], s["offset"] + s["length"])
            n = s["length"]
            out.append(Candles(path.stem, f"{s['id']}-{s['freq']}", complete(values[span]), calendar(seconds[span]), seconds[span], min(int(n * 0.85), n - HORIZON)))
    for name, until in DATED_FILES.items() if visible else ():
        with open(visible / f"{name}.csv", newline="") as file:
            records = list(csv.DictReader(file))
        stamps = [datetime.datetime.fromisoformat(r["timestamp"].replace("Z", "+00:00")) for r in records]
        rows = np.array([[float(r[c]) for c in ("open", "high", "low", "close", "volume")] + [np.nan] for r in records], np.float32)
        seconds = np.array([int(t.timestamp()) for t in stamps])
        end = int((seconds <= datetime.datetime.fromisoformat(until).timestamp()).sum())
        out.append(Candles("visible", name, complete(rows), calendar(seconds), seconds, end))
    return apart_from_evaluation(out)


def normalise(rows: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """rows [..., T, 6] -> clipped candles in units of the first `context` rows, with mean and deviation [..., 1, 6]."""
    head = rows[..., :context, :]
    mean, deviation = head.mean(-2, keepdims=True), head.std(-2, keepdims=True)
    return ((rows - mean) / (deviation + 1e-5)).clip(-CLIP, CLIP), mean, deviation


class CandleSampler:
    """Windows from training ranges; equal share per square root of length."""

    def __init__(self, candles: list[Candles], length: int, seed: int):
        self.candles = [(c, a, b) for c in candles for a, b in c.segments if b - a >= length + 8]
        weight = np.array([b - a for _, a, b in self.candles], float) ** 0.5
        self.cumulative = (weight / weight.sum()).cumsum()
        self.length, self.rng = length, np.random.default_rng(seed)

    def draw(self, count: int, context_low: int, context_high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x float32 [count, length, 6], stamps [count, length, 5], contexts [count] (rows the units were taken from)."""
        n, rng = self.length, self.rng
        x = np.empty((count, n, 6), np.float32)
        stamps = np.empty((count, n, 5), np.int64)
        contexts = rng.integers(context_low, context_high + 1, count)
        for i, series in enumerate(np.searchsorted(self.cumulative, rng.uniform(size=count)).clip(max=len(self.candles) - 1)):
            c, low, high = self.candles[series]
            factor = int(rng.choice((1, 1, 1, 1, 2, 3, 4)))
            if high - low < n * factor:
                factor = 1
            start = int(rng.integers(low, high - n * factor + 1))
            rows = c.rows[start : start + n * factor].astype(np.float64)
            if factor > 1:
                rows = rows.reshape(n, factor, 6)
                rows = np.stack((rows[:, 0, 0], rows[:, :, 1].max(1), rows[:, :, 2].min(1), rows[:, -1, 3], rows[:, :, 4].sum(1), rows[:, :, 5].sum(1)), 1)
            if rng.uniform() < 0.1:
                rows[:, 4:] = 0
            if rng.uniform() < 0.3:  # mirrored market: no direction is preferred
                top = rows[:, 1].max() + rows[:, 2].min()
                rows[:, :4] = top - rows[:, [0, 2, 1, 3]]
            x[i] = normalise(rows, int(contexts[i]))[0]
            stamps[i] = c.stamps[start : start + n * factor : factor]
        return x, stamps, contexts
