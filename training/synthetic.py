"""Seeded synthetic series in the spirit of the published recipes: Gaussian-process kernels, seasonal + trend + level
shifts, evolving seasonal states, random walks and AR, intermittent counts, spiky machine metrics.

Every family is one vectorised function (rows at once) returning float32 [rows, length]. Must not know about models or
about the training corpus.
"""

from __future__ import annotations

import numpy as np

PERIODS = np.array([4, 5, 6, 7, 8, 10, 12, 24, 30, 36, 48, 52, 60, 72, 96, 120, 144, 168, 288, 336, 365, 480, 672, 720, 1440])
PERIOD_WEIGHTS = np.array([3, 1, 1, 6, 1, 1, 8, 14, 1, 1, 6, 4, 3, 1, 4, 1, 3, 8, 8, 3, 2, 1, 2, 1, 1], dtype=float)
Rng = np.random.Generator


def standardise(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(1, keepdims=True)
    return x / (x.std(1, keepdims=True) + 1e-9)


def column(rng: Rng, rows: int, low: float, high: float, log: bool = False) -> np.ndarray:
    u = rng.uniform(0, 1, (rows, 1))
    return np.exp(np.log(low) + u * (np.log(high) - np.log(low))) if log else low + u * (high - low)


def chance(rng: Rng, rows: int, p: float) -> np.ndarray:
    return (rng.uniform(0, 1, (rows, 1)) < p).astype(np.float64)


def pick_periods(rng: Rng, rows: int) -> np.ndarray:
    """Mostly calendar periods, one in five arbitrary."""
    known = rng.choice(PERIODS, (rows, 1), p=PERIOD_WEIGHTS / PERIOD_WEIGHTS.sum()).astype(float)
    free = column(rng, rows, 3, 700, log=True)
    return np.where(rng.uniform(0, 1, (rows, 1)) < 0.2, free, known)


def stationary_gp(rng: Rng, rows: int, length: int, kind: str) -> np.ndarray:
    """Gaussian process by spectral synthesis: rbf (smooth), matern (rough), rational (long memory)."""
    n = 2 * length
    frequency = np.fft.rfftfreq(n)[None]
    scale = column(rng, rows, 2, length, log=True)
    w = 2 * np.pi * frequency * scale
    if kind == "rbf":
        power = np.exp(-0.5 * w**2)
    elif kind == "matern":
        power = (1 + w**2) ** (-(column(rng, rows, 0.5, 2.0) + 0.5))
    else:
        power = (frequency + 1 / n) ** (-column(rng, rows, 0.3, 2.2))
    noise = rng.standard_normal((rows, frequency.shape[1])) + 1j * rng.standard_normal((rows, frequency.shape[1]))
    return standardise(np.fft.irfft(noise * np.sqrt(power), n, axis=1)[:, :length])


def white(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Noise with tails from normal to Student-t(2.5)."""
    normal = rng.standard_normal((rows, length))
    df = np.where(rng.uniform(0, 1, (rows, 1)) < 0.6, 1e6, column(rng, rows, 2.5, 8))
    chi = rng.gamma(np.minimum(df, 50) / 2, 2, (rows, length)) / np.minimum(df, 50)
    return np.where(df > 1e5, normal, normal / np.sqrt(chi))


def waveform(rng: Rng, rows: int, length: int, period: np.ndarray) -> np.ndarray:
    """One periodic shape per row: harmonics, peaked bumps, on/off blocks, sawtooth, or a random step table."""
    phase = (np.arange(length)[None] / period + rng.uniform(0, 1, (rows, 1))) % 1.0
    angle = 2 * np.pi * phase
    decay = column(rng, rows, 0.5, 2.5)
    harmonics = np.zeros((rows, length))
    for h in range(1, 7):
        a = rng.standard_normal((rows, 1)) * h**-decay * (period > 2 * h)
        harmonics += a * np.sin(h * angle + 2 * np.pi * rng.uniform(0, 1, (rows, 1)))
    bumps = np.exp(column(rng, rows, 0.5, 12, log=True) * (np.cos(angle) - 1))
    bumps += rng.uniform(-0.6, 1, (rows, 1)) * np.exp(column(rng, rows, 1, 20, log=True) * (np.cos(angle + 2 * np.pi * rng.uniform(0, 1, (rows, 1))) - 1))
    block = 1 / (1 + np.exp(-column(rng, rows, 3, 60, log=True) * (np.cos(angle) - column(rng, rows, -0.8, 0.9))))
    saw = np.where(phase < (cut := column(rng, rows, 0.05, 0.98)), phase / cut, (1 - phase) / (1 - cut))
    table = rng.standard_normal((rows, 24)) ** 2 * rng.choice([-1, 1], (rows, 24), p=[0.3, 0.7])
    steps = np.take_along_axis(table, np.minimum((phase * 24).astype(int), 23), 1)
    kind = rng.choice(5, rows, p=[0.45, 0.2, 0.12, 0.08, 0.15])
    return standardise(np.choose(kind[:, None], [harmonics, bumps, block, saw, steps]))


def trend(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Zero, straight, bent twice, or saturating; unit range."""
    t = np.linspace(0, 1, length)[None]
    straight = t * rng.standard_normal((rows, 1))
    bent = straight.copy()
    for _ in range(2):
        bent += rng.standard_normal((rows, 1)) * np.maximum(0, t - rng.uniform(0, 1, (rows, 1)))
    curve = np.tanh((t - rng.uniform(0, 1, (rows, 1))) * column(rng, rows, 1, 12)) * rng.choice([-1, 1], (rows, 1))
    kind = rng.choice(4, rows, p=[0.35, 0.3, 0.2, 0.15])
    return np.choose(kind[:, None], [0 * straight, straight, bent, curve])


def level_shifts(rng: Rng, rows: int, length: int, rate: float) -> np.ndarray:
    """Piecewise constant: about `rate` jumps per row, unit size."""
    jumps = (rng.uniform(0, 1, (rows, length)) < rate / length) * rng.standard_normal((rows, length))
    return jumps.cumsum(1)


def spikes(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Rare one-sided bursts that decay geometrically."""
    rate = column(rng, rows, 0.0005, 0.03, log=True)
    impulse = (rng.uniform(0, 1, (rows, length)) < rate) * rng.exponential(1, (rows, length))
    keep = column(rng, rows, 0.0, 0.9) * chance(rng, rows, 0.6)
    out = np.empty_like(impulse)
    state = np.zeros(rows)
    for i in range(length):
        state = state * keep[:, 0] + impulse[:, i]
        out[:, i] = state
    return out


def kernel_synth(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Random sums and products of kernel draws."""
    total = np.zeros((rows, length))
    parts = [
        (0.6, lambda: waveform(rng, rows, length, pick_periods(rng, rows))),
        (0.35, lambda: waveform(rng, rows, length, pick_periods(rng, rows))),
        (0.4, lambda: stationary_gp(rng, rows, length, "rbf")),
        (0.35, lambda: stationary_gp(rng, rows, length, "matern")),
        (0.3, lambda: stationary_gp(rng, rows, length, "rational")),
        (0.4, lambda: 3 * trend(rng, rows, length)),
        (0.7, lambda: column(rng, rows, 0.02, 0.8, log=True) * white(rng, rows, length)),
    ]
    for probability, make in parts:
        part = make() * column(rng, rows, 0.2, 2, log=True)
        present = chance(rng, rows, probability)
        product = chance(rng, rows, 0.2)
        total = np.where(product * present > 0, total * (1 + 0.5 * part), total + present * part)
    return total


def seasonal_trend(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Nested calendars (day inside week, month inside year) with slowly changing amplitude, trend, shifts, noise."""
    period = pick_periods(rng, rows)
    outer = period * rng.choice([7, 7, 7, 12, 4, 2, 365 / 7], (rows, 1))
    inner_shape = waveform(rng, rows, length, period)
    outer_shape = waveform(rng, rows, length, outer)
    # weekday/weekend: the inner cycle shrinks for part of the outer one
    weekend = ((np.arange(length)[None] / outer + rng.uniform(0, 1, (rows, 1))) % 1.0) > 5 / 7
    inner_shape = inner_shape * np.where(weekend, 1 - chance(rng, rows, 0.45) * column(rng, rows, 0.1, 0.9), 1)
    amplitude = 1 + 0.35 * chance(rng, rows, 0.6) * stationary_gp(rng, rows, length, "rbf")
    season = amplitude * inner_shape + chance(rng, rows, 0.55) * column(rng, rows, 0.1, 1.2) * outer_shape
    slow = chance(rng, rows, 0.6) * column(rng, rows, 0.2, 2.5, log=True) * stationary_gp(rng, rows, length, "rational")
    base = slow + column(rng, rows, 0.2, 5, log=True) * trend(rng, rows, length) + chance(rng, rows, 0.2) * level_shifts(rng, rows, length, 3)
    noise = column(rng, rows, 0.01, 0.9, log=True) * white(rng, rows, length)
    ar = chance(rng, rows, 0.4) * column(rng, rows, 0.05, 0.8, log=True) * stationary_gp(rng, rows, length, "matern")
    level = column(rng, rows, 2, 12)
    additive = level + base + season + noise + ar
    multiplicative = np.exp(np.clip(0.35 * (base + season + noise + ar), -6, 6))
    return np.where(chance(rng, rows, 0.4) > 0, multiplicative, additive)


def evolving_states(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Local level, damped slope and a seasonal state that drifts (exponential-smoothing models run forward)."""
    period = np.minimum(pick_periods(rng, rows), 400).astype(int)[:, 0].clip(2)
    level, slope = np.zeros(rows), 0.02 * rng.standard_normal(rows)
    season = np.zeros((rows, 400))
    for i, p in enumerate(period):
        season[i, :p] = waveform(rng, 1, p, np.array([[float(p)]]))[0] if p > 6 else rng.standard_normal(p)
    season *= chance(rng, rows, 0.7)
    alpha = column(rng, rows, 0.001, 0.9, log=True)[:, 0]
    beta = column(rng, rows, 0.0001, 0.1, log=True)[:, 0] * chance(rng, rows, 0.5)[:, 0]
    gamma = column(rng, rows, 0.001, 0.3, log=True)[:, 0]
    damp = column(rng, rows, 0.85, 1.0)[:, 0]
    sigma = column(rng, rows, 0.03, 1.0, log=True)
    noise = sigma * white(rng, rows, length).clip(-8, 8)
    index = np.arange(rows)
    out = np.empty((rows, length))
    for t in range(length):
        slot = t % period
        e = noise[:, t]
        out[:, t] = level + slope + season[index, slot] + e
        level = level + slope + alpha * e
        slope = slope * damp + beta * e
        season[index, slot] += gamma * e
    return out


def walks(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Random walks with drift and changing volatility, AR(2), and their exponentials."""
    volatility = np.exp(chance(rng, rows, 0.5) * 0.7 * stationary_gp(rng, rows, length, "matern"))
    step = white(rng, rows, length).clip(-10, 10) * volatility + chance(rng, rows, 0.5) * 0.1 * rng.standard_normal((rows, 1))
    walk = standardise(step.cumsum(1))
    radius, angle = column(rng, rows, 0.3, 0.995), column(rng, rows, 0.01, 2.5, log=True)
    a1, a2 = (2 * radius * np.cos(angle))[:, 0], (-(radius**2))[:, 0]
    ar = np.zeros((rows, length))
    for t in range(2, length):
        ar[:, t] = a1 * ar[:, t - 1] + a2 * ar[:, t - 2] + step[:, t]
    ar = standardise(ar)
    mixed = walk + column(rng, rows, 0.01, 0.5, log=True) * ar
    kind = rng.choice(4, rows, p=[0.35, 0.25, 0.2, 0.2])[:, None]
    return np.choose(kind, [walk, ar, mixed, np.exp(column(rng, rows, 0.1, 1) * walk)])


def intermittent(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Counts whose rate has seasons and shifts, many zeros."""
    rate = 0.7 * waveform(rng, rows, length, pick_periods(rng, rows)) + level_shifts(rng, rows, length, 1.5)
    rate = np.exp(np.clip(rate, -5, 5)) * column(rng, rows, 0.02, 60, log=True)
    lumpy = rng.gamma(2.0, 0.5, (rows, length)) ** chance(rng, rows, 0.5)
    return rng.poisson(np.minimum(rate * lumpy, 1e6)).astype(np.float64)


def machine_metrics(rng: Rng, rows: int, length: int) -> np.ndarray:
    """Server-like: flat or weakly seasonal base, bursts, plateaus, saturation, sawtooth leaks, dead stretches."""
    base = column(rng, rows, 0.0, 1.0) * waveform(rng, rows, length, rng.choice([48, 96, 144, 288, 288, 288, 60, 24], (rows, 1)).astype(float))
    wander = chance(rng, rows, 0.6) * column(rng, rows, 0.05, 1.5, log=True) * stationary_gp(rng, rows, length, "matern")
    noise = column(rng, rows, 0.01, 1.0, log=True) * white(rng, rows, length)
    skewed = np.exp(column(rng, rows, 0.2, 1.2) * rng.standard_normal((rows, length)))
    noise = np.where(chance(rng, rows, 0.4) > 0, column(rng, rows, 0.02, 1.0, log=True) * skewed, noise)
    burst = chance(rng, rows, 0.6) * column(rng, rows, 0.5, 20, log=True) * spikes(rng, rows, length)
    regime = chance(rng, rows, 0.4) * column(rng, rows, 0.5, 4) * (level_shifts(rng, rows, length, 6) > 0)
    leak_period = column(rng, rows, 20, 1500, log=True)
    leak = chance(rng, rows, 0.12) * column(rng, rows, 0.5, 4) * ((np.arange(length)[None] / leak_period + rng.uniform(0, 1, (rows, 1))) % 1.0)
    regular = chance(rng, rows, 0.15) * column(rng, rows, 0.5, 8) * (((np.arange(length)[None] + rng.integers(0, 300, (rows, 1))) % np.round(column(rng, rows, 6, 300, log=True))) < column(rng, rows, 1, 3))
    x = column(rng, rows, 0, 5) + base + wander + noise + burst + regime + leak + regular
    ceiling = np.quantile(x, 0.97, axis=1, keepdims=True)
    x = np.where(chance(rng, rows, 0.1) > 0, np.minimum(x, ceiling), x)
    return np.where(chance(rng, rows, 0.6) > 0, np.maximum(x, 0), x)


FAMILIES = ((kernel_synth, 0.2), (seasonal_trend, 0.38), (evolving_states, 0.14), (walks, 0.1), (intermittent, 0.05), (machine_metrics, 0.13))


def finish(rng: Rng, x: np.ndarray) -> np.ndarray:
    """Rounding, clipping, outliers, and a positive or signed offset; standardised to unit scale before."""
    rows, _ = x.shape
    x = standardise(np.nan_to_num(x, posinf=0, neginf=0)).clip(-60, 60)
    outlier = chance(rng, rows, 0.12) * (rng.uniform(0, 1, x.shape) < 0.004) * 6 * rng.standard_normal(x.shape)
    x = x + outlier
    grain = column(rng, rows, 0.02, 0.8, log=True)
    x = np.where(chance(rng, rows, 0.12) > 0, np.round(x / grain) * grain, x)
    return (x + column(rng, rows, -4, 4)).astype(np.float32)


def generate(seed: int, rows: int, length: int, chunk: int = 250) -> np.ndarray:
    """float32 [rows, length], families in their fixed shares, rows shuffled; equal seeds give equal bytes."""
    root = np.random.SeedSequence(seed)
    out = np.empty((rows, length), np.float32)
    counts = [int(round(rows * share)) for _, share in FAMILIES]
    counts[1] += rows - sum(counts)
    at = 0
    for (family, _), count, sequence in zip(FAMILIES, counts, root.spawn(len(FAMILIES))):
        rng = np.random.default_rng(sequence)
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            out[at : at + n] = finish(rng, family(rng, n, length))
            at += n
    return out[np.random.default_rng(seed + 1).permutation(rows)]
