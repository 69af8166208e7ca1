/**
 * Text records of recompiles: `Recompiling function f in x.py:7` with its guard failures, and the warning that the limit was hit.
 */
import { cutReason, valuesOf } from "./guard-reason.js";
import { SINGLE_LINE } from "./record.js";
import type { OpenRecord, RecordContext } from "./record.js";

const HEADER = /Recompiling function (.+?) in (.+):(\d+)\s*$/;
/** PyTorch 2.0 logs a tuple on one line: `('Recompiling function f in x.py', "triggered by the following guard failure: ...")`. */
const TUPLE = /^\('Recompiling function (.+?) in (.+?)', "triggered by the following guard failure: (.*)"\)$/;
/** `    - 0/1: tensor 'x' size mismatch ...`; the id is missing in versions before 2.5, the dash in some others. */
const NUMBERED = /^\s*(?:-\s+)?!?[\d/]+\/\d+(?:_\d+)?: /;
const DASHED = /^\s+- (?!\s)(?!User stack trace)/;
const ONE_LINE = /(?:triggered|set) by the following guard failure(?:\(s\))?:\s+(\S.*)$/;
const PART = /^\s*(?:triggered by|set by|guard \d+ failures|- |!?[\d/]+\/\d+: )|^\s*$/;

export function openRecompile(message: string, context: RecordContext): OpenRecord | undefined {
  const tuple = TUPLE.exec(message);
  const header = tuple ?? HEADER.exec(message);
  // The exception of error_on_recompile repeats the header; it is a failure, not another recompile.
  if (header === null || message.includes("Error: Recompiling")) return undefined;
  let emitted = false;
  const { sink, process, compileId, evidence } = context;
  const location = tuple === null ? `${header[2] ?? ""}:${header[3] ?? ""}` : (header[2] ?? "");
  const common = { flavour: "text", process, compileId, evidence, function: header[1] ?? "", location } as const;
  // The first guard makes the recompile; the record may stay open for long, so that nothing may wait for its end.
  const emit = (reason: string): void => {
    if (emitted) sink.event({ kind: "failedGuard", ...common, reason });
    else sink.event({ kind: "recompile", ...common, reason, values: valuesOf(reason) });
    emitted = true;
  };
  if (tuple !== null) {
    emit(cutReason(tuple[3] ?? ""));
    return SINGLE_LINE;
  }
  return {
    add(line, bare) {
      if (HEADER.test(line)) return false;
      if (bare && !PART.test(line)) return false;
      const inline = emitted ? null : ONE_LINE.exec(line);
      if (inline !== null) emit(cutReason(inline[1] ?? ""));
      else if (NUMBERED.test(line) || (!emitted && DASHED.test(line))) emit(cutReason(line));
      return true;
    },
    close: () => {
      if (!emitted) emit("unknown reason");
    },
  };
}

const LIMIT = /torch\._dynamo hit config\.(\w+)(?: \((\d+)\))?/;
const LIMIT_FUNCTION = /^\s*function: '(.*)' \((.*)\)\s*$/;
const LIMIT_REASON = /^\s*(?:last reason|reasons?): ?(.*)$/;
const LIMIT_PART = /^\s*To (?:log|diagnose) |^\s*User stack trace:|^\s+File "|^\s{4,}\S/i;

export function openLimit(message: string, context: RecordContext): OpenRecord | undefined {
  const header = LIMIT.exec(message);
  if (header === null) return undefined;
  let functionName = "";
  let location = "";
  let lastReason = "";
  return {
    add(line, bare) {
      if (LIMIT.test(line)) return false;
      const named = LIMIT_FUNCTION.exec(line);
      const reason = LIMIT_REASON.exec(line);
      if (named !== null && functionName === "") [functionName, location] = [named[1] ?? "", named[2] ?? ""];
      else if (reason !== null && lastReason === "") lastReason = cutReason(reason[1] ?? "");
      else return !bare || LIMIT_PART.test(line);
      return true;
    },
    close: () =>
      context.sink.event({
        kind: "limit",
        flavour: "text",
        process: context.process,
        compileId: context.compileId,
        evidence: context.evidence,
        function: functionName,
        location,
        limit: header[2] ?? "",
        lastReason,
      }),
  };
}
