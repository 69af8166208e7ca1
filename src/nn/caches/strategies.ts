/** The table of key-value cache strategies. A new strategy is a store and a row here. */
import type { Device } from "../../runtime/device.js";
import type { CacheShape, CacheStore, CacheStrategy, PrefixStore } from "./contract.js";
import { DynamicStore } from "./dynamic.js";
import { FunctionalStore } from "./functional.js";
import { GrowingStore } from "./growing.js";
import { HostStore } from "./host.js";
import { PagedStore } from "./paged.js";
import { StaticStore } from "./static.js";

type Store<Kind> = new (device: Device, name: string, shape: CacheShape) => Kind;

const strategy = (summary: string, Own: Store<CacheStore>, Prefix: Store<PrefixStore> = StaticStore): CacheStrategy => ({
  summary,
  create: (device, name, shape) => new Own(device, name, shape),
  createPrefix: (device, name, shape) => new Prefix(device, name, shape),
});

export const cacheStrategies = {
  growing: strategy("keys and values are concatenated, the position is a guarded number: one recompile per step, then eager", GrowingStore),
  functional: strategy("appending returns a new cache: no recompile, a copy of the whole cache per step", FunctionalStore),
  static: strategy("buffers of fixed capacity, position and length are data", StaticStore),
  dynamic: strategy("capacity is a size variable and doubles when it is used up: no recompile, a copy per doubling", DynamicStore),
  host: strategy("the host appends between graphs: no recompile, one graph break per layer and step", HostStore),
  paged: strategy("blocks of 16 slots behind a table per row: rows of different length take what they use", PagedStore, PagedStore),
} as const satisfies Readonly<Record<string, CacheStrategy>>;

export type CacheStrategyName = keyof typeof cacheStrategies;
