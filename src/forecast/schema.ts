/**
 * The JSON form of a forecast as a schema, tied to the types of forecast.ts. For published JSON Schemas and for checking answers from elsewhere.
 */
import { z } from "zod";
import type { ForecastJson, ForecastReport } from "./forecast.js";

const count = z.number().int().nonnegative();
const milliseconds = z.number().nonnegative();
/** A step without a value is null in JSON. */
const steps = z.array(z.number().nullable());

export const forecastReportSchema = z.strictObject({
  device: z.string().describe("One line: device, instruction set, compiler."),
  mode: z.string(),
  kvCache: z.string(),
  weights: z.string().describe("How weight matrices are stored: f32 or bf16."),
  threads: count,
  compiles: count,
  recompiles: count,
  graphBreaks: count,
  fallbacks: count,
  capturedSteps: count.describe("Decode steps that were one replayed call."),
  steps: count,
  foreignCallsPerStep: z.number().nonnegative().describe("Calls that run kernels, per decode step."),
  waits: count.describe("Hand-overs off the event loop."),
  milliseconds: z.strictObject({ load: milliseconds, compile: milliseconds, first: milliseconds, total: milliseconds }),
  peakBytes: count,
  meanKind: z.string().describe('How `mean` was made, such as "sample mean".'),
  check: z
    .strictObject({ runs: count, values: count, outputs: count, states: count, elements: count })
    .optional()
    .describe("With the setting check: what was compared, bit for bit, with running op by op."),
}) satisfies z.ZodType<ForecastReport>;

export const forecastSchema = z.strictObject({
  series: z.array(
    z.strictObject({
      id: z.string(),
      variate: z.string(),
      timestamps: z.array(z.union([z.string(), count])).describe("[horizon] ISO 8601 with the input's offset, or steps counted from 0."),
      mean: steps.describe("[horizon]"),
      quantiles: z.record(z.string(), steps).describe("[horizon] by level."),
      paths: z.array(steps).optional().describe("[samples][horizon], only when asked for."),
    }),
  ),
  report: forecastReportSchema.optional(),
});

const score = z.number().nullable().describe("null where it is not defined.");
const scores = z.strictObject({ mase: score, wql: score, smape: score, coverage80: score, msis: score, rmsse: score });

export const evaluationSchema = z.strictObject({
  model: z.string(),
  groups: z.array(
    z.strictObject({
      name: z.string(),
      series: count,
      windows: count,
      model: scores,
      baselines: z.strictObject({ seasonalNaive: scores, naive: scores, drift: scores, ets: scores, theta: scores }),
    }),
  ),
  geometricMean: z.strictObject({ mase: score, wql: score }).describe("Model over seasonal naive, over the groups."),
  skipped: z
    .strictObject({ tooShort: count, pastUnobserved: count, futureUnobserved: count })
    .describe("Windows that could not be scored."),
  report: forecastReportSchema,
});

/** Every answer the library writes fits the schema; the schema also takes null, which JSON writes for NaN. */
export type ForecastJsonFits = ForecastJson extends z.infer<typeof forecastSchema> ? true : never;
export const forecastJsonFits: ForecastJsonFits = true;
