/**
 * Hands every line to the reader it is for: records with a prefix, structured records and their payloads, this package's own lines,
 * lines without a prefix. Keeps records of interleaved processes apart by their prefix. Knows no wording and counts no causes.
 */
import { openGraphBreak, openItemWarning } from "./break-records.js";
import { openCudagraphPartition, openCudagraphSkip, openOverwrittenOutput } from "./cudagraph-records.js";
import type { Evidence, EventSink, TickEvent } from "./events.js";
import { openConstraintViolation, openFullGraphFailure, openStanceFailure } from "./failure-records.js";
import { HeadReader, UNKNOWN_PROCESS, readHeadAnywhere } from "./line-prefix.js";
import type { LineHead } from "./line-prefix.js";
import { readOwnLine } from "./own-reader.js";
import { openLimit, openRecompile } from "./recompile-records.js";
import type { OpenRecord, RecordContext, RecordOpener } from "./record.js";
import { SINGLE_LINE } from "./record.js";
import { TraceReader } from "./trace-reader.js";

/** Records of interleaved processes and threads kept open at once. */
const MOST_OPEN = 64;
/** Unrelated lines after which a record without a prefix has ended. */
const BARE_PATIENCE = 12;
const EVIDENCE_LENGTH = 240;
/** Longer messages are cut before their wording is looked at; nothing that is counted stands behind this. Structured records are whole. */
const MESSAGE_LENGTH = 4096;

const OPENERS: readonly RecordOpener[] = [
  openStanceFailure,
  openRecompile,
  openLimit,
  openGraphBreak,
  openItemWarning,
  openOverwrittenOutput,
  openCudagraphSkip,
  openCudagraphPartition,
  openConstraintViolation,
  openFullGraphFailure,
];

/** A line without any of these words opens no record; one scan instead of ten. */
const WORTH_OPENING =
  /hit config\.|Recompiling function|would recompile|Detected recompile|[Gg]raph [Bb]reak|cudagraph|CUDAGraph|Constraint|Not all values|You marked|Unsupported|UserError|data-dependent|DynamoError|Uncaptur|control flow operator|index_put_|symbolic shapes|input storage|reason=/;
const NO_HEAD = { process: UNKNOWN_PROCESS, compileId: undefined, artifact: undefined };

const ANSI = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b[@-Z\\-_]/g;

export class LineRouter {
  lines = 0;
  unrecognised = 0;
  /** Lines in a form that only PyTorch or this package writes. */
  recognised = 0;
  readonly trace: TraceReader;
  private readonly heads = new HeadReader();
  /** The head before, to tell a repeated one. */
  private lastHead: LineHead | undefined;
  private source = "";
  private sourceLine = 0;
  private readonly open = new Map<string, OpenRecord>();
  private bare: OpenRecord | undefined;
  private bareMisses = 0;

  constructor(private readonly sink: EventSink) {
    this.trace = new TraceReader(sink);
  }

  /** The lines that follow are of this input. */
  startSource(name: string): void {
    this.finish();
    this.source = name;
    this.sourceLine = 0;
  }

  /** One line without its end. */
  line(raw: string): void {
    this.lines += 1;
    this.sourceLine += 1;
    const line = clean(raw);
    if (line.charCodeAt(0) === 9 && this.trace.takesPayload()) {
      this.recognised += 1;
      this.trace.payloadLine(line.slice(1));
      return;
    }
    if (line === "") return;
    const head = this.heads.read(line);
    if (head !== undefined) this.headed(head);
    else this.unheaded(line);
  }

  /** The input has ended: closes whatever is open. */
  finish(): void {
    for (const record of this.open.values()) record.close();
    this.open.clear();
    this.closeBare();
    this.trace.finish();
  }

