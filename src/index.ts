/**
 * The public names, nothing else.
 */
export { Forecaster, type LoadOptions } from "./forecast/forecaster.js";
export { Forecast, SeriesForecast, type ForecastJson, type ForecastReport, type SeriesForecastJson } from "./forecast/forecast.js";
export type { PredictOptions, PredictProgress } from "./forecast/options.js";
export type { SeriesInput, Values } from "./forecast/series.js";
export type { Timestamp, Warning } from "./forecast/calendar.js";
export type { Device, KvCache, Mode } from "./forecast/settings.js";
export { InputError } from "./forecast/errors.js";
