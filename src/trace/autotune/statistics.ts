/** When one series of timings is better than another: medians, and the spread around them. Must not know what was timed. */

function quantile(sorted: readonly number[], share: number): number {
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] as number, sorted[Math.ceil(at)] as number];
  return low + (high - low) * (at - Math.floor(at));
}

const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

export const median = (values: readonly number[]): number => quantile(ascending(values), 0.5);

/** Half the distance between the quartiles. */
export function spread(values: readonly number[]): number {
  const sorted = ascending(values);
  return (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 2;
}

/** Least share by which a schedule must be faster to be worth another kernel. */
const leastGain = 0.02;

/** Share of the usual time that `candidate` saves when that is more than the spread of both; 0 otherwise. */
export function gainBeyondSpread(usual: readonly number[], candidate: readonly number[]): number {
  const [before, after] = [median(usual), median(candidate)];
  const saved = before - after;
  return saved > spread(usual) + spread(candidate) && saved > leastGain * before ? saved / before : 0;
}

/** Share of the rounds that the faster of two must win. */
const mostRounds = 2 / 3;

/** Whether `candidate` took less time than `usual` in most of the same rounds: what slows a machine for a while slows both. */
export function fasterInTurns(usual: readonly number[], candidate: readonly number[]): boolean {
  const won = candidate.filter((time, round) => time < (usual[round] as number)).length;
  return won > 0 && won >= mostRounds * candidate.length;
}
