/** The line that a terminal shows while schedules are searched. */
import { expect, onTestFinished, test } from "vitest";
import { showSearches } from "../src/cli/search-progress.js";
import { emitEvent } from "../src/trace/events.js";
import type { CliContext } from "../src/cli/context.js";

function shown(errorTerminal: boolean): string {
  let text = "";
  const context = { errorTerminal, writeError: (part: string) => void (text += part) } as unknown as CliContext;
  const stop = showSearches(context);
  onTestFinished(stop);
  const say = (fields: Record<string, string | number>): void => emitEvent({ stream: "schedule", function: "decode", fields });
  say({ shape: "rows=4", search: "begins", families: 5, budget: 9.2 });
  say({ shape: "rows=4", done: 1, of: 3, kernel: "linear", schedule: "usual", candidates: 7, seconds: 1.5 });
  emitEvent({ stream: "compiles", function: "decode", fields: { mode: "default" } });
  say({ shape: "rows=4", search: "ends", chosen: 0, candidates: 7, seconds: 2 });
  stop();
  say({ shape: "rows=8", search: "begins", families: 5, budget: 1 });
  return text;
}

test("names the function, the sizes and how far it is, and is gone at the end", () => {
  const clear = "\r\u001b[K";
  expect(shown(true).split(clear)).toEqual([
    "",
    "decode (rows=4): looking for schedules of 5 kernels, at most 10 s",
    "decode (rows=4): schedules, kernel 1 of 3, 7 tried, 1.5 s",
    "",
  ]);
});

test("shows nothing where standard error is no terminal", () => expect(shown(false)).toBe(""));
