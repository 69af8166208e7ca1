/**
 * `tempograph demo` (`npm start`): forecasts the example series and shows everything a first look needs: table, chart, device, timings,
 * compile report, and skill against naive forecasts when the weights are trained.
 */
import { fileURLToPath } from "node:url";
import { planCalendar } from "../forecast/calendar.js";
import { DEFAULT_HORIZON } from "../forecast/options.js";
import { readSeriesTable } from "../io/table.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import { toInputs } from "./inputs.js";
import type { CliContext } from "./context.js";
import { duration } from "./numbers.js";
import { reportLines, seriesChart, seriesTable } from "./present.js";
import { skillLines } from "./skill.js";

export const EXAMPLE_FILE = fileURLToPath(new URL("../../examples/data/hourly.csv", import.meta.url));

export async function runDemo(context: CliContext): Promise<number> {
  const started = performance.now();
  const { values } = resolveSettings({ environment: context.environment, folder: context.folder });
  const table = await readSeriesTable(EXAMPLE_FILE);
  const { inputs, histories } = toInputs(table.series, false);
  const input = inputs[0];
  const history = histories[0];
  if (input === undefined || history === undefined) throw new Error("the example series is missing from the package");
  const forecaster = await context.load(values.model, {
    device: values.device,
    mode: values.mode,
    kvCache: values.kvCache,
    weights: values.weights,
    ...(values.threads === undefined ? {} : { threads: values.threads }),
  });
  try {
    const forecast = await forecaster.predict(input, {
      seed: values.seed,
      signal: context.signal,
      ...(values.horizon === undefined ? {} : { horizon: values.horizon }),
    });
    const entry = forecast.series[0];
    if (entry === undefined) throw new Error("the model answered no series");
    const seasonality = planCalendar(input.timestamps, input.frequency, history.values.length, entry.id).seasonality ?? DEFAULT_HORIZON;
    const levels = entry.hasQuantiles ? forecast.quantiles : [];
    const write = (text: string): void => context.writeOut(`${text}\n`);
    write(`tempograph: ${entry.id} (${history.values.length} steps), the next ${entry.horizon} by ${values.model}\n`);
    write(`${seriesTable(entry, levels)}\n`);
    write(`${seriesChart(entry, levels, history, context)}\n`);
    if (!forecaster.trained) write("untrained weights: this shows the engine, not skill\n");
    else write(`${(await skillLines(forecaster, input, history.values, entry.horizon, seasonality, context.signal)).join("\n")}\n`);

    const again = performance.now();
    await forecaster.predict(input, { seed: values.seed + 1, horizon: entry.horizon, signal: context.signal });
    const warm = performance.now() - again;
    for (const line of reportLines(forecaster.report())) write(line);
    write(`second forecast ${duration(warm)}, this command ${duration(performance.now() - started)} in all`);
    return 0;
  } finally {
    forecaster.dispose();
  }
}
