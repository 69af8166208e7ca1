/**
 * What a graph break or a CUDA graph skip says: telling causes apart by the wording PyTorch uses for a class of breaks.
 */
import type { Diagnosis } from "./causes.js";

interface Rule extends Diagnosis {
  readonly pattern: RegExp;
}

/** First match wins: the more particular wordings stand first. */
const BREAKS: readonly Rule[] = [
  {
    cause: "explicit-break",
    kind: "disable",
    pattern: /compiler\.disable|_dynamo\.disable|wrapped with `torch\.compiler\.disable|skip_frame\(\)/i,
  },
  {
    cause: "explicit-break",
    kind: "graph-break",
    pattern: /graph_break\(\)|skip function graph_break|User-inserted graph break|step_unsupported|comptime/i,
  },
  {
    cause: "device-scalar-read",
    kind: "item",
    pattern:
      /\bitem\(\)|_local_scalar_dense|Tensor\.item|\btolist\(\)|specialized integer from data-dependent|(?:host|device|scalar|value) read|reads? (?:of )?(?:a|the) (?:\w+ )?value/i,
  },
  {
    cause: "data-dependent-branch",
    kind: "branch",
    pattern:
      /data.dependent (?:branch|jump|assert|expression|control)|generic_jump|dynamic control flow|guard on data.dependent|GuardOnDataDependent|branch on a traced value|attempted to jump with TensorVariable|torch\.(?:cond|while_loop|switch)/i,
  },
  { cause: "device-scalar-read", kind: "item", pattern: /^Data dependent operator/i },
  { cause: "mutated-input", kind: "in-place", pattern: /in-?place op on input|input mutation|mutate tensor data|mutated input/i },
  {
    cause: "dynamic-size",
    kind: "data-dependent-size",
    pattern: /dynamic shape operator|output shape depends on input|data-dependent output shape|Dynamic slicing with Tensor|nonzero/i,
  },
  {
    cause: "unsupported-call",
    kind: "output",
    pattern:
      /builtin (?:operator )?`?print|builtin: print|BuiltinVariable\(print\)|logging\.|Logger|warnings\.warn|reorder a debugging function/i,
  },
  { cause: "unsupported-call", kind: "skipped", pattern: /marked as skipped|skip function|call_function .*skip|SkipFunctionVariable/i },
];

/** Diagnosis of a graph break from its reason and whatever else the log says about it. */
export function diagnoseBreak(reason: string, detail: string): Diagnosis {
  const text = `${reason}\n${detail}`;
  return (
    BREAKS.find((rule) => rule.pattern.test(reason)) ??
    BREAKS.find((rule) => rule.pattern.test(text)) ?? { cause: "unsupported-call", kind: "call" }
  );
}

const SKIPS: readonly Rule[] = [
  { cause: "mutated-input", kind: "skip", pattern: /mutated inputs?|input (?:storage )?mutation/i },
  { cause: "device-scalar-read", kind: "item", pattern: /_local_scalar_dense|\.item\b|unbacked/i },
  {
    cause: "dynamic-size",
    kind: "graph-per-size",
    pattern: /symbolic shapes|dynamic (?:shapes?|graph)|distinct (?:input )?sizes|nonzero|boolean indexing|index_put/i,
  },
  { cause: "data-dependent-branch", kind: "branch", pattern: /control flow|torch\.(?:cond|switch|while_loop)/i },
  { cause: "other", kind: "cpu-tensor", pattern: /cpu device|multiple devices|non gpu ops|cpu ops|cross-device/i },
  { cause: "other", kind: "address", pattern: /data pointer changed|re-recording/i },
  { cause: "unsupported-call", kind: "cudagraph-op", pattern: /incompatible op|unsafe custom ops|partition op/i },
];

/** Diagnosis of a CUDA graph skip from its cause text. */
export function diagnoseSkip(cause: string): Diagnosis {
  return SKIPS.find((rule) => rule.pattern.test(cause)) ?? { cause: "other", kind: "cudagraph" };
}
