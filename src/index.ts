/**
 * The public names, nothing else: forecasting first, then the compiler under it, then the reader of compiler logs.
 */
export { Forecaster, type LoadOptions } from "./forecast/forecaster.js";
export { Forecast, SeriesForecast, type ForecastJson, type ForecastReport, type SeriesForecastJson } from "./forecast/forecast.js";
export type { PredictOptions, PredictProgress, StreamOptions } from "./forecast/options.js";
export type { SeriesInput, Values } from "./forecast/series.js";
export type { Timestamp, Warning } from "./forecast/calendar.js";
export type { Check, Device as DeviceChoice, KvCache, Mode, Weights } from "./forecast/settings.js";
export type { ModelInspection } from "./models/inspection.js";
export type { QuantileDecoding } from "./models/model.js";
export { InputError } from "./forecast/errors.js";

export { compile, constant, Tensor, tap, type CallChain, type Compiled, type CompileSettings } from "./tensor/index.js";
export {
  attention,
  concat,
  copyRows,
  gatherRows,
  linear,
  readState,
  rmsNorm,
  rope,
  writeRows,
  type KeyValueState,
  type RotaryForm,
  type RotaryTables,
} from "./tensor/index.js";
export { AbortedError, type Device } from "./runtime/device.js";
export { NativeError, type NativeErrorCode } from "./runtime/native/errors.js";
export {
  BitDifferenceError,
  currentStance,
  DeviceError,
  onEvent,
  openDevice,
  printEvent,
  RecompileError,
  setStance,
  Size,
  size,
  State,
  stances,
  StaticValue,
  staticValue,
  TraceError,
  type CompileEvent,
  type CompileReport,
  type DeviceName,
  type OpenedDevice,
  type Stance,
  type StateOptions,
} from "./trace/entry.js";

export { analyzeLogs, analyzeLogText } from "./diagnostics/logs/analyze.js";
export type { LogAnalysis, RootCause } from "./diagnostics/logs/answer.js";
export type { LogInput } from "./diagnostics/logs/source.js";
export {
  planCandles,
  type CandleCalendar,
  type CandleCalendarOptions,
  type CandlePlan,
  type MarketCalendar,
} from "./forecast/candle-calendar.js";
export { percentChanges } from "./forecast/candle-consistency.js";
export { candleFeatures } from "./forecast/candles.js";
