/**
 * Calls that follow each other, each with arguments that are known before but for what it takes from the answer before: as a chain of runs
 * of the device. Must not know how anything is compiled or run.
 */
import type { RunChain, RunRequest } from "../runtime/device.js";
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

/** How calls of a chain are served that repeat a plan. */
export interface ChainService {
  readonly plan: CallPlan;
  readonly signal: AbortSignal | undefined;
  /** Whether the plan still serves. */
  readonly serves: () => boolean;
  readonly take: RunChain["take"];
}

/** Calls of a chain from one of them on, as long as they differ in nothing but data. */
export interface ChainedCalls {
  /** Calls that were asked for. */
  readonly made: number;
  /** Arguments of the last of them. */
  readonly last: readonly unknown[];
  readonly run: () => Promise<void>;
}

/**
 * The calls from `from` on, whose arguments are `args`; undefined where the device runs them one at a time, or where the plan was made for other calls. Throws a TypeError
 * for a carried tensor that is no argument, or that the answer has no field for.
 */
export function chainedCalls(
  { plan, signal, serves, take }: ChainService,
  chain: Chain,
  from: number,
  args: readonly unknown[],
): ChainedCalls | undefined {
  const { executable } = plan.specialization.replayable;
  const arrays = plan.pattern.arraysOf(args);
  if (!arrays || !executable.runChain || !executable.chainLength) return undefined;
  const first = plan.request(arrays, signal, true);
  if (Math.min(chain.most - from, executable.chainLength(first)) < 2) return undefined;
  const links = plan.links(arrays, chain.carried);
  const runChain = executable.runChain.bind(executable);
  const calls = { made: 1, last: args, run: () => runChain({ first, links, next, take }) };
  const next = (): RunRequest | undefined => {
    const index = from + calls.made;
    if (index >= chain.most || !serves()) return undefined;
    const following = chain.argumentsOf(index);
    const data = plan.pattern.arraysOf(following);
    if (!data) return undefined;
    calls.made++;
    calls.last = following;
    return plan.request(data, signal, false);
  };
  return calls;
}
