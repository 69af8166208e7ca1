/** Key-value caches as models use them. */
export * from "./contract.js";
export { cacheStrategies, type CacheStrategyName } from "./strategies.js";
