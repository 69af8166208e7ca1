/** How a model is run: its options, and when it runs op by op whatever mode it was loaded in. */
import type { Device } from "../runtime/device.js";
import { currentStance, type CheckSetting, type Mode, type Stance } from "../trace/entry.js";
import type { ModelRequest } from "./model.js";
import type { WeightStorage } from "./weights.js";

export type KvCacheStrategy = "none" | "growing" | "functional" | "static" | "dynamic" | "host" | "paged";

export interface ModelOptions {
  readonly mode: Mode;
  readonly kvCache: KvCacheStrategy;
  /** Default true: sample paths read their series' prefix instead of a copy. The same bits either way. */
  readonly sharePrefix?: boolean;
  /** How weight matrices are stored; f32 by default. Norms, biases, embeddings and the tokenizer of Kronos stay f32. */
  readonly weights?: WeightStorage | undefined;
  /** "bits": every program also runs op by op and stops at the first difference. Default: TEMPOGRAPH_CHECK. */
  readonly check?: CheckSetting | undefined;
}

export interface LoadedDevice {
  readonly device: Device;
  /** Why another device than the best was taken. */
  readonly note?: string;
}

/** Whether a request runs op by op: by its own wish, or by the process-wide stance. */
export const runsEager = ({ eager }: ModelRequest): boolean => eager === true || currentStance() === "force_eager";

/** The stance of a model's programs during such a request. */
export const stanceOf = (eager: boolean): Stance | undefined => (eager ? "force_eager" : undefined);
