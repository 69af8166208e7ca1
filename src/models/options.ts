/** How a model is run. Types only. */
import type { Device } from "../runtime/device.js";
import type { Mode } from "../trace/entry.js";

export type KvCacheStrategy = "none" | "growing" | "functional" | "static" | "dynamic" | "host" | "paged";

export interface ModelOptions {
  readonly mode: Mode;
  readonly kvCache: KvCacheStrategy;
  /** Default true: sample paths read their series' prefix instead of a copy. The same bits either way. */
  readonly sharePrefix?: boolean;
}

export interface LoadedDevice {
  readonly device: Device;
  /** Why another device than the best was taken. */
  readonly note?: string;
}
