/** Measures one workload on a number of threads, in several modes that take turns: first runs, timed runs with the limits before each, and profiled runs. */
import type { Mode } from "../src/trace/entry.js";
import type { LimitMeter, Limits } from "./limits.js";
import { profileOf, type RunProfile } from "./profile.js";
import { limitMs, totalBytes, totalGflop, type Session, type Workload } from "./workload.js";

export interface PeerResult {
  readonly medianMs: number;
  readonly rawMs: readonly number[];
  /** Largest difference of the outputs, over the largest value: both must have computed the same. */
  readonly relativeDifference: number;
}

export interface Result {
  readonly workload: string;
  readonly mode: Mode;
  readonly threads: number;
  readonly medianMs: number;
  readonly rawMs: readonly number[];
  readonly firstMs: number;
  /** By the medians of the limits that were measured in turn with the runs: a neighbour that takes part of the machine takes it from both. */
  readonly limitMs: number;
  /** `limitMs` over `medianMs`. */
  readonly shareOfLimit: number;
  /** By the best limits of the whole bench run, for comparison with the best run. */
  readonly bestLimitMs: number;
  readonly recompiles: number;
  readonly usefulGflop: number;
  readonly usefulBytes: number;
  /** Inside the runs of compiled programs but outside kernels; see the profile. */
  readonly outsideKernelsMs: number;
  /** Time outside kernels of a run with the event loop free minus that of a blocking one, where a workload has both: the hand-over to the dispatcher and back. */
  readonly handOverMs?: number;
  readonly profile: RunProfile;
  readonly peers: Readonly<Record<string, PeerResult>>;
}

/** Another engine that computes the workload's function. */
export interface Peer {
  readonly name: string;
  run(): Promise<void>;
  /** Largest difference from ours, over the largest value. */
  relativeDifference(session: Session): number;
  dispose(): Promise<void>;
}

export const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

export async function timed(body: () => Promise<void> | void): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

/**
 * Ours in every mode and the peers take turns, and who begins a round alternates. The limits are measured right before every run, so that all see the same state of a shared
 * machine, and so that all begin at the clock that work brings about: after a rest processors run at half of it for some 20 ms.
 */
async function rounds(
  repeat: number,
  meter: LimitMeter,
  threads: number,
  bodies: readonly (() => Promise<void> | void)[],
): Promise<{ readonly times: readonly (readonly number[])[]; readonly limits: Limits }> {
  const times = bodies.map((): number[] => []);
  const measured: Limits[] = [];
  for (let round = 0; round < repeat; round++) {
    const order = [...bodies.keys()];
    for (const index of round % 2 === 0 ? order : order.reverse()) {
      await rest(bodies.length);
      measured.push(meter.measure(threads));
      const [body, before] = [bodies[index] as () => Promise<void> | void, times[index] as number[]];
      if ((before.at(-1) ?? 0) < shortMilliseconds) await body();
      before.push(await timed(body));
    }
  }
  const limits = {
    fmaGflops: median(measured.map(({ fmaGflops }) => fmaGflops)),
    streamGBs: median(measured.map(({ streamGBs }) => streamGBs)),
  };
  return { times, limits };
}

