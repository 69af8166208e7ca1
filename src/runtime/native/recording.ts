/** Adds up where runs of a device spend their time while a recording is open. Must not know how a run is made. */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { Program } from "../../ir/kernel.js";
import type { RecordedKernel, RecordedRuns } from "../device.js";
import { stepLayout } from "./contract.js";

/** One finished run: its step table holds the cycles of each launch. */
export interface FinishedRun {
  readonly program: Program;
  readonly table: ArrayBuffer;
  readonly sizes: SizeBindings;
  readonly foreignCalls: number;
  /** From the request to the answers, in ms. */
  readonly milliseconds: number;
}

class Recording {
  readonly #kernels = new Map<string, { kernel: Omit<RecordedKernel, "launches" | "milliseconds">; launches: number; ticks: number }>();
  #runs = 0;
  #foreignCalls = 0;
  #milliseconds = 0;

  add({ program, table, sizes, foreignCalls, milliseconds }: FinishedRun): void {
    this.#runs++;
    this.#foreignCalls += foreignCalls;
    this.#milliseconds += milliseconds;
    const steps = new BigInt64Array(table, 0, (program.launches.length * stepLayout.bytes) / 8);
    program.launches.forEach((launch, index) => {
      const kernel = {
        program: program.name,
        symbol: launch.symbol,
        label: launch.label,
        flops: evaluateDim(launch.flops, sizes),
        bytes: evaluateDim(launch.bytes, sizes),
      };
      const key = `${kernel.program} ${kernel.symbol} ${kernel.flops} ${kernel.bytes}`;
      const sum = this.#kernels.get(key) ?? { kernel, launches: 0, ticks: 0 };
      sum.launches++;
      sum.ticks += Number(steps[(index * stepLayout.bytes + stepLayout.cycles) / 8] ?? 0n);
      this.#kernels.set(key, sum);
    });
  }

  result(ticksPerSecond: number): RecordedRuns {
    const kernels = [...this.#kernels.values()].map(({ kernel, launches, ticks }) => ({
      ...kernel,
      launches,
      milliseconds: (ticks / ticksPerSecond) * 1000,
    }));
    kernels.sort((a, b) => b.milliseconds - a.milliseconds);
    return { runs: this.#runs, foreignCalls: this.#foreignCalls, milliseconds: this.#milliseconds, kernels };
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