  private headed(head: LineHead): void {
    this.recognised += 1;
    if (head === this.lastHead) return;
    this.lastHead = head;
    if (head.compileId !== undefined) this.sink.compileSeen(head.process, head.compileId);
    if (head.record === "") return;
    if (TraceReader.isRecord(head.message)) {
      this.trace.record(head.message, head.process, this.evidence(head.message));
      return;
    }
    const message = shortened(head.message);
    if (head.process === UNKNOWN_PROCESS) {
      // Such prefixes are not repeated on every line of a record and tell no processes apart.
      this.loose(message, head);
      return;
    }
    const record = this.open.get(head.record);
    if (record !== undefined) {
      if (record.add(message, false)) return;
      record.close();
      this.open.delete(head.record);
    }
    if (this.tick(head)) return;
    const opened = this.openRecord(message, head);
    if (opened === undefined || opened === SINGLE_LINE) return;
    this.open.set(head.record, opened);
    if (this.open.size > MOST_OPEN) this.closeOldest();
  }

  private unheaded(whole: string): void {
    const head = readHeadAnywhere(whole);
    if (head !== undefined) {
      this.headed(head);
      return;
    }
    const line = shortened(whole);
    const known = (line.includes("[tempograph]") && readOwnLine(line, this.sink, this.evidence(line))) || this.loose(line, NO_HEAD);
    if (known) this.recognised += 1;
    else this.unrecognised += 1;
  }

  /** A line that belongs to a record only by its form. Returns whether it does, or opens one. */
  private loose(message: string, head: Pick<LineHead, "process" | "compileId" | "artifact">): boolean {
    if (this.bare !== undefined) {
      if (this.bare.add(message, true)) {
        this.bareMisses = 0;
        return true;
      }
      this.bareMisses += 1;
      if (this.bareMisses > BARE_PATIENCE) this.closeBare();
    }
    const opened = this.openRecord(message, head);
    if (opened === undefined) return false;
    if (opened !== SINGLE_LINE) {
      this.closeBare();
      this.bare = opened;
      this.bareMisses = 0;
    }
    return true;
  }

  private openRecord(
    message: string,
    { process, compileId, artifact }: Pick<LineHead, "process" | "compileId" | "artifact">,
  ): OpenRecord | undefined {
    if (!WORTH_OPENING.test(message)) return undefined;
    const context: RecordContext = { sink: this.sink, process, compileId, artifact, evidence: this.evidence(message) };
    for (const opener of OPENERS) {
      const opened = opener(message, context);
      if (opened !== undefined) return opened;
    }
    return undefined;
  }

  /** Messages of one line that are only counted. */
  private tick(head: LineHead): boolean {
    const what = tickOf(head);
    if (what === undefined) return false;
    const { process, compileId, message } = head;
    const label = what === "performanceHint" ? message.trim() : "";
    this.sink.event({ kind: "tick", what, flavour: "text", process, compileId, evidence: this.evidence(message), label });
    return true;
  }

  private evidence(text: string): Evidence {
    return {
      source: this.source,
      line: this.sourceLine,
      text: text.length > EVIDENCE_LENGTH ? `${text.slice(0, EVIDENCE_LENGTH)} ...` : text,
    };
  }

  private closeOldest(): void {
    const oldest = this.open.entries().next();
    if (oldest.done === true) return;
    const [key, record] = oldest.value;
    record.close();
    this.open.delete(key);
  }

  private closeBare(): void {
    this.bare?.close();
    this.bare = undefined;
  }
}

function tickOf({ message, artifact }: LineHead): TickEvent["what"] | undefined {
  if (artifact === undefined || artifact === "dynamic") {
    if (message.startsWith("create_symbol ")) return "symbol";
    if (message.startsWith("eval ") && message.includes("[guard added]")) return "symbolicGuard";
    if (message.startsWith("set_replacement ") && message.includes("singleton")) return "specialization";
    if (message.startsWith("fx graph cache hit") || message.startsWith("AOTAutograd cache hit")) return "cacheHit";
    if (message.startsWith("fx graph cache miss") || message.startsWith("AOTAutograd cache miss")) return "cacheMiss";
  }
  return artifact === "perf_hints" && !/cudagraph/i.test(message) && message !== "" ? "performanceHint" : undefined;
}

function shortened(message: string): string {
  return message.length > MESSAGE_LENGTH ? message.slice(0, MESSAGE_LENGTH) : message;
}

/** Without carriage return and colours. */
function clean(raw: string): string {
  const line = raw.charCodeAt(raw.length - 1) === 13 ? raw.slice(0, -1) : raw;
  return line.includes("\u001b") ? line.replace(ANSI, "") : line;
}
