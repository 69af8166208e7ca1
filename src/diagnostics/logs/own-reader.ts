/**
 * This package's own event lines: `[tempograph] recompiles: function=decodeStep guard="position == 3" ...`, written by TEMPOGRAPH_LOGS.
 * The form is documented in docs/patterns.md.
 */
import type { Evidence, EventSink } from "./events.js";

const LINE = /\[tempograph\] (\w+): ?(.*)$/;
const FIELD = /(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]\S*)/g;

/** Emits the event of one line. Returns false when the line has no `[tempograph] stream:` in it. */
export function readOwnLine(line: string, sink: EventSink, evidence: Evidence): boolean {
  const text = messageOf(line);
  const match = LINE.exec(text);
  if (match === null) return false;
  const fields = readFields(match[2] ?? "");
  const field = (name: string): string => fields.get(name) ?? "";
  const common = {
    flavour: "own",
    process: field("process") === "" ? "tempograph" : field("process"),
    compileId: undefined,
    evidence: { ...evidence, text: text.slice(match.index) },
    function: field("function"),
    location: field("location"),
  } as const;
  switch (match[1]) {
    case "recompiles": {
      // The engine writes a static value as "== 3": the value is the 3.
      const values = [field("was"), field("now")].map((value) => value.replace(/^== /, "")).filter((value) => value !== "");
      sink.event({ kind: "recompile", ...common, reason: orUnknown(field("guard")), values });
      break;
    }
    case "recompile_limit":
      sink.event({ kind: "limit", ...common, limit: field("limit"), lastReason: field("last") });
      break;
    case "graph_breaks":
      sink.event({ kind: "graphBreak", ...common, reason: orUnknown(field("reason")), detail: field("reason"), code: [] });
      break;
    case "fallback":
      sink.event({ kind: "tick", what: "fallback", ...common, label: orUnknown(field("reason")) });
      break;
    case "cache":
      sink.event({ kind: "tick", what: field("status") === "hit" ? "cacheHit" : "cacheMiss", ...common, label: "" });
      break;
    default:
      // Streams that only explain (guards, schedule, output_code, perf_hints) hold nothing to count.
      break;
  }
  return true;
}

function orUnknown(text: string): string {
  return text === "" ? "unknown reason" : (text.split("\n")[0] ?? text);
}

/** JSON loggers wrap the line: its text then stands in "msg" or "message". */
function messageOf(line: string): string {
  if (!line.startsWith("{")) return line;
  try {
    const json = JSON.parse(line) as { msg?: unknown; message?: unknown };
    const message = json.msg ?? json.message;
    return typeof message === "string" ? message : line;
  } catch {
    return line;
  }
}

function readFields(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const [, name = "", value = ""] of text.matchAll(FIELD)) fields.set(name, unquote(value));
  return fields;
}

function unquote(value: string): string {
  if (!value.startsWith('"')) return value;
  try {
    return String(JSON.parse(value));
  } catch {
    return value.slice(1, -1);
  }
}
