/**
 * Undocumented second entry for the project's own commands and diagnostics: engine parts that users should not build on.
 */
export { Toto1Decoder, type DecodeRequest } from "./models/toto1/decode.js";
export { mixtureLogDensity, realLogDensity } from "./models/toto1/distribution.js";
export { parseToto1Config, type Toto1Config } from "./models/toto1/config.js";
export type { Entry } from "./models/toto1/layout.js";
export { outputParameters, sanitise } from "./models/toto1/forward.js";
export { loadToto1Weights, type Toto1Weights } from "./models/toto1/weights.js";
export { causalScaler, compile, linear, Tensor } from "./tensor/index.js";
export { modes, openDevice, size, State, type Mode } from "./trace/entry.js";
