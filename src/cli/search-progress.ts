/**
 * One line on standard error while mode max-autotune searches for schedules: only on a terminal, gone when the search ends. Must not know what a schedule is.
 */
import { onEvent } from "../index.js";
import type { CliContext } from "./context.js";

/** Shows searches until the returned function is called. */
export function showSearches(context: CliContext): () => void {
  if (context.errorTerminal !== true) return () => undefined;
  return onEvent(({ stream, function: name, fields }) => {
    if (stream !== "schedule") return;
    const { shape, search, done, of, candidates, seconds, families, budget } = fields;
    if (search === "begins")
      context.writeError(
        `\r\u001b[K${name} (${shape}): looking for schedules of ${families} kernels, at most ${Math.ceil(Number(budget))} s`,
      );
    else if (search === "ends") context.writeError("\r\u001b[K");
    else if (done !== undefined)
      context.writeError(`\r\u001b[K${name} (${shape}): schedules, kernel ${done} of ${of}, ${candidates} tried, ${seconds} s`);
  });
}
