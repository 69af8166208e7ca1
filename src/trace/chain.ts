/**
 * Calls that follow each other, each with arguments that are known before but for what it takes from the answer before: as requests that the device runs in one foreign
 * call. Must not know how anything is compiled or run.
 */
import type { ChainLinks, Executable, RunRequest } from "../runtime/device.js";
import type { CallPlan } from "./plan.js";
import type { Value } from "./value.js";

export interface Chain {
  /** Calls that are left, at least 1. */
  readonly most: number;
  /** Arguments of call `index` of these; their data is copied before the next are asked for, so that the same arrays may be filled again. */
  readonly argumentsOf: (index: number) => readonly unknown[];
  /** Tensors among the arguments that every call but the first takes from the answer before, each under the name of the answer's field. */
  readonly carried: Readonly<Record<string, Value>>;
}

/** The first calls of a chain, ready to run. */
export interface ChainedCalls {
  readonly requests: readonly RunRequest[];
  readonly links: ChainLinks;
  /** Arguments of the last of them. */
  readonly last: readonly unknown[];
  readonly run: NonNullable<Executable["runChain"]>;
}

/**
 * As many calls of a chain as `executable` runs in one foreign call; undefined where that is one, or where the plan was made for other calls. `first`: the arguments of
 * call 0. Throws a TypeError for a carried tensor that is no argument, or that the answer has no field for.
 */
export function chainedCalls(
  plan: CallPlan,
  executable: Executable,
  chain: Chain,
  first: readonly unknown[],
  signal: AbortSignal | undefined,
): ChainedCalls | undefined {
  const arrays = plan.pattern.arraysOf(first);
  if (!arrays || !executable.runChain || !executable.chainLength) return undefined;
  const request = plan.request(arrays, signal, true);
  const length = Math.min(chain.most, executable.chainLength(request));
  if (length < 2) return undefined;
  const links = plan.links(arrays, chain.carried);
  const requests = [request];
  let last = first;
  while (requests.length < length) {
    const args = chain.argumentsOf(requests.length);
    const next = plan.pattern.arraysOf(args);
    if (!next) break;
    requests.push(plan.request(next, signal, true));
    last = args;
  }
  return { requests, links, last, run: executable.runChain.bind(executable) };
}
