/** The public `compile`: a traced function over Tensors. */
import type { Device, KernelProfile } from "../runtime/device.js";
import { CompiledCore, openDevice, type CompileOptions, type CompileReport, type DeviceName } from "../trace/entry.js";
import { makeTensor, type Tensor } from "./tensor.js";

/** Where and how a function is compiled, and which sizes may vary without a recompile. */
export interface CompileSettings extends Omit<CompileOptions, "device"> {
  /** A device, or its name; default "auto". */
  readonly device?: Device | DeviceName;
}

/** Calls that follow each other: what each is given is known before, but for tensors that it takes from the answer before. */
export interface CallChain<Args extends unknown[]> {
  /** Calls that are left, at least 1. */
  readonly most: number;
  /** Arguments of call `index` of these. Their data is copied before the next are asked for, so that the same arrays may be filled again. */
  readonly argumentsOf: (index: number) => Args;
  /** Tensors among the arguments that every call but the first takes from the answer before, each under the name of the answer's field, of the same dtype and shape. */
  readonly carried: Readonly<Record<string, Tensor>>;
}

/** A compiled function: called like the original, with its report and disposal beside it. */
export interface Compiled<Args extends unknown[], Result> {
  /** Runs on the calling thread; compiles first when no specialization fits. */
  (...args: Args): Result;
  /** Runs off the event loop; rejects with an AbortedError when `signal` fires. */
  run(args: Args, signal?: AbortSignal): Promise<Result>;
  /**
   * Runs a chain of calls. Those that repeat the last call in all but data go together, some 50 ms of them in one foreign call; `take` gets the answers of one such
   * call, in order, while the next runs already. Same bits, aborts and counters as one `run` after the other, but for fewer foreign calls. An error of `take` or
   * `argumentsOf` ends the chain: states it was writing are invalid then until reset. Rejects with a TypeError for a carried tensor that is no argument or fits no field of the answer.
   */
  runChain(chain: CallChain<Args>, take: (answers: Result[]) => void, signal?: AbortSignal): Promise<void>;
  /** Compiles for these arguments without running. */
  prepare(...args: Args): Promise<void>;
  /** Runs the last call again with the profiler on: time per kernel, in launch order. Its state writes happen again. */
  profileLast(): KernelProfile[];
  /** Values tapped in the last call. */
  taps(): ReadonlyMap<string, Tensor>;
  report(): CompileReport;
  dispose(): void;
}

/**
 * Compiles `fn`, which must compute with the tensors and states it is given and return tensors. Numbers and named sizes are data; `staticValue(...)` arguments
 * and fixed shapes are guards. The same bits in every mode.
 */
export function compile<Args extends unknown[], Result>(
  fn: (...args: Args) => Result,
  settings: CompileSettings = {},
): Compiled<Args, Result> {
  const device = typeof settings.device === "object" ? settings.device : openDevice(settings.device ?? "auto").device;
  const core = new CompiledCore(fn as never, { ...settings, device }, makeTensor);
  const compiled = ((...args: Args) => core.callSync(args)) as Compiled<Args, Result>;
  compiled.run = (args, signal) => core.call(args, signal) as Promise<Result>;
  compiled.runChain = (chain, take, signal) => core.callChain(chain, take as (answers: unknown[]) => void, signal);
  compiled.prepare = (...args) => core.prepare(args);
  compiled.profileLast = () => core.profileLast();
  compiled.taps = () => core.taps as ReadonlyMap<string, Tensor>;
  compiled.report = () => core.report();
  compiled.dispose = () => core.dispose();
  return compiled;
}
