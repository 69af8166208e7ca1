/**
 * Turns the counters of a model into the report of a run: differences for one call, totals for a forecaster's life.
 */
import type { ModelReport } from "../models/model.js";
import type { ForecastReport } from "./forecast.js";

export interface RunTimes {
  readonly load: number;
  readonly first: number;
  readonly total: number;
}

/** Counters since `before`; everything since loading when absent. Key order is part of the format. */
export function reportBetween(before: ModelReport | undefined, after: ModelReport, times: RunTimes): ForecastReport {
  return {
    device: after.device,
    mode: after.mode,
    kvCache: after.kvCache,
    weights: after.weights,
    threads: after.threads,
    compiles: after.compiles - (before?.compiles ?? 0),
    recompiles: after.recompiles - (before?.recompiles ?? 0),
    graphBreaks: after.graphBreaks - (before?.graphBreaks ?? 0),
    fallbacks: after.fallbacks - (before?.fallbacks ?? 0),
    capturedSteps: after.capturedSteps - (before?.capturedSteps ?? 0),
    steps: after.steps - (before?.steps ?? 0),
    foreignCallsPerStep: callsPerStep(before, after),
    waits: after.waits - (before?.waits ?? 0),
    milliseconds: {
      load: round(times.load),
      compile: round(after.milliseconds.compile - (before?.milliseconds.compile ?? 0)),
      first: round(times.first),
      total: round(times.total),
    },
    peakBytes: after.peakBytes,
    meanKind: after.meanKind,
    ...(after.check ? { check: checkBetween(before?.check, after.check) } : {}),
  };
}

type Check = NonNullable<ForecastReport["check"]>;

function checkBetween(before: Check | undefined, after: Check): Check {
  const since = (field: keyof Check): number => after[field] - (before?.[field] ?? 0);
  return {
    runs: since("runs"),
    values: since("values"),
    outputs: since("outputs"),
    states: since("states"),
    elements: since("elements"),
  };
}

/** The mean over the steps since `before`. */
function callsPerStep(before: ModelReport | undefined, after: ModelReport): number {
  const calls = (after.calls ?? 0) - (before?.calls ?? 0);
  if (before?.calls === undefined || after.calls === undefined || calls <= 0) return after.foreignCallsPerStep;
  return Math.round(after.foreignCallsPerStep * after.calls - before.foreignCallsPerStep * before.calls) / calls;
}

/** Whole microseconds: the clock says no more. */
function round(milliseconds: number): number {
  return Math.round(milliseconds * 1000) / 1000;
}
