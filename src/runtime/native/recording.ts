/** Adds up where runs of a device spend their time while a recording is open. Must not know how a run is made. */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { Program } from "../../ir/kernel.js";
import type { RecordedKernel, RecordedRuns } from "../device.js";
import { stepLayout } from "./contract.js";

/** A finished run, or several that followed each other in one table: it holds the cycles of each launch. */
export interface FinishedRun {
  readonly program: Program;
  readonly table: ArrayBuffer;
  readonly sizes: SizeBindings;
  readonly runs: number;
  readonly foreignCalls: number;
  /** From the request to the answers, in ms. */
  readonly milliseconds: number;
}

/** Ticks of all runs of one step table. Added up by launch, so that a recording changes the runs it watches as little as it can. */
interface TableSum {
  readonly program: Program;
  readonly sizes: SizeBindings;
  /** The table's memory as words. */
  readonly words: BigInt64Array;
  readonly ticks: Float64Array;
  runs: number;
}

class Recording {
  readonly #tables = new Map<ArrayBuffer, TableSum>();
  #runs = 0;
  #foreignCalls = 0;
  #milliseconds = 0;

  add({ program, table, sizes, runs, foreignCalls, milliseconds }: FinishedRun): void {
    this.#runs += runs;
    this.#foreignCalls += foreignCalls;
    this.#milliseconds += milliseconds;
    const sum = this.#tables.get(table) ?? this.#begin(program, table, sizes);
    const { words, ticks } = sum;
    const { length } = ticks;
    for (let row = 0, at = stepLayout.cycles / 8; row < runs * length; row++, at += stepLayout.bytes / 8)
      ticks[row % length] = (ticks[row % length] as number) + Number(words[at]);
    sum.runs += runs;
  }

  #begin(program: Program, table: ArrayBuffer, sizes: SizeBindings): TableSum {
    const { length } = program.launches;
    const words = new BigInt64Array(table);
    const sum = { program, sizes, words, ticks: new Float64Array(length), runs: 0 };
    this.#tables.set(table, sum);
    return sum;
  }

  result(ticksPerSecond: number): RecordedRuns {
    const kernels = new Map<string, RecordedKernel>();
    for (const { program, sizes, ticks, runs } of this.#tables.values()) {
      program.launches.forEach(({ symbol, label, flops, bytes }, index) => {
        const work = { program: program.name, symbol, flops: evaluateDim(flops, sizes), bytes: evaluateDim(bytes, sizes) };
        const key = Object.values(work).join(" ");
        const before = kernels.get(key) ?? { ...work, label, launches: 0, milliseconds: 0 };
        const milliseconds = before.milliseconds + ((ticks[index] as number) / ticksPerSecond) * 1000;
        kernels.set(key, { ...before, launches: before.launches + runs, milliseconds });
      });
    }
    const slowestFirst = [...kernels.values()].sort((a, b) => b.milliseconds - a.milliseconds);
    return { runs: this.#runs, foreignCalls: this.#foreignCalls, milliseconds: this.#milliseconds, kernels: slowestFirst };
  }
}

/** A device's recorder: executables look here whether a recording is open. */
export class RunRecorder {
  #open: Recording | undefined;

  get isOpen(): boolean {
    return this.#open !== undefined;
  }

  add(run: FinishedRun): void {
    this.#open?.add(run);
  }

  /** Throws when a recording is open already. */
  async record(ticksPerSecond: number, body: () => Promise<void> | void): Promise<RecordedRuns> {
    if (this.#open) throw new Error("a recording of this device is open already; wait until it has ended");
    const recording = (this.#open = new Recording());
    try {
      await body();
    } finally {
      this.#open = undefined;
    }
    return recording.result(ticksPerSecond);
  }
}
