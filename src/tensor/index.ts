/** The tensor layer's public names. */
export { philox, uniform } from "../ir/ops/random.js";
export * from "./compile.js";
export * from "./functional.js";
export * from "./quantiles.js";
export * from "./tensor.js";
export * from "./tokens.js";
