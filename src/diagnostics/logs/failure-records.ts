/**
 * Text records of errors that name a cause: recompiles that a stance forbids, marked dimensions that turned out constant, breaks under fullgraph=True.
 */
import { cutReason } from "./guard-reason.js";
import { StackReader, locationOf } from "./python-stack.js";
import { SINGLE_LINE } from "./record.js";
import type { OpenRecord, RecordContext } from "./record.js";

const STANCE =
  /Detected recompile when torch\.compile stance is '?(\w+)'?(?:.*filename: '(.*?)', function name: '(.*?)', line number: (\d+))?/;
const RECOMPILE_ERROR = /RecompileError:? ?Recompiling function (.+?) in (.+):(\d+)/;
/** This package's own error: `decodeStep would recompile: position == 3 failed (was 3, now 4, src/a.ts:7). The stance ...` */
const OWN_STANCE = /(\S+) would recompile: (.+) failed \(was .*?, now .*?(?:, ([^\s,()]+:\d+))?\)\. The stance fail_on_recompile/;
const GUARD_LINE = /^\s*(?:- |!?[\d/]+\/\d+: |triggered by)/;

export function openStanceFailure(message: string, context: RecordContext): OpenRecord | undefined {
  const own = message.includes(" would recompile: ") ? OWN_STANCE.exec(message) : null;
  if (own !== null) {
    emit(context, "stance", own[1] ?? "", own[3] ?? "", own[2] ?? "", "fail_on_recompile");
    return SINGLE_LINE;
  }
  const stance = STANCE.exec(message);
  const error = stance === null ? RECOMPILE_ERROR.exec(message) : null;
  if (stance === null && error === null) return undefined;
  const functionName = stance?.[3] ?? error?.[1] ?? "";
  const file = stance?.[2] ?? error?.[2];
  const line = stance?.[4] ?? error?.[3] ?? "";
  let reason = "";
  return {
    add(text, bare) {
      if (STANCE.test(text) || (bare && !GUARD_LINE.test(text))) return false;
      if (reason === "" && /^\s*- /.test(text)) reason = cutReason(text);
      return true;
    },
    close: () =>
      emit(
        context,
        "stance",
        functionName,
        file === undefined ? "" : `${file}:${line}`,
        reason === "" ? "unknown reason" : reason,
        stance?.[1] ?? "error_on_recompile",
      ),
  };
}

const CONSTRAINT =
  /Constraints violated|ConstraintViolationError|You marked .+ as dynamic but your code specialized it|marked as unbacked but|Not all values of .+ satisfy the generated guard/;
const CONSTRAINT_PART = /^\s+- |^User stack:|^from user code|^\s*$|^\s+File "|^\s{3,}\S/;

export function openConstraintViolation(message: string, context: RecordContext): OpenRecord | undefined {
  if (!CONSTRAINT.test(message) || /^\s*raise ConstraintViolationError\(/.test(message)) return undefined;
  const stack = new StackReader();
  let reason = constraintText(message);
  return {
    add(line, bare) {
      if (stack.add(line)) return true;
      if (bare && !CONSTRAINT_PART.test(line)) return false;
      if (/^\s+- |You marked|Not all values/.test(line)) reason = constraintText(line);
      return true;
    },
    close() {
      const code = stack.userCode().at(-1);
      emit(context, "mark-dynamic", code?.function ?? "", locationOf(code), reason, "");
    },
  };
}

function constraintText(line: string): string {
  return line
    .replace(/^.*ConstraintViolationError:? ?/, "")
    .replace(/^\s*-\s+/, "")
    .replace(/ For more information, run with.*$| If you're using .*$/, "")
    .trim();
}

const UNSUPPORTED =
  /(?:^|\bexc\.)(Unsupported|UserError|InternalTorchDynamoError|Uncapturable\w*|UncapturedHigherOrderOpError)(?::| (?=\S))\s*(.+)$/;
const DATA_DEPENDENT = /GuardOnDataDependentSymNode|Could not (?:guard on data-dependent expression|extract specialized integer)/;
const UNSUPPORTED_PART =
  /^\s|^$|^from user code|^User Stack|^For (?:more|extended|C\+\+)|^Caused by|^consider using|^If you suspect|^Set TORCHDYNAMO|^\*\*\* While/;
/** The limit has a warning of its own, which names function and guard. */
const LIMIT_REACHED = /recompile limit exceeded|(?:recompile|cache_size)_limit reached/;
/** Lines within which an error must show one of the marks PyTorch always adds, or it was something else. */
const CONFIRM_WITHIN = 25;

/** An error of fullgraph=True. Lines that merely look like one are not counted: it takes an explanation or PyTorch's user stack. */
export function openFullGraphFailure(message: string, context: RecordContext): OpenRecord | undefined {
  const dataDependent = DATA_DEPENDENT.test(message);
  const unsupported = UNSUPPORTED.exec(message);
  if (unsupported === null && !dataDependent) return undefined;
  // Under graph_breaks a traceback belongs to the break that is logged anyway.
  if (context.artifact === "graph_breaks" || LIMIT_REACHED.test(message)) return undefined;
  const reason = (unsupported?.[2] ?? message).trim();
  const stack = new StackReader();
  let detail = dataDependent ? "Could not guard on data-dependent expression" : "";
  let confirmed = dataDependent;
  let lines = 0;
  return {
    add(line, bare) {
      lines += 1;
      if (/^(?:from user code|User Stack)/.test(line)) confirmed = true;
      const more = /^\s*(?:Explanation|Developer debug context): (.*)$/.exec(line);
      if (more !== null) {
        confirmed = true;
        detail += `\n${more[1] ?? ""}`;
      }
      if (!confirmed && lines > CONFIRM_WITHIN) return false;
      return stack.add(line) || !bare || UNSUPPORTED_PART.test(line);
    },
    close() {
      if (!confirmed) return;
      const code = stack.userCode().at(-1);
      emit(context, "full-graph", code?.function ?? "", locationOf(code), reason, detail);
    },
  };
}

function emit(
  context: RecordContext,
  failure: "stance" | "mark-dynamic" | "full-graph",
  functionName: string,
  location: string,
  reason: string,
  detail: string,
): void {
  const { process, compileId, evidence } = context;
  context.sink.event({
    kind: "failure",
    failure,
    flavour: "text",
    process,
    compileId,
    evidence,
    function: functionName,
    location,
    reason,
    detail,
  });
}
