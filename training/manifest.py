"""Writes manifest.json: what training read, what evaluation reads, and a proof that the two are apart.

    python -m training.manifest --data CORPUS --visible CANDLES --out training/manifest.json

Per univariate series: [length, training end, hash of the training range, hash of the evaluation window or 0]. Hashes are the first
16 hex digits of sha256 over little-endian float32. `cut` counts training ranges that were shortened because a copy of an
evaluation window (up to scale and offset, see leaks.py) began there; `remaining` must be 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .candles import HORIZON, load_candles
from .data import COPYLEFT, load_series, range_hash
from .leaks import copies, without_copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--visible", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    everything = load_series(args.data)
    series = without_copies(everything)
    cut = sum(a.training_end != b.training_end for a, b in zip(everything, series))
    remaining = len(copies(series))
    if remaining:
        raise SystemExit(f"{remaining} training ranges still hold a copy of an evaluation window")
    sources: dict[str, dict] = {}
    for s in series:
        entry = sources.setdefault(s.source, {"copyleft": s.source in COPYLEFT, "series": []})
        n, end = len(s.values), s.training_end
        if end:
            window = range_hash(s.values[n - s.horizon :]) if s.evaluation_group else 0
            entry["series"].append([n, end, range_hash(s.values[:end]), window])
    candles: dict[str, list] = {}
    for c in load_candles(args.data, args.visible):
        spans = [[a, b, range_hash(c.rows[a:b].reshape(-1))] for a, b in c.segments]
        candles.setdefault(c.source, []).append([c.id, len(c.rows), c.training_end, spans])
    lines = ['{"hash": "sha256/16 of little-endian float32", "fields": ["length", "trainingEnd", "trainingHash", "evaluationHash"], "candleFields": ["id", "rows", "evaluationStart", "trainingSegments"],',
             f'"candleHorizon": {HORIZON}, "cut": {cut}, "remaining": {remaining},', '"sources": {']  # fmt: skip
    lines.append(",\n".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in sources.items()))
    lines.append('}, "candles": {')
    lines.append(",\n".join(f'"{k}": {json.dumps(v, separators=(",", ":"))}' for k, v in candles.items()))
    lines.append("}}")
    args.out.write_text("\n".join(lines) + "\n")
    print(f"{sum(len(v['series']) for v in sources.values())} series, {sum(map(len, candles.values()))} candle series, {cut} cut short")


if __name__ == "__main__":
    main()
