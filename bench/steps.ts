/** What one step of a decoding loop costs outside its kernels while everything stays in the caches and workers spin: a chain of small contractions, thousands of times. */
import { compile, linear, Tensor } from "../src/tensor/index.js";
import { openDevice, State } from "../src/trace/entry.js";
import { median } from "./measure.js";

/** A chain whose weights fit the second-level caches; one row. */
const [width, links, steps, rounds] = [256, 24, 500, 9] as const;

export interface StepCost {
  readonly threads: number;
  readonly launches: number;
  /** Time in kernels per step, waits for other threads included, in microseconds. */
  readonly kernelsUs: number;
  /** Per step, outside kernels; medians of rounds. */
  readonly blockingUs: number;
  readonly offLoopUs: number;
}

/** Work of a step is below what is handed to the dispatcher: off the event loop it runs inline, with turns of the loop in between. */
export async function measureSteps(threads: number): Promise<StepCost> {
  const { device } = openDevice("native", { threads });
  if (!device.record) throw new Error(`${device.description} cannot record where runs spend their time`);
  const weights = Array.from({ length: links }, (_, index) => {
    const state = new State(device, `weight${index}`, [width, width], "f32", { kind: "constant", layout: "panels" });
    state.write(new Float32Array(width * width).fill(1 / width));
    return state;
  });
  const chain = compile((x: Tensor, all: readonly State[]) => all.reduce((value, weight) => linear(value, weight), x), {
    device,
    mode: "reduce-overhead",
    name: "steps",
  });
  const x = Tensor.from(new Float32Array(width).fill(1), [1, width]);
  const blocking = (): void => void chain(x, weights);
  const offLoop = async (): Promise<void> => void (await chain.run([x, weights]));
  const outside: Record<"blocking" | "offLoop", number[]> = { blocking: [], offLoop: [] };
  const kernels: number[] = [];
  for (let round = 0; round < rounds; round++) {
    for (const [kind, step] of [["blocking", blocking] as const, ["offLoop", offLoop] as const]) {
      const recorded = await device.record(async () => {
        for (let n = 0; n < steps; n++) await step();
      });
      const inKernels = recorded.kernels.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
      outside[kind].push(((recorded.milliseconds - inKernels) / steps) * 1000);
      kernels.push((inKernels / steps) * 1000);
    }
  }
  chain.dispose();
  for (const weight of weights) weight.dispose();
  return { threads, launches: links, kernelsUs: median(kernels), blockingUs: median(outside.blocking), offLoopUs: median(outside.offLoop) };
}