/** One result per mode. */
export async function measure(
  workload: Workload,
  modes: readonly Mode[],
  threads: number,
  repeat: number,
  meter: LimitMeter,
  peers: readonly Peer[],
): Promise<readonly Result[]> {
  const sessions: Session[] = [];
  try {
    const firstMs: number[] = [];
    for (const mode of modes) {
      const session = workload.open(mode, threads);
      sessions.push(session);
      firstMs.push(await timed(() => session.run()));
    }
    const differences = await comparePeers(workload.name, sessions[0] as Session, peers);
    const bodies = [...sessions, ...peers].map((engine) => () => engine.run());
    const { times, limits } = await rounds(repeat, meter, threads, bodies);
    const peerResults = Object.fromEntries(
      peers.map(({ name }, index) => {
        const raw = times[sessions.length + index] as number[];
        return [name, { medianMs: median(raw), rawMs: raw, relativeDifference: differences[index] as number }];
      }),
    );
    const results: Result[] = [];
    for (const [index, session] of sessions.entries()) {
      const [mode, rawMs, first] = [modes[index] as Mode, times[index] as number[], firstMs[index] as number];
      const costs = await costsOf(workload, session, rawMs, limits, repeat);
      const bestLimitMs = limitMs(workload.passes, meter.best(threads));
      results.push({ workload: workload.name, mode, threads, firstMs: first, rawMs, ...costs, bestLimitMs, peers: peerResults });
    }
    return results;
  } finally {
    for (const session of sessions) session.dispose();
  }
}

type Costs = Omit<Result, "workload" | "mode" | "threads" | "firstMs" | "rawMs" | "bestLimitMs" | "peers">;

async function costsOf(workload: Workload, session: Session, rawMs: readonly number[], limits: Limits, repeat: number): Promise<Costs> {
  const [medianMs, allowed] = [median(rawMs), limitMs(workload.passes, limits)];
  const recordings = Math.max(1, Math.min(repeat, 5, Math.floor(mostProfiledMs / medianMs)));
  const profile = await profiled(session, () => session.run(), limits, recordings);
  return {
    medianMs,
    limitMs: allowed,
    shareOfLimit: allowed / medianMs,
    recompiles: session.recompiles(),
    usefulGflop: totalGflop(workload.passes),
    usefulBytes: totalBytes(workload.passes),
    outsideKernelsMs: profile.outsideKernelsMs,
    ...(await handOver(session, profile, limits, recordings)),
    profile,
  };
}

/** Measuring the limits empties the caches; shorter runs are timed after an untimed one, as in a loop of them. */
const shortMilliseconds = 200;

/** Threads of the engine that ran before spin for a while; beside each other engines begin when they have gone to sleep. */
const rest = (engines: number): Promise<void> =>
  engines === 1 ? Promise.resolve() : new Promise((resolve) => setTimeout(resolve, restMilliseconds));
const restMilliseconds = 100;

/** Rounding differs between engines, nothing else may. */
const agreed = 1e-3;

async function comparePeers(name: string, session: Session, peers: readonly Peer[]): Promise<number[]> {
  const differences: number[] = [];
  for (const peer of peers) {
    await peer.run();
    const difference = peer.relativeDifference(session);
    if (!(difference <= agreed)) throw new Error(`${name}: ${peer.name} computes something else, relative difference ${difference}`);
    differences.push(difference);
  }
  return differences;
}

/** Recorded runs of a long workload together take no longer than this. */
const mostProfiledMs = 3000;

/** The run whose time outside kernels is the median of some recorded ones. */
async function profiled(session: Session, run: () => Promise<void> | void, limits: Limits, recordings: number): Promise<RunProfile> {
  const { device } = session;
  if (!device.record) throw new Error(`${device.description} cannot record where runs spend their time`);
  const profiles: RunProfile[] = [];
  for (let round = 0; round < recordings; round++) {
    let wholeMs = 0;
    const recorded = await device.record(async () => void (wholeMs = await timed(run)));
    profiles.push(profileOf(recorded, wholeMs, limits));
  }
  profiles.sort((a, b) => a.outsideKernelsMs - b.outsideKernelsMs);
  return profiles[Math.floor(profiles.length / 2)] as RunProfile;
}

async function handOver(session: Session, blocking: RunProfile, limits: Limits, recordings: number): Promise<{ handOverMs?: number }> {
  const { runOffLoop } = session;
  if (!runOffLoop) return {};
  const free = await profiled(session, runOffLoop, limits, recordings);
  return { handOverMs: free.outsideKernelsMs - blocking.outsideKernelsMs };
}
