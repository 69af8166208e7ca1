/**
 * Structured logs of TORCH_TRACE: one JSON object behind the prefix, its payload on tab-indented lines, the payload's MD5 in `has_payload`.
 * Names of files are interned per process; functions are named by the first record of their frame.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { graphBreak } from "./break-records.js";
import { skipCause } from "./cudagraph-records.js";
import type { Evidence, EventSink, TickEvent } from "./events.js";
import { cutReason, valuesOf } from "./guard-reason.js";
import type { OpenRecord } from "./record.js";

/** Longest payload kept, in characters; the reasons of a recompile and the text of a break are far shorter. */
const PAYLOAD_LENGTH = 1 << 18;

/** Records that are only counted, by their first key or their artifact's name. */
const COUNTED: readonly (readonly [prefix: string, what: TickEvent["what"]])[] = [
  ['{"create_symbol"', "symbol"],
  ['{"guard_added', "symbolicGuard"],
  ['{"symbolic_shape_specialization"', "specialization"],
  ['{"artifact": {"name": "fx_graph_cache_hit"', "cacheHit"],
  ['{"artifact": {"name": "fx_graph_cache_miss"', "cacheMiss"],
  ['{"artifact": {"name": "fx_graph_cache_bypass"', "cacheBypass"],
  ['{"artifact": {"name": "aotautograd_cache_hit"', "cacheHit"],
  ['{"artifact": {"name": "aotautograd_cache_miss"', "cacheMiss"],
  ['{"artifact": {"name": "aotautograd_cache_bypass"', "cacheBypass"],
];
const READ = /^\{"(?:str|dynamo_start|compilation_metrics|artifact": \{"name": "(?:recompile_reasons|dynamo_graph_break_reason))"/;

type Json = Record<string, unknown>;

interface Frame {
  readonly function: string;
  readonly location: string;
}

interface PendingRecompile {
  readonly reason: string;
  /** Guards of the function's other variants. */
  readonly others: readonly string[];
  readonly evidence: Evidence;
}

interface ProcessState {
  readonly strings: Map<number, string>;
  readonly frames: Map<string, Frame>;
  /** Recompiles whose frame has not been named yet, by compile id. */
  readonly pending: Map<string, PendingRecompile>;
}

interface OpenPayload {
  readonly name: string;
  readonly process: string;
  readonly compileId: string | undefined;
  readonly evidence: Evidence;
  readonly digest: string;
  readonly hash: Hash;
  readonly lines: string[];
  length: number;
}

export class TraceReader {
  records = 0;
  /** Payloads that do not match their MD5: the log was cut or edited there. */
  damagedPayloads = 0;
  private readonly processes = new Map<string, ProcessState>();
  private payload: OpenPayload | undefined;
  private inPayload = false;

  constructor(private readonly sink: EventSink) {}

  /** True when `message` starts a structured record. */
  static isRecord(message: string): boolean {
    return message.startsWith('{"');
  }

  /** True while tab-indented lines belong to the last record. */
  takesPayload(): boolean {
    return this.inPayload;
  }

  payloadLine(line: string): void {
    const payload = this.payload;
    if (payload === undefined) return;
    if (payload.length > 0) payload.hash.update("\n");
    payload.hash.update(line);
    payload.length += line.length + 1;
    if (payload.length <= PAYLOAD_LENGTH) payload.lines.push(line);
  }

  /** A record's own line. Text that is no JSON is ignored: it was cut. */
  record(message: string, process: string, evidence: Evidence): void {
    this.closePayload();
    this.records += 1;
    this.inPayload = message.includes('"has_payload"');
    const counted = COUNTED.find(([prefix]) => message.startsWith(prefix));
    if (counted !== undefined) {
      this.sink.event({ kind: "tick", what: counted[1], flavour: "trace", process, compileId: undefined, evidence, label: "" });
      return;
    }
    if (!READ.test(message)) return;
    const json = parse(message);
    if (json === undefined) return;
    const key = typeof json["rank"] === "number" ? `rank${json["rank"]}/${process}` : process;
    const compileId = compileIdOf(json);
    if (compileId !== undefined) this.sink.compileSeen(key, compileId);
    const state = this.stateOf(key);
    if (Array.isArray(json["str"])) intern(state, json["str"]);
    else if (isObject(json["dynamo_start"])) this.start(state, key, compileId, json["dynamo_start"]);
    else if (isObject(json["compilation_metrics"])) this.metrics(state, key, compileId, json["compilation_metrics"], evidence);
    else if (isObject(json["artifact"]) && typeof json["has_payload"] === "string") {
      this.payload = {
        name: String(json["artifact"]["name"]),
        process: key,
        compileId,
        evidence,
        digest: json["has_payload"],
        hash: createHash("md5"),
        lines: [],
        length: 0,
      };
    }
  }

  /** Ends the last payload and emits what was waiting for a name. */
  finish(): void {
    this.closePayload();
    for (const [process, state] of this.processes) {
      for (const [compileId, pending] of state.pending) this.emitRecompile(process, compileId, { function: "", location: "" }, pending);
      state.pending.clear();
    }
  }

  private stateOf(process: string): ProcessState {
    let state = this.processes.get(process);
    if (state === undefined) this.processes.set(process, (state = { strings: new Map(), frames: new Map(), pending: new Map() }));
    return state;
  }

  private start(state: ProcessState, process: string, compileId: string | undefined, start: Json): void {
    const frame = Array.isArray(start["stack"]) ? (start["stack"].at(-1) as unknown) : undefined;
    if (compileId === undefined || !isObject(frame)) return;
    const file = typeof frame["filename"] === "number" ? (state.strings.get(frame["filename"]) ?? "") : String(frame["filename"] ?? "");
    this.nameFrame(state, process, compileId, { function: String(frame["name"] ?? ""), location: `${file}:${String(frame["line"] ?? 0)}` });
  }

  private nameFrame(state: ProcessState, process: string, compileId: string, frame: Frame): void {
    const id = frameOf(compileId);
    if (!state.frames.has(id)) state.frames.set(id, frame);
    const pending = state.pending.get(compileId);
    if (pending === undefined) return;
    state.pending.delete(compileId);
    this.emitRecompile(process, compileId, state.frames.get(id) ?? frame, pending);
  }

  private metrics(state: ProcessState, process: string, compileId: string | undefined, metrics: Json, evidence: Evidence): void {
    const id = typeof metrics["compile_id"] === "string" ? metrics["compile_id"] : compileId;
    const named = typeof metrics["co_name"] === "string";
    if (id !== undefined && named) {
      this.nameFrame(state, process, id, {
        function: String(metrics["co_name"]),
        location: `${String(metrics["co_filename"] ?? "")}:${String(metrics["co_firstlineno"] ?? 0)}`,
      });
    }
    const frame = (id === undefined ? undefined : state.frames.get(frameOf(id))) ?? { function: "", location: "" };
    const common = { flavour: "trace", process, compileId: id, evidence } as const;
    const seconds = metrics["entire_frame_compile_time_s"];
    if (typeof seconds === "number" && seconds >= 0) this.sink.event({ kind: "compileTime", ...common, function: frame.function, seconds });

    const failure = typeof metrics["fail_reason"] === "string" ? metrics["fail_reason"] : "";
    const type = typeof metrics["fail_type"] === "string" ? metrics["fail_type"] : "";
    const reason = typeof metrics["recompile_reason"] === "string" ? cutReason(metrics["recompile_reason"]) : "";
    if (/recompile limit exceeded|cache_size_limit reached|hit config\.\w*limit/i.test(failure)) {
      const limit = /currently set to (\d+)|limit \((\d+)\)/.exec(failure);
      this.sink.event({ kind: "limit", ...common, ...frame, limit: limit?.[1] ?? limit?.[2] ?? "", lastReason: reason });
    } else if (type.includes("ConstraintViolation")) {
      this.sink.event({
        kind: "failure",
        failure: "mark-dynamic",
        ...common,
        ...frame,
        reason: failure.split("\n")[0] ?? "",
        detail: failure,
      });
    } else if (type.includes("RecompileError")) {
      this.sink.event({ kind: "failure", failure: "stance", ...common, ...frame, reason, detail: "error_on_recompile" });
    }
    const skip = metrics["cudagraph_skip_reason"];
    if (typeof skip === "string" && skip !== "") this.sink.event({ kind: "cudagraphSkip", ...common, ...frame, ...skipCause(skip) });
  }

  private closePayload(): void {
    const payload = this.payload;
    this.payload = undefined;
    this.inPayload = false;
    if (payload === undefined) return;
    if (payload.hash.digest("hex") !== payload.digest) this.damagedPayloads += 1;
    if (payload.name === "recompile_reasons") this.recompile(payload);
    else this.graphBreak(payload);
  }

  private recompile(payload: OpenPayload): void {
    const { process, compileId = "", evidence } = payload;
    const [reason = "", ...others] = reasonsOf(payload.lines.join("\n")).map((text) => cutReason(text));
    const pending = { reason, others, evidence };
    const state = this.stateOf(process);
    const frame = state.frames.get(frameOf(compileId));
    if (frame !== undefined) this.emitRecompile(process, compileId, frame, pending);
    else state.pending.set(compileId, pending);
  }

  private emitRecompile(process: string, compileId: string, frame: Frame, { reason, others, evidence }: PendingRecompile): void {
    const common = { flavour: "trace", process, compileId, evidence: { ...evidence, text: reason }, ...frame } as const;
    this.sink.event({ kind: "recompile", ...common, reason: reason === "" ? "unknown reason" : reason, values: valuesOf(reason) });
    for (const other of others) this.sink.event({ kind: "failedGuard", ...common, reason: other });
  }

  private graphBreak(payload: OpenPayload): void {
    const { process, compileId, evidence } = payload;
    let open: OpenRecord | undefined;
    for (const line of payload.lines) {
      if (open !== undefined) open.add(line, false);
      else {
        const context = { sink: this.sink, process, compileId, artifact: "graph_breaks", evidence: { ...evidence, text: line } };
        open = graphBreak(line, context, "trace");
      }
    }
    open?.close();
  }
}

function intern(state: ProcessState, pair: unknown[]): void {
  const [text, id] = pair;
  if (typeof text === "string" && typeof id === "number") state.strings.set(id, text);
}

/** The payload is a JSON list of reasons, or one reason as plain text. */
function reasonsOf(payload: string): string[] {
  if (!payload.startsWith("[") && !payload.startsWith('"')) return [payload];
  try {
    const value: unknown = JSON.parse(payload);
    return Array.isArray(value) ? value.map(String) : [String(value)];
  } catch {
    return [payload.replace(/^\[?\s*"?/, "")];
  }
}

function compileIdOf(json: Json): string | undefined {
  const frame = json["frame_id"];
  const compile = json["frame_compile_id"];
  return typeof frame === "number" && typeof compile === "number" ? `${frame}/${compile}` : undefined;
}

function frameOf(compileId: string): string {
  const slash = compileId.lastIndexOf("/");
  return slash < 0 ? compileId : compileId.slice(0, slash);
}

function parse(message: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(message);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
