/**
 * What the readers of log text find and the ledger counts: one event per thing a compiler reported.
 * Holds types only; knows neither how a line is written nor what an event means.
 */

/** Where the first line of an event stands. */
export interface Evidence {
  /** Name of the input: a path, or "stdin". */
  readonly source: string;
  /** 1-based line number in that input. */
  readonly line: number;
  /** The line itself without its prefix, cut to a readable length. */
  readonly text: string;
}

/** Which kind of log an event was read from. The same event may stand in a text log and in a structured trace of one process. */
export type Flavour = "text" | "trace" | "own";

interface Common {
  readonly flavour: Flavour;
  /** Rank and process id as far as the log shows them. */
  readonly process: string;
  /** "frame/compile", for example "3/8"; undefined when the log does not show it. */
  readonly compileId: string | undefined;
  readonly evidence: Evidence;
}

/** A function is compiled again because a guard failed. */
export interface RecompileEvent extends Common {
  readonly kind: "recompile";
  readonly function: string;
  /** "file:line" of the function's first line, "" when unknown. */
  readonly location: string;
  /** First failed guard, cut as in `cutReason`. */
  readonly reason: string;
  /** The value the guard holds and the value that failed it, where the log says so. */
  readonly values: readonly string[];
}

/** A further guard that failed at the same recompile: the one of another variant of the function. */
export interface FailedGuardEvent extends Common {
  readonly kind: "failedGuard";
  readonly function: string;
  readonly location: string;
  readonly reason: string;
}

/** A function was compiled as often as the limit allows and now runs eagerly. */
export interface LimitEvent extends Common {
  readonly kind: "limit";
  readonly function: string;
  readonly location: string;
  /** The number in brackets, "" when it is not shown. */
  readonly limit: string;
  readonly lastReason: string;
}

/** A graph ends before the function does. */
export interface GraphBreakEvent extends Common {
  readonly kind: "graphBreak";
  /** "file:line" as the compiler gives it. */
  readonly location: string;
  readonly function: string;
  /** First line of the reason: the type of the break that was raised. */
  readonly reason: string;
  /** Everything known that tells causes apart: type of the first break, explanation, context. */
  readonly detail: string;
  /** Lines of user code on the stack, innermost last. */
  readonly code: readonly CodeLine[];
}

/** PyTorch's one-time warning about `Tensor.item()`. */
export interface ScalarReadEvent extends Common {
  readonly kind: "scalarRead";
  readonly function: string;
  readonly location: string;
  readonly code: readonly CodeLine[];
}

/** A graph runs without CUDA graphs. */
export interface CudagraphSkipEvent extends Common {
  readonly kind: "cudagraphSkip";
  /** The reason without "skipping cudagraphs due to", instance count and stack. */
  readonly cause: string;
  /** How many inputs, operators ... the line reports. */
  readonly instances: number;
  readonly function: string;
  readonly location: string;
}

/** An error that stops the program, or the message of one. */
export interface FailureEvent extends Common {
  readonly kind: "failure";
  readonly failure: "stance" | "mark-dynamic" | "overwritten-output" | "full-graph";
  readonly function: string;
  readonly location: string;
  readonly reason: string;
  readonly detail: string;
}

/** Things that are only counted. */
export interface TickEvent extends Common {
  readonly kind: "tick";
  readonly what:
    | "cudagraphPartition"
    | "symbol"
    | "symbolicGuard"
    | "specialization"
    | "cacheHit"
    | "cacheMiss"
    | "cacheBypass"
    | "fallback"
    | "performanceHint";
  readonly label: string;
}

/** Time spent compiling one function once. */
export interface CompileTimeEvent extends Common {
  readonly kind: "compileTime";
  readonly function: string;
  readonly seconds: number;
}

export type LogEvent =
  | RecompileEvent
  | FailedGuardEvent
  | LimitEvent
  | GraphBreakEvent
  | ScalarReadEvent
  | CudagraphSkipEvent
  | FailureEvent
  | TickEvent
  | CompileTimeEvent;

/** One frame of a Python stack as printed in a log. */
export interface CodeLine {
  readonly file: string;
  readonly line: number;
  readonly function: string;
  /** Source text, "" when the log leaves it out. */
  readonly text: string;
}

/** Receives events and the facts that need no event of their own. */
export interface EventSink {
  event(event: LogEvent): void;
  /** A compile id was seen, in whatever line. */
  compileSeen(process: string, compileId: string): void;
}
