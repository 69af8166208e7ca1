/**
 * A progress bar on standard error: only on a terminal, only for work that takes longer than a second, gone when the work is done.
 */
import type { CliContext } from "./context.js";
import { duration } from "./numbers.js";

const PATIENCE_MILLISECONDS = 1000;
const REDRAW_MILLISECONDS = 100;
const WIDTH = 24;

export interface Progress {
  /** `unit` writes done and total, for example as bytes; absent: the share alone. */
  update(done: number, total: number, unit?: (count: number) => string): void;
  /** Removes the bar. */
  end(): void;
}

export function startProgress(context: CliContext, what: string, quiet = false): Progress {
  if (quiet || context.errorTerminal !== true) return { update: () => undefined, end: () => undefined };
  const started = performance.now();
  let drawnAt = 0;
  return {
    update(done, total, unit) {
      const now = performance.now();
      if (now - started < PATIENCE_MILLISECONDS || (now - drawnAt < REDRAW_MILLISECONDS && done < total)) return;
      drawnAt = now;
      const share = total === 0 ? 1 : Math.min(1, done / total);
      const filled = Math.round(share * WIDTH);
      const left = share > 0 ? `, about ${duration(((now - started) * (1 - share)) / share)} left` : "";
      context.writeError(
        `\r\u001b[K${what} [${"#".repeat(filled)}${"-".repeat(WIDTH - filled)}] ${Math.round(share * 100)}%${unit === undefined ? "" : ` of ${unit(total)}`}${left}`,
      );
    },
    end() {
      if (drawnAt > 0) context.writeError("\r\u001b[K");
    },
  };
}
