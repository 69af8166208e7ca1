"""Finds evaluation windows that occur in another series' training range, up to scale and offset.

The corpus holds copies (M1 series inside one another, aligned SKAB experiments, AirPassengers twice), so cutting every
series at 85% is not enough. A training range ends where the first such copy begins. Must not know about models.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .data import Series

# values per compared window -> least number of distinct values that makes a match evidence
WIDTHS = {12: 9, 8: 8}
MULTIPLIERS = np.random.default_rng(2026).integers(1, 2**63, 12, dtype=np.uint64) | np.uint64(1)


def window_keys(x: np.ndarray, width: int, step: int = 1) -> np.ndarray:
    """64-bit key per window scaled to 0…1 and rounded to 3 digits; 0 where the window is no evidence."""
    if len(x) < width:
        return np.zeros(0, np.uint64)
    w = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), width)[::step]
    low, span = w.min(1, keepdims=True), np.ptp(w, 1)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = np.rint((w - low) / span * 1000)
    usable = np.isfinite(scaled).all(1)
    digits = np.where(usable[:, None], scaled, 0)
    distinct = (np.diff(np.sort(digits, 1), axis=1) > 0).sum(1) + 1
    with np.errstate(over="ignore"):
        keys = (digits.astype(np.uint64) * MULTIPLIERS[:width]).sum(1)
    return np.where(usable & (distinct >= WIDTHS[width]), keys, np.uint64(0))


def copies(series: list[Series]) -> dict[tuple[str, str], int]:
    """(source, id) -> offset of the first window of its training range that is part of some evaluation window."""
    first: dict[tuple[str, str], int] = {}
    for width in WIDTHS:
        wanted: list[np.ndarray] = []
        for s in series:
            # the short width serves the horizons too short for the long one
            if s.evaluation_group and (s.horizon >= 12) == (width == 12):
                wanted.append(window_keys(s.values[-s.horizon :], width, 6))
        targets = np.unique(np.concatenate(wanted))
        targets = targets[targets != 0]
        for s in series:
            end = s.training_end
            if end < width:
                continue
            hit = np.flatnonzero(np.isin(window_keys(s.values[:end], width), targets))
            if len(hit):
                key = (s.source, s.id)
                first[key] = min(first.get(key, end), int(hit[0]))
    return first


def without_copies(series: list[Series]) -> list[Series]:
    """The same series with training ranges cut before the first copied window."""
    first = copies(series)
    return [replace(s, limit=first[(s.source, s.id)]) if (s.source, s.id) in first else s for s in series]
