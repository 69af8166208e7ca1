/**
 * The event log: every compile, recompile, guard, graph break and fallback, counted, attributed to a source line and printable. `TEMPOGRAPH_LOGS` selects the
 * streams that are also written to standard error, one line each.
 */

export type EventStream =
  | "compiles"
  | "recompiles"
  | "recompile_limit"
  | "graph_breaks"
  | "guards"
  | "cache"
  | "fallback"
  | "schedule"
  | "output_code"
  | "perf_hints"
  | "check";

const streams: readonly EventStream[] = [
  "compiles",
  "recompiles",
  "recompile_limit",
  "graph_breaks",
  "guards",
  "cache",
  "fallback",
  "schedule",
  "output_code",
  "perf_hints",
  "check",
];

/** Something the compiler did: a recompile, a graph break, a fallback, a cache hit; heard by `onEvent`. */
export interface CompileEvent {
  readonly stream: EventStream;
  readonly function: string;
  /** `file:line` in the caller's code, where known. */
  readonly location?: string;
  readonly fields: Readonly<Record<string, string | number>>;
}

type Listener = (event: CompileEvent) => void;

const listeners = new Set<Listener>();

/** Hears every event until the returned function is called. */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Streams named in TEMPOGRAPH_LOGS; "all" names every one. Asking for recompiles includes the limit and the fallback it causes. */
function selected(): ReadonlySet<string> {
  const names = (process.env["TEMPOGRAPH_LOGS"] ?? "").split(",").map((name) => name.trim());
  if (names.includes("all")) return new Set(streams);
  return new Set(names.includes("recompiles") ? [...names, "recompile_limit", "fallback"] : names);
}

const printValue = (value: string | number): string =>
  typeof value === "number" || /^[\w./:@-]+$/.test(value) ? String(value) : JSON.stringify(value);

/** `[tempograph] stream: key=value ...`; strings with other characters are quoted as in JSON. */
export function printEvent({ stream, function: name, location, fields }: CompileEvent): string {
  const pairs: [string, string | number][] = [
    ["function", name],
    ...(location ? [["location", location] as [string, string]] : []),
    ...Object.entries(fields),
  ];
  return `[tempograph] ${stream}: ${pairs.map(([key, value]) => `${key}=${printValue(value)}`).join(" ")}`;
}

export function emitEvent(event: CompileEvent): void {
  for (const listener of listeners) listener(event);
  if (selected().has(event.stream)) process.stderr.write(printEvent(event) + "\n");
}

/** First frame of the caller's own code as `file:line`, skipping the layers that only pass a call on. */
export function callerLocation(): string | undefined {
  const stack = new Error().stack?.split("\n").slice(1) ?? [];
  for (const frame of stack) {
    const match = /\(?((?:file:\/\/)?[^\s()]+):(\d+):\d+\)?$/.exec(frame.trim());
    const file = match?.[1]?.replace("file://", "");
    if (!file || !match || file.startsWith("node:") || /\/(src|dist)\/(trace|tensor|ir|nn)\//.test(file)) continue;
    return `${shortPath(file)}:${match[2]}`;
  }
  return undefined;
}

/** The path from the package's own folder on, or the last two parts of any other. */
function shortPath(file: string): string {
  const own = /\/((?:src|dist|test|bench|examples)\/.*)$/.exec(file)?.[1];
  return own ?? file.split("/").slice(-2).join("/");
}
