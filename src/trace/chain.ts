/**
 * Calls that follow each other, each with arguments that are known before but for what it takes from the answer before: as a chain of runs
 * of the device. Must not know how anything is compiled or run.
 */
import type { ChainLinks, Executable, RunChain, RunRequest, RunResult } from "../runtime/device.js";
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

/** What stays the same from call to call. */
export interface ChainedPlan {
  readonly plan: CallPlan;
  readonly signal: AbortSignal | undefined;
  /** Whether the plan still serves. */
  readonly serves: () => boolean;
  readonly take: (results: readonly RunResult[]) => void;
}

/** Calls of a chain from one of them on, as long as they differ in nothing but data. */
export class ChainedCalls implements RunChain {
  readonly first: RunRequest;
  readonly links: ChainLinks;
  /** Calls that were asked for. */
  made = 1;
  /** Arguments of the last of them. */
  last: readonly unknown[];
  readonly #of: ChainedPlan;
  readonly #chain: Chain;
  readonly #from: number;

  private constructor(
    of: ChainedPlan,
    chain: Chain,
    from: number,
    first: { readonly args: readonly unknown[]; readonly request: RunRequest; readonly links: ChainLinks },
  ) {
    [this.#of, this.#chain, this.#from] = [of, chain, from];
    [this.first, this.links, this.last] = [first.request, first.links, first.args];
  }

  /**
   * The calls from `from` on, whose arguments are `args`; undefined where the device runs them one at a time, or where the plan was made for other calls. Throws a
   * TypeError for a carried tensor that is no argument, or that the answer has no field for.
   */
  static from(of: ChainedPlan, executable: Executable, chain: Chain, from: number, args: readonly unknown[]): ChainedCalls | undefined {
    const { plan, signal } = of;
    const arrays = plan.pattern.arraysOf(args);
    if (!arrays || !executable.runChain || !executable.chainLength) return undefined;
    const request = plan.request(arrays, signal, true);
    if (Math.min(chain.most - from, executable.chainLength(request)) < 2) return undefined;
    return new ChainedCalls(of, chain, from, { args, request, links: plan.links(arrays, chain.carried) });
  }

  next(): RunRequest | undefined {
    const { plan, signal, serves } = this.#of;
    const index = this.#from + this.made;
    if (index >= this.#chain.most || !serves()) return undefined;
    const args = this.#chain.argumentsOf(index);
    const arrays = plan.pattern.arraysOf(args);
    if (!arrays) return undefined;
    this.made++;
    this.last = args;
    return plan.request(arrays, signal, false);
  }

  take(results: readonly RunResult[]): void {
    this.#of.take(results);
  }
}
