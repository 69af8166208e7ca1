/** What a search tells those who listen to the stream `schedule`: that it begins, each family that it has decided, choices it takes back, and how it ends. */
import { scheduleDifference } from "../../ir/schedule.js";
import { emitEvent } from "../events.js";
import type { FamilyOutcome } from "./steps.js";

export class SearchEvents {
  #done = 0;
  #tried = 0;

  /** Of the search of one function for one class of sizes. */
  constructor(
    private readonly name: string,
    private readonly shape: string,
  ) {}

  #emit(fields: Record<string, string | number>): void {
    emitEvent({ stream: "schedule", function: this.name, fields: { shape: this.shape, ...fields } });
  }

  /** `budget` in seconds. */
  begins(families: number, budget: number): void {
    this.#emit({ search: "begins", families, budget });
  }

  decided({ family, schedule, gain, tried }: FamilyOutcome, of: number, seconds: number): void {
    this.#tried += tried;
    this.#emit({
      done: ++this.#done,
      of,
      kernel: family.symbol,
      schedule: scheduleDifference(schedule, family.usual) || "usual",
      saved: `${(100 * gain).toFixed(1)}%`,
      candidates: this.#tried,
      seconds: Number(seconds.toFixed(2)),
    });
  }

  dropped({ family, schedule }: FamilyOutcome): void {
    this.#emit({
      kernel: family.symbol,
      dropped: scheduleDifference(schedule, family.usual),
      because: "not faster between the other kernels",
    });
  }

  ends(chosen: number, candidates: number, seconds: number, kept: boolean): void {
    this.#emit({ search: "ends", chosen, candidates, seconds, kept: String(kept) });
  }
}
