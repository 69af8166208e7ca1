/**
 * The vocabulary of root causes: the words of the answer and nothing else.
 */

export const CAUSES = [
  "python-value-guard",
  "list-or-dict-length",
  "dynamic-size",
  "type-change",
  "device-scalar-read",
  "mutated-input",
  "explicit-break",
  "data-dependent-branch",
  "unsupported-call",
  "output-overwritten",
  "mark-dynamic-violation",
  "stance-violation",
  "other",
] as const;

export type Cause = (typeof CAUSES)[number];

/** good: nothing to do; investigate: worth a look; bad: costs time on every call, or stops the program. */
export const SEVERITIES = ["good", "investigate", "bad"] as const;

export type Severity = (typeof SEVERITIES)[number];

/** A cause and the variety of it that decides which explanation fits, for example "cache-index" of "python-value-guard". */
export interface Diagnosis {
  readonly cause: Cause;
  readonly kind: string;
}
