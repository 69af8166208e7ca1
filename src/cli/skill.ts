/**
 * Skill of a model on the tail of a series, as lines for people: several past origins, against naive forecasts.
 */
import { evaluateRolling, rollingWindows } from "../forecast/rolling.js";
import type { Forecaster, SeriesInput } from "../index.js";
import { renderTable } from "./table.js";

const WINDOWS = 5;

/** Forecasts the last windows of `values` without their ends, in one call. Negative skill is printed as it is. */
export async function skillLines(
  forecaster: Forecaster,
  input: SeriesInput,
  values: ArrayLike<number>,
  horizon: number,
  seasonality: number,
  signal: AbortSignal,
): Promise<string[]> {
  const windows = rollingWindows(values, horizon, WINDOWS);
  const result = await evaluateRolling(windows, seasonality, async (pasts, steps, levels) => {
    const forecast = await forecaster.predict(
      pasts.map((past) => ({ values: past, ...(input.id === undefined ? {} : { id: input.id }) })),
      { horizon: steps, quantiles: levels, signal },
    );
    return forecast.series;
  });
  const number = (value: number): string => (Number.isNaN(value) ? "-" : value.toFixed(3));
  const percent = (value: number): string => (Number.isNaN(value) ? "-" : `${(value * 100).toFixed(1)}%`);
  const rows = [
    ["model", result.model, undefined],
    ["seasonal naive", result.baselines.seasonalNaive, result.skill.seasonalNaive],
    ["naive", result.baselines.naive, result.skill.naive],
  ] as const;
  return [
    `skill over ${result.windows} rolling windows of ${horizon} steps (above 0%: the model is better)`,
    renderTable(
      ["forecast", "MASE", "WQL", "coverage 80%", "skill MASE", "skill WQL"].map((title, index) => ({
        title,
        align: index === 0 ? ("left" as const) : ("right" as const),
      })),
      rows.map(([name, scores, skill]) => [
        name,
        number(scores.mase),
        number(scores.wql),
        percent(scores.coverage80),
        skill === undefined ? "" : percent(skill.mase),
        skill === undefined ? "" : percent(skill.wql),
      ]),
    ),
  ];
}
