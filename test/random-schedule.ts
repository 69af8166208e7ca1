/** Draws schedules from the whole vocabulary, not only those a search would try. Holds no cases. */
import { usualContractionSchedule } from "../src/codegen/schedule.js";
import type { Kernel } from "../src/ir/kernel.js";
import type { ContractionSchedule, KernelSchedule } from "../src/ir/schedule.js";
import type { ChooseSchedule } from "../src/passes/schedule-kernels.js";
import type { Device } from "../src/runtime/device.js";
import { generator } from "./graph-harness.js";

type Tile = Pick<ContractionSchedule, "tileRows" | "tileColumns" | "prefetchBytes">;

const columns: Record<Device["target"], readonly number[]> = { avx512: [48, 16], avx2: [48, 24, 16, 8], neon: [48, 16], plain: [48, 16] };

/** A source of schedules; few tiles, because every one of them costs compile time. */
export class RandomSchedules {
  readonly #random: () => number;
  readonly #tiles: readonly Tile[];
  /** Schedules drawn so far. */
  readonly drawn: KernelSchedule[] = [];

  constructor(
    seed: number,
    private readonly target: Device["target"],
    tiles = 3,
  ) {
    this.#random = generator(seed);
    this.#tiles = Array.from({ length: tiles }, () => ({
      tileRows: this.#pick([1, 2, 3, 4, 5, 6, 7, 8, 9, 12]),
      tileColumns: this.#pick(columns[target]),
      prefetchBytes: this.#pick([0, 4096, 8192, 16384, 1 << 20]),
    }));
  }

  #pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.#random() * list.length)] as T;
  }

  readonly choose: ChooseSchedule = (kernel: Kernel) => {
    const schedule = this.#draw(kernel);
    if (schedule) this.drawn.push(schedule);
    return schedule;
  };

  #draw(kernel: Kernel): KernelSchedule | undefined {
    const grain = this.#pick([1, 2, 3, 16, 1000]);
    if (kernel.kind === "rows") return { kind: "rows", grain };
    if (kernel.kind !== "contraction") return undefined;
    return {
      ...usualContractionSchedule(kernel.depth, false, this.target),
      ...this.#pick(this.#tiles),
      prologue: this.#pick(["fused", "separate"]),
      blockRows: this.#pick([1, 6, 8, 9, 24, 40, 64, 255, 256, 512]),
      inner: this.#pick(["panels", "rows"]),
      grain,
      chunkDepth: this.#pick([0, 64, 96, 512, 1024, 2048]),
      panelsTogether: this.#pick([1, 2, 3, 8, 16]),
    };
  }
}
