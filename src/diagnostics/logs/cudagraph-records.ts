/**
 * Text records of CUDA graphs: graphs skipped, graphs cut into partitions, outputs read after a replay has overwritten them.
 */
import type { EventSink } from "./events.js";
import { StackReader, locationOf } from "./python-stack.js";
import { SINGLE_LINE } from "./record.js";
import type { OpenRecord, RecordContext } from "./record.js";

const SKIP = /[Ss]kipping cudagraphs? (?:due to|for|because of) /;
/** Reasons that PyTorch logs without the words "skipping cudagraphs due to". */
const BARE_REASON =
  /^(?:disabling cudagraphs (?:for backward )?due to |control flow operator: torch\.|index_put_ fallback with|graph with symbolic shapes inputs|input storage mutation)/;
const DISTINCT_SIZES = /CUDAGraph supports dynamic shapes by recording a new graph/;
const OVERWRITTEN = /accessing (?:gradient )?tensor output of CUDAGraphs that has been overwritten/;
const PARTITION = /cudagraph partition due to (.+)$/;
/** `    buf3: reason=cpu ops, ir=...`: one per operator that a partition is cut at. */
const PARTITION_NODE = /^\s+\w+: reason=(.+?)(?:, ir=|$)/;
/** More instances than a graph has inputs is damage, not a count. */
const MOST_INSTANCES = 100_000;

export function openCudagraphSkip(message: string, context: RecordContext): OpenRecord | undefined {
  const text = skipText(message, context.artifact);
  if (text === undefined) return undefined;
  const stack = new StackReader();
  const found = /Found from\s*:?\s*(File .*)$/.exec(text);
  if (found !== null) stack.add(found[1] ?? "");
  return {
    add(line, bare) {
      if (skipText(line, context.artifact) !== undefined) return false;
      const frame = /^\s*(?:Found from\s*:?\s*)?(File ".*)$/.exec(line);
      return stack.add(frame?.[1] ?? line) || (!bare && /^\s*$|^\s{2,}\S/.test(line));
    },
    close: () => emitSkip(text, stack, context),
  };
}

/** The reason as PyTorch words it, undefined when the line is no skip. */
function skipText(message: string, artifact: string | undefined): string | undefined {
  const skip = SKIP.exec(message);
  if (skip !== null) return message.slice(skip.index + skip[0].length);
  if (DISTINCT_SIZES.test(message)) return "dynamic shapes: a new graph for each distinct input size";
  const named = artifact === "cudagraphs" || artifact === "perf_hints";
  return BARE_REASON.test(message) && (named || message.startsWith("disabling")) ? message : undefined;
}

function emitSkip(text: string, stack: StackReader, context: RecordContext): void {
  const code = stack.userCode().at(-1);
  const { cause, instances } = skipCause(text);
  context.sink.event({
    kind: "cudagraphSkip",
    flavour: "text",
    process: context.process,
    compileId: context.compileId,
    evidence: context.evidence,
    cause,
    instances,
    function: code?.function ?? "",
    location: locationOf(code),
  });
}

/** Cause and instance count of "disabling cudagraphs due to mutated inputs (3 instances). Found from : ...". */
export function skipCause(text: string): { cause: string; instances: number } {
  const count = Number(/\((\d{1,6}) instances?\)/.exec(text)?.[1] ?? 1);
  const cause = text
    .replace(/^\s*(?:(?:skipping|disabling) cudagraphs? (?:for backward )?due to )+/i, "")
    .replace(/[.:]?\s*Found from\b[\s\S]*$/, "")
    .replace(/\s*\(\d+ instances?\)/, "")
    .replace(/\n[\s\S]*$/, "")
    .trim()
    .replace(/\.$/, "");
  return { cause: cause === "" ? "unknown reason" : cause, instances: count > 0 && count <= MOST_INSTANCES ? count : 1 };
}

export function openCudagraphPartition(message: string, context: RecordContext): OpenRecord | undefined {
  const label = (PARTITION.exec(message) ?? (context.artifact === "cudagraphs" ? PARTITION_NODE.exec(message) : null))?.[1];
  if (label === undefined) return undefined;
  tick(context.sink, context, label);
  return SINGLE_LINE;
}

function tick(sink: EventSink, context: RecordContext, label: string): void {
  const { process, compileId, evidence } = context;
  sink.event({
    kind: "tick",
    what: "cudagraphPartition",
    flavour: "text",
    process,
    compileId,
    evidence,
    label: label.replace(/\.? Found from.*$/, "").trim(),
  });
}

export function openOverwrittenOutput(message: string, context: RecordContext): OpenRecord | undefined {
  if (!OVERWRITTEN.test(message)) return undefined;
  const stack = new StackReader();
  const inline = /Stack trace: (File ".*)$/.exec(message);
  if (inline !== null) stack.add((inline[1] ?? "").replace(/\. To prevent.*$/, ""));
  return {
    add: (line, bare) => !OVERWRITTEN.test(line) && (stack.add(line) || !bare || /^(?:To prevent|before each)/.test(line)),
    close() {
      const code = stack.userCode().at(-1);
      context.sink.event({
        kind: "failure",
        failure: "overwritten-output",
        flavour: "text",
        process: context.process,
        compileId: context.compileId,
        evidence: context.evidence,
        function: code?.function ?? "",
        location: locationOf(code),
        reason: "tensor output of CUDA graphs overwritten by a later run",
        detail: "",
      });
    },
  };
}
