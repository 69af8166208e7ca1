/**
 * Timestamps as text for people: ISO 8601 shortened to what the series needs.
 */
import type { Timestamp } from "../forecast/calendar.js";

/** A formatter for stamps of one series: dates alone when every stamp is midnight, minutes unless seconds matter, the offset left out. */
export function stampFormat(stamps: readonly Timestamp[]): (stamp: Timestamp) => string {
  const times = stamps.map((stamp) =>
    typeof stamp === "string" ? (/T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?/.exec(stamp) ?? undefined) : undefined,
  );
  const onlyDates = times.every((time) => time === undefined || (time[1] === "00:00" && /^(:00(\.0+)?)?$/.test(time[2] ?? "")));
  const withSeconds = times.some((time) => time?.[2] !== undefined && !/^:00(\.0+)?$/.test(time[2]));
  return (stamp) => {
    if (typeof stamp === "number") return String(stamp);
    const match = /^(.*?)T(\d\d:\d\d)(:\d\d(?:\.\d+)?)?/.exec(stamp);
    if (match === null || onlyDates) return match?.[1] ?? stamp;
    return `${match[1]} ${match[2]}${withSeconds ? (match[3] ?? "") : ""}`;
  };
}
