/**
 * Text records of graph breaks, in the wordings of PyTorch 2.0 to 2.15, and the one-time warning about `Tensor.item()`.
 * The same text is the payload of a graph break in a structured trace.
 */
import type { Flavour } from "./events.js";
import { StackReader, locationOf } from "./python-stack.js";
import type { OpenRecord, RecordContext } from "./record.js";

const HEADER = /Graph break(?: \([^)]*\))? in user code at (.+):(\d+)\s*$/;
/** `Graph break: call_function BuiltinVariable(print) [...] {} from user code at:` */
const OLD_HEADER = /^Graph break: (.*?) ?from user code at:?/;
const REASON = /^\s*(?:Graph Break )?Reason: ?(.*)$/;
const NESTED = /another graph break occurred/;
const DETAIL = /^\s*(?:Explanation|Developer debug context): (.*)$/;
const STACK_START = /^User code traceback:|^from user code|^Stack variable source attribution:/;
/** PyTorch 2.4 and 2.5 leave the reason out of the header: it stands at the end of the traceback. */
const RAISED = /^(?:torch\._dynamo\.exc\.)?Unsupported: (.+)$/;
/** How much of the explanation is kept; more never helps to tell causes apart. */
const DETAIL_LENGTH = 600;

export function openGraphBreak(message: string, context: RecordContext): OpenRecord | undefined {
  return graphBreak(message, context, "text");
}

/** As `openGraphBreak`, for text that stands in a log of another kind. */
export function graphBreak(message: string, context: RecordContext, flavour: Flavour): OpenRecord | undefined {
  const header = HEADER.exec(message);
  const old = header === null && context.artifact === "graph_breaks" ? OLD_HEADER.exec(message) : null;
  if (header === null && old === null) return undefined;

  let reason = old?.[1] ?? "";
  let detail = reason;
  let awaitsReason = false;
  let seenReason = old !== null;
  let inTrace = false;
  let stack = new StackReader();

  const takeReason = (text: string): void => {
    // "Encountered graph break when ...:" introduces the type of the break, which follows on a line of its own.
    awaitsReason = text === "" || text.endsWith(":");
    if (awaitsReason) return;
    reason = text;
    detail += `\n${text}`;
  };

  return {
    add(line, bare) {
      if (HEADER.test(line)) return false;
      if (inTrace) {
        const raised = reason === "" && !bare ? RAISED.exec(line) : null;
        if (raised !== null) takeReason((raised[1] ?? "").trim());
        return !bare;
      }
      if (bare && !isPart(line, awaitsReason || !seenReason)) return false;
      const text = line.trim();
      const named = seenReason ? null : REASON.exec(line);
      if (named !== null) {
        seenReason = true;
        takeReason((named[1] ?? "").trim());
      } else if (NESTED.test(line)) awaitsReason = true;
      else if (awaitsReason) {
        if (text !== "") takeReason(text);
      } else if (STACK_START.test(line)) stack = new StackReader();
      else if (/^Traceback \(most recent call last\)/.test(line)) inTrace = true;
      else if (!stack.add(line)) {
        const more = DETAIL.exec(line);
        if (more !== null && detail.length < DETAIL_LENGTH) detail += `\n${more[1] ?? ""}`;
      }
      return true;
    },
    close() {
      const code = stack.userCode();
      const innermost = code.at(-1);
      context.sink.event({
        kind: "graphBreak",
        flavour,
        process: context.process,
        compileId: context.compileId,
        evidence: context.evidence,
        location: header === null ? locationOf(innermost) : `${header[1] ?? ""}:${header[2] ?? ""}`,
        function: innermost?.function ?? "",
        reason: reason === "" ? "unknown reason" : reason,
        detail: detail.slice(0, DETAIL_LENGTH),
        code,
      });
    },
  };
}

/** Whether a line without a prefix can be part of a graph break's text. */
function isPart(line: string, early: boolean): boolean {
  return early || /^\s|^$|^User code traceback:|^Stack variable source|^\*\*\* While handling|^For more details/.test(line);
}

const ITEM_WARNING = /Graph break from `Tensor\.(?:item|tolist)\(\)`|Graph break: ?from user code .*\.item\(\)/;

/** The warning is printed once per process however often the call happens; it is no count of breaks. */
export function openItemWarning(message: string, context: RecordContext): OpenRecord | undefined {
  if (!ITEM_WARNING.test(message)) return undefined;
  const stack = new StackReader();
  return {
    add(line, bare) {
      if (ITEM_WARNING.test(line)) return false;
      return stack.add(line) || !bare || /^\s|^or:|^to include|^Graph break: from user code/.test(line);
    },
    close() {
      const code = stack.userCode();
      const innermost = code.at(-1);
      context.sink.event({
        kind: "scalarRead",
        flavour: "text",
        process: context.process,
        compileId: context.compileId,
        evidence: context.evidence,
        function: innermost?.function ?? "",
        location: locationOf(innermost),
        code,
      });
    },
  };
}
