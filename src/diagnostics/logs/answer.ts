/**
 * The answer of the log analyser: its JSON form, whose field names scripts rely on. Holds types only.
 */
import type { Cause, Severity } from "./causes.js";

/** Counts by key, most frequent first. */
export type Counts = Record<string, number>;

export interface RootCause {
  readonly cause: Cause;
  /** Variety of the cause, which decides the explanation: "cache-index", "global", "item" ... */
  readonly kind: string;
  /** Function most concerned, "" when the log names none. */
  readonly function: string;
  /** "file:line" most concerned, "" when the log shows none. */
  readonly location: string;
  /** What was seen, in plain words, then lines of the log as "input:line: text". */
  readonly evidence: readonly string[];
  readonly severity: Severity;
  /** What to change, in plain words. */
  readonly fix: string;
  readonly title: string;
  /** Why it costs time. */
  readonly explanation: string;
  /** A few lines of code that show the change. */
  readonly example: string;
  /** Section of docs/patterns.md. */
  readonly pattern: string;
  /** Recompiles, breaks, skips and errors this cause accounts for. */
  readonly occurrences: number;
}

export interface ValuesSeen {
  readonly function: string;
  readonly location: string;
  /** The guard with its values replaced by "*". */
  readonly guard: string;
  readonly count: number;
  /** In order of appearance, at most 32. */
  readonly values: readonly string[];
}

export interface LogAnalysis {
  readonly recompiles: { readonly total: number; readonly byFunction: Counts; readonly byReason: Counts; readonly byLocation: Counts };
  readonly recompileLimitHits: {
    readonly total: number;
    readonly byFunction: Counts;
    readonly byLimit: Counts;
    readonly lastReasons: readonly string[];
  };
  readonly graphBreaks: { readonly total: number; readonly byReason: Counts; readonly byLocation: Counts };
  readonly cudagraphSkips: { readonly total: number; readonly byCause: Counts };
  readonly cudagraphPartitions: number;
  /** Worst first; empty when there is nothing to do. */
  readonly rootCauses: readonly RootCause[];
  /** Lines that neither PyTorch nor this package wrote. */
  readonly unrecognisedLines: number;

  readonly lines: number;
  readonly inputs: readonly string[];
  /** Ranks and process ids that wrote compiler lines. */
  readonly processes: readonly string[];
  readonly valuesSeen: readonly ValuesSeen[];
  /** Recompiles while functions were still compiled for the first time, and after the last of those. */
  readonly phases: { readonly firstRun: number; readonly steady: number };
  readonly overwrittenOutputs: number;
  readonly symbolicShapes: { readonly symbols: number; readonly guards: number; readonly specializations: number };
  /** Null when the log has no compile times (only structured traces have). */
  readonly compileSeconds: { readonly total: number; readonly byFunction: Counts } | null;
  readonly cache: { readonly hits: number; readonly misses: number; readonly bypasses: number };
  readonly fallbacks: Counts;
  readonly performanceHints: Counts;
  /** Recompiles that must have happened but are not in the log: it was cut. */
  readonly missingCompileIds: readonly string[];
  /** Records of a structured trace, and payloads that do not match their checksum. */
  readonly trace: { readonly records: number; readonly damagedPayloads: number };
  /** What a reader of the counts should know. */
  readonly notes: readonly string[];
}
