/**
 * The part of a log line before its message: level, time, process, compile id, artifact; in PyTorch's format since 2.2 and the one before.
 * Knows prefixes only, no messages.
 */

export interface LineHead {
  /** Rank and process id, `UNKNOWN_PROCESS` when the line does not say. */
  readonly process: string;
  /** The whole prefix: equal on all lines of one multi-line record. */
  readonly record: string;
  /** "frame/compile" without the attempt, for example "3/8". */
  readonly compileId: string | undefined;
  /** What was switched on in TORCH_LOGS to get the line, for example "recompiles"; undefined for plain messages. */
  readonly artifact: string | undefined;
  readonly message: string;
}

export const UNKNOWN_PROCESS = "?";

/** `V1121 03:48:44.428000 21518 torch/_dynamo/guards.py:6374] [0/1] [__recompiles] ` */
const GLOG_ANYWHERE = /[VIWEC]\d{4} \d\d:\d\d:\d\d(?:\.\d+)? /;
/** `[2023-11-30 16:06:01,123] [0/1] torch._dynamo.guards.__recompiles: [DEBUG] ` */
const OLD = /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[.,]\d+\] (?:\[([^\]\s]+)\] )?(torch[\w.]*?)(?:\.__(\w+))?: \[\w+\] ?/;
const RANK = /(?:rank|default|worker|node)[-_ ]?(\d+)/i;

/** Reads prefixes at the start of lines. Most lines of a log repeat the prefix before them, which is then not taken apart again. */
export class HeadReader {
  private last: LineHead | undefined;
  private prefix = "";

  /** Undefined when there is none. The same object for a repeated prefix whose message nobody reads. */
  read(line: string): LineHead | undefined {
    if (this.last !== undefined && line.slice(0, this.prefix.length) === this.prefix) {
      return this.last.record === "" ? this.last : { ...this.last, message: line.slice(this.prefix.length) };
    }
    if (line.charCodeAt(0) === 91 /* [ */) return oldHead(line);
    if (!startsGlog(line)) return undefined;
    const head = glogHead(line, "");
    if (head.artifact !== undefined) {
      // The name of the artifact ends the prefix, so that what follows cannot change how it is read.
      const end = line.indexOf(`[__${head.artifact}]`) + head.artifact.length + 4;
      this.last = head;
      this.prefix = head.record === "" ? line.slice(0, end) : head.record;
    }
    return head;
  }
}

/** Finds PyTorch's prefix behind something a launcher, container or progress bar wrote before it. */
export function readHeadAnywhere(line: string): LineHead | undefined {
  const at = GLOG_ANYWHERE.exec(line);
  if (at === null || at.index === 0) return undefined;
  return glogHead(line.slice(at.index), RANK.exec(line.slice(0, at.index))?.[1] ?? "");
}

/** Whether a line of this artifact can hold anything the analyser counts; saves the work of cutting lines nobody reads. */
function isReadArtifact(artifact: string | undefined): boolean {
  switch (artifact) {
    case undefined:
    case "recompiles":
    case "recompiles_verbose":
    case "graph_breaks":
    case "perf_hints":
    case "cudagraphs":
    case "cudagraph_static_inputs":
    case "dynamic":
      return true;
    default:
      return false;
  }
}

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

/** Cheap test by character: this runs on every line of the log. */
function startsGlog(line: string): boolean {
  const level = line.charCodeAt(0);
  if (level !== 86 && level !== 73 && level !== 87 && level !== 69 && level !== 67) return false;
  return (
    isDigit(line.charCodeAt(1)) &&
    isDigit(line.charCodeAt(4)) &&
    line.charCodeAt(5) === 32 &&
    line.charCodeAt(8) === 58 &&
    line.charCodeAt(11) === 58 &&
    isDigit(line.charCodeAt(13))
  );
}

function glogHead(line: string, rank: string): LineHead {
  const process = (pid: string): string => (rank === "" ? pid : `rank${rank}/${pid}`);
  const timeEnd = line.indexOf(" ", 6);
  const close = line.indexOf("]", 14);
  const pidEnd = timeEnd < 0 ? -1 : line.indexOf(" ", timeEnd + 1);
  if (close < 0 || pidEnd < 0 || pidEnd > close || !isDigit(line.charCodeAt(close - 1)) || !isDigit(line.charCodeAt(timeEnd + 1))) {
    // Level and time only, as in logs people retype or reformat: the message follows at once.
    const at = timeEnd < 0 ? line.length : timeEnd;
    return { process: UNKNOWN_PROCESS, record: line.slice(0, at), compileId: undefined, artifact: undefined, message: line.slice(at + 1) };
  }
  let at = close + 2;
  let compileId: string | undefined;
  let artifact: string | undefined;
  for (let part = 0; part < 2 && line.charCodeAt(at) === 91; part += 1) {
    const end = line.indexOf("]", at);
    if (end < 0) break;
    if (line.startsWith("__", at + 1)) artifact = line.slice(at + 3, end);
    else if (compileId === undefined && (isDigit(line.charCodeAt(at + 1)) || line.charCodeAt(at + 1) === 33)) {
      compileId = withoutAttempt(line.slice(at + 1, end));
    } else break;
    at = end + 2;
    if (artifact !== undefined) break;
  }
  const readable = isReadArtifact(artifact);
  return {
    process: process(line.slice(timeEnd + 1, pidEnd)),
    record: readable ? line.slice(0, at) : "",
    compileId,
    artifact,
    message: readable ? line.slice(at) : "",
  };
}

function oldHead(line: string): LineHead | undefined {
  const old = OLD.exec(line);
  if (old === null) return undefined;
  const compileId = old[1] === undefined ? undefined : withoutAttempt(old[1]);
  return { process: UNKNOWN_PROCESS, record: old[0], compileId, artifact: old[3], message: line.slice(old[0].length) };
}

/** "1/0_1" (second attempt) and "1/0" are the same compile. */
function withoutAttempt(id: string): string {
  const underscore = id.indexOf("_");
  return underscore < 0 ? id : id.slice(0, underscore);
}
