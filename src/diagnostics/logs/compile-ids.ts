/**
 * Bookkeeping of compile ids: which recompiles a cut log has lost, when the first run ended, and events logged twice by one process.
 */
import { FURTHER, detached } from "./counter.js";
import type { Flavour } from "./events.js";

/** Ids remembered per process; a process with more has other problems. */
const MOST_IDS = 20_000;
const MOST_MISSING = 200;

interface ProcessIds {
  last: string;
  readonly frames: Set<string>;
  /** Recompiles seen, by frame. */
  readonly recompiles: Map<string, Set<number>>;
  /** Recompiles counted, and of those the ones before the last frame appeared. */
  count: number;
  firstRun: number;
}

export class CompileIds {
  private readonly processes = new Map<string, ProcessIds>();

  /** Notes a compile id on any line. A new frame means that the first run still goes on. */
  seen(process: string, compileId: string): void {
    const ids = this.of(process);
    if (ids.last === compileId) return;
    ids.last = detached(compileId);
    const frame = frameOf(compileId);
    if (ids.frames.has(frame) || ids.frames.size >= MOST_IDS) return;
    ids.frames.add(detached(frame));
    ids.firstRun = ids.count;
  }

  recompiled(process: string, compileId: string | undefined): void {
    if (compileId !== undefined) this.seen(process, compileId);
    const ids = this.of(process);
    ids.count += 1;
    const number = compileId === undefined ? NaN : Number(compileId.slice(compileId.lastIndexOf("/") + 1));
    if (compileId === undefined || !Number.isInteger(number)) return;
    const frame = frameOf(compileId);
    const numbers = ids.recompiles.get(frame) ?? new Set<number>();
    if (ids.recompiles.has(frame) || ids.recompiles.size < MOST_IDS) ids.recompiles.set(detached(frame), numbers);
    if (numbers.size < MOST_IDS) numbers.add(number);
  }

  names(): string[] {
    return [...this.processes.keys()];
  }

  phases(): { firstRun: number; steady: number } {
    let firstRun = 0;
    let steady = 0;
    for (const ids of this.processes.values()) {
      firstRun += ids.firstRun;
      steady += ids.count - ids.firstRun;
    }
    return { firstRun, steady };
  }

  /** Ids below the highest recompile of a frame without a record of their own: "3/4", behind the process when there are several. */
  missing(): string[] {
    const missing: string[] = [];
    for (const [process, ids] of this.processes) {
      for (const [frame, numbers] of ids.recompiles) {
        const highest = Math.max(...numbers);
        for (let number = 1; number < highest && missing.length < MOST_MISSING; number += 1) {
          if (!numbers.has(number)) missing.push(`${this.processes.size > 1 ? `${process} ` : ""}${frame}/${number}`);
        }
      }
    }
    return missing;
  }

  private of(process: string): ProcessIds {
    const known = this.processes.has(process) ? process : this.processes.size < MOST_IDS ? detached(process) : FURTHER;
    let ids = this.processes.get(known);
    if (ids === undefined) {
      ids = { last: "", frames: new Set(), recompiles: new Map(), count: 0, firstRun: 0 };
      this.processes.set(known, ids);
    }
    return ids;
  }
}

/** Recognises one event that a process wrote to its text log and to its structured trace. */
export class TwiceLogged {
  private readonly seen = new Map<string, { text: number; trace: number }>();

  /** True when the event is new: the other kind of log has not shown as many of it. */
  isNew(flavour: Flavour, key: string): boolean {
    if (flavour === "own") return true;
    const counts = this.seen.get(key) ?? { text: 0, trace: 0 };
    if (this.seen.size < MOST_IDS) this.seen.set(key, counts);
    const before = Math.max(counts.text, counts.trace);
    counts[flavour] += 1;
    return counts[flavour] > before;
  }
}

function frameOf(compileId: string): string {
  return compileId.slice(0, Math.max(compileId.lastIndexOf("/"), 0));
}
