/** How long the search of one compiled function may take. */

/** In seconds, over all its classes of sizes; building candidates counts. */
const usualSeconds = 10;

/** `TEMPOGRAPH_AUTOTUNE_SECONDS`, 0 = never search; an unusable value counts as unset, as the settings table has refused it already. */
export function autotuneSeconds(): number {
  const text = process.env["TEMPOGRAPH_AUTOTUNE_SECONDS"]?.trim() ?? "";
  const seconds = text === "" ? Number.NaN : Number(text);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds : usualSeconds;
}

/** Share of a search's time for the search itself; the rest is for confirming what it chose. */
export const searchShare = 0.8;
