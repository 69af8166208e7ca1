/**
 * Undocumented second entry for the project's own commands and diagnostics: engine parts that users should not build on.
 */
export { Toto1Decoder, type DecodeRequest } from "./models/toto1/decode.js";
export { mixtureLogDensity, realLogDensity } from "./models/toto1/distribution.js";
export { parseToto1Config, type Toto1Config } from "./models/toto1/config.js";
export type { Entry } from "./models/toto1/layout.js";
export { outputParameters, sanitise } from "./models/toto1/forward.js";
export { loadToto1Weights, type Toto1Weights } from "./models/toto1/weights.js";
export { KronosCodec, type TokenArrays } from "./models/kronos/codec.js";
export {
  parseKronosModelConfig,
  parseKronosTokenizerConfig,
  type KronosModelConfig,
  type KronosTokenizerConfig,
} from "./models/kronos/config.js";
export { KronosNetwork, type LogitsInputs } from "./models/kronos/forward.js";
export { KronosGenerator } from "./models/kronos/generate.js";
export type { GenerateRequest } from "./models/kronos/request.js";
export { cacheShape as kronosCacheShape, placesOf, stackRotary } from "./models/kronos/layout.js";
export { averagePaths, denormalise, fillCandles, normaliseCandles, type CandleColumns } from "./models/kronos/normalise.js";
export { loadKronosModelWeights, loadKronosTokenizerWeights } from "./models/kronos/weights.js";
export { featuresOf, wallClock } from "./forecast/candle-time.js";
export { parseStamp } from "./io/timestamps.js";
export { KeyValueCache } from "./nn/key-value-cache.js";
export { parseToto2Config, type Toto2Config } from "./models/toto2/config.js";
export { Toto2Decoder, type Toto2DecodeRequest } from "./models/toto2/decode.js";
export { impute, type Imputation } from "./models/toto2/imputation.js";
export type { Entry as Toto2Entry } from "./models/toto2/samples.js";
export { loadToto2Weights, quantileLevels } from "./models/toto2/weights.js";
export { wrapperEntry, wrapperPast } from "./models/toto2/wrapper.js";
export { backfillStatistics, finishQuantiles } from "./tensor/index.js";
export { causalScaler, compile, linear, Tensor, tokenProbabilities } from "./tensor/index.js";
export { cacheDirectory } from "./runtime/native/artifact-cache.js";
export { cacheEntries, clearCache, parseSize, pruneCache } from "./runtime/native/cache-maintenance.js";
export { onProgram, type ProgramListener } from "./trace/ahead.js";
export { modes, openDevice, size, State, type Mode } from "./trace/entry.js";
