/** docs/performance.md from results. Says what was measured, where it falls short and by how much; nothing in it is written by hand. */
import type { StepCost } from "../steps.js";
import type { Curve } from "../curves.js";
import type { Result } from "../measure.js";
import type { Workload } from "../workload.js";
import { aims } from "./aims.js";
import type { Results } from "./results.js";

const milliseconds = (value: number): string => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));
const percent = (value: number): string => `${(100 * value).toFixed(0)}%`;
const times = (value: number): string => `${value.toFixed(2)}x`;
const best = ({ rawMs }: { readonly rawMs: readonly number[] }): number => Math.min(...rawMs);

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map((_, index) => (index === 0 ? "---" : "---:"))), ...rows.map(line)].join("\n");
}

const peerOf = ({ peers }: Result): Result["peers"][string] | undefined => Object.values(peers)[0];

const comparesModes = ({ results }: Results["files"][number]): boolean => new Set(results.map(({ mode }) => mode)).size > 1;

/** The mode that a user gets by default; the main tables show it. */
const mainMode = "reduce-overhead";

function aimText({ workload, shareOfLimit, medianMs, peers, threads }: Result, most: number): string {
  const aim = aims[workload];
  if (!aim) return "";
  const peer = Object.values(peers)[0];
  const parts: string[] = [];
  const verdict = (met: boolean): string => (met ? "met" : "short");
  if (aim.share !== undefined && (threads === most || aim.peer === undefined))
    parts.push(`${percent(aim.share)} ${verdict(shareOfLimit >= aim.share)}`);
  if (aim.peer !== undefined && peer) parts.push(`${times(aim.peer)} ${verdict(peer.medianMs / medianMs >= aim.peer)}`);
  return parts.join(", ");
}

function workloadTable(results: readonly Result[], workloads: readonly Workload[], most: number): string {
  const main = results.filter(({ mode }) => mode === mainMode);
  const rows = workloads.flatMap(({ name }) =>
    main
      .filter(({ workload }) => workload === name)
      .sort((a, b) => b.threads - a.threads)
      .map((result) => {
        const peer = peerOf(result);
        return [
          name,
          String(result.threads),
          percent(result.shareOfLimit),
          percent(result.bestLimitMs / best(result)),
          peer ? times(peer.medianMs / result.medianMs) : "",
          aimText(result, most),
          milliseconds(result.medianMs),
          milliseconds(result.limitMs),
          peer ? milliseconds(peer.medianMs) : "",
          String(result.recompiles),
        ];
      }),
  );
  return table(
    ["workload", "threads", "share of limit", "best run", "peer / ours", "aim", "median ms", "limit ms", "peer ms", "recompiles"],
    rows,
  );
}

const taskList = (workloads: readonly Workload[], results: readonly Result[]): string =>
  workloads
    .filter(({ name }) => results.some(({ workload }) => workload === name))
    .map(({ name, task }) => `- \`${name}\`: ${task}`)
    .join("\n");

/** Modes are compared within one run only. */
function modeTable(files: Results["files"], modes: readonly string[]): string {
  const groups = new Map<string, Result[]>();
  for (const result of files.filter(comparesModes).flatMap(({ results }) => results)) {
    const key = `${result.workload}, ${result.threads} ${result.threads === 1 ? "thread" : "threads"}`;
    groups.set(key, [...(groups.get(key) ?? []), result]);
  }
  if (groups.size === 0) return "Not measured.";
  const rows = [...groups].map(([key, group]) => [
    key,
    ...modes.map((mode) => {
      const one = group.find((result) => result.mode === mode);
      return one ? `${milliseconds(one.medianMs)} (${milliseconds(best(one))})` : "";
    }),
  ]);
  return table(["workload", ...modes], rows);
}

/** Loops whose data stays in the caches; beside weights that stream through them every object a call touches comes from memory. */
function stepText(steps: readonly StepCost[]): string {
  if (steps.length === 0) return "";
  const row = ({ threads, launches, kernelsUs, blockingUs, offLoopUs }: StepCost): string[] => {
    return [String(threads), String(launches), kernelsUs.toFixed(0), blockingUs.toFixed(1), offLoopUs.toFixed(1)];
  };
  return `

A loop whose weights stay in the caches, thousands of steps one after the other, so that workers spin: microseconds per step. In the workloads above, whose weights stream through the
caches, the same calls cost more, because the objects they touch come from memory again.

${table(["threads", "launches", "in kernels", "outside, blocking", "outside, off the event loop"], steps.map(row))}`;
}

function overheadTable(results: readonly Result[], most: number): string {
  const rows = results
    .filter(({ mode, threads }) => mode === mainMode && threads === most)
    .map(({ workload, profile, medianMs, handOverMs }) => [
      workload,
      String(profile.programRuns),
      String(profile.foreignCalls),
      profile.outsideKernelsMicrosecondsPerProgramRun.toFixed(0),
      `${((100 * (profile.outsideKernelsMs + profile.outsideProgramsMs)) / medianMs).toFixed(1)}%`,
      handOverMs === undefined ? "" : (handOverMs * 1000).toFixed(0),
    ]);
  return table(
    ["workload", "program runs", "foreign calls", "outside kernels, us per program run", "all outside kernels", "hand-over, us"],
    rows,
  );
}

/** Kernels of what falls short, with their share of what they could do. */
function gaps(results: readonly Result[], most: number): string {
  const short = results.filter(({ workload, mode, threads, shareOfLimit }) => {
    const share = aims[workload]?.share;
    return mode === mainMode && threads === most && share !== undefined && shareOfLimit < share;
  });
  if (short.length === 0) return "Every workload with an aimed share reaches it.";
  return short
    .map(({ workload, shareOfLimit, profile }) => {
      const rows = profile.kernels
        .slice(0, 5)
        .map(({ kernel, share, launches, milliseconds: spent, limitMs }) => [
          `\`${kernel}\``,
          percent(share),
          String(launches),
          milliseconds(spent),
          limitMs > 0 ? percent(limitMs / spent) : "not counted",
        ]);
      return `### ${workload}: ${percent(shareOfLimit)} of its limit\n\n${table(["kernel", "of kernel time", "launches", "ms", "share of its limit"], rows)}`;
    })
    .join("\n\n");
}

function startSection({ start }: Results): string {
  if (!start) return "Not measured.";
  const row = (name: string, one: NonNullable<Results["start"]>["cold"]): string[] => [
    name,
    milliseconds(one.compileMs),
    milliseconds(one.firstForecastExtraMs),
    milliseconds(one.deviceMs),
    String(one.kernelsCompiled),
    String(one.cacheHits),
  ];
  const verdict = (value: number, aim: number): string =>
    `${milliseconds(value)} ms for an aim of ${aim} ms: ${value <= aim ? "met" : "short"}`;
  return `${table(
    ["start", "compile ms", "first forecast, longer by ms", "open the device ms", "kernels compiled", "from the cache"],
    [row("cold", start.cold), row("warm", start.warm)],
  )}\n\nCold compile: ${verdict(start.cold.compileMs, 3000)}. Warm start: ${verdict(start.warm.deviceMs + start.warm.compileMs, 300)} (device and compile).`;
}

const pictureList = (curves: readonly Curve[]): string =>
  curves.length === 0 ? "Not measured." : curves.map(({ name, title }) => `![${title}](performance/${name}.svg)`).join("\n\n");

/** How far apart the first and the last quarter of the generated candles are. */
function candleText(curves: readonly Curve[]): string {
  const points = curves.find(({ name }) => name === "candles")?.lines[0]?.points;
  if (!points) return "";
  const quarter = Math.floor(points.length / 4);
  const middle = (part: readonly (readonly [number, number])[]): number =>
    part.map(([, y]) => y).sort((a, b) => a - b)[Math.floor(part.length / 2)] as number;
  const ratio = middle(points.slice(-quarter)) / middle(points.slice(0, quarter));
  return `\n\nThe last quarter of the generated candles costs ${times(ratio)} the first quarter with a cache.`;
}

export function performancePage(
  current: Results,
  others: readonly { readonly title: string; readonly results: Results }[],
  workloads: readonly Workload[],
  modes: readonly string[],
): string {
  const [file] = current.files;
  // Files that compare modes repeat workloads that others measure.
  const results = current.files.filter((one) => !comparesModes(one)).flatMap((one) => one.results);
  const { machine, versions } = file as NonNullable<typeof file>;
  const allVersions = Object.assign({}, ...current.files.map((one) => one.versions)) as Record<string, string>;
  const most = Math.max(...results.map(({ threads }) => threads));
  const limitRows = current.files.flatMap(({ limits }) => Object.entries(limits.threads));
  const peak = (threads: string, pick: "fmaGflops" | "streamGBs"): string =>
    Math.max(...limitRows.filter(([name]) => name === threads).map(([, limit]) => limit[pick])).toFixed(pick === "fmaGflops" ? 0 : 1);
  const threadCounts = [...new Set(limitRows.map(([threads]) => threads))].sort();
  const sections = [
    `# Performance

Written by \`npm run bench:report\` from [bench/results](../bench/results); every figure comes from there. Ratios travel between machines, milliseconds do not.

Machine: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.isa}; Node ${versions["node"]}${allVersions["onnxruntime-node"] ? `, onnxruntime-node ${allVersions["onnxruntime-node"]}` : ""}. It is a shared virtual machine: medians
carry what its neighbours did, so the share of the best run stands beside that of the median. Measured limits: ${threadCounts
      .map(
        (threads) =>
          `${peak(threads, "fmaGflops")} GFLOP/s and ${peak(threads, "streamGBs")} GB/s with ${threads} ${threads === "1" ? "thread" : "threads"}`,
      )
      .join(", ")}.

**Limit.** One pass through a network's weights can be no faster than its useful arithmetic at the measured fma peak, nor than reading its weights and cached keys and values once at
the measured stream bandwidth (that of the faster of two loops: one stream with prefetches, two streams without); a run's limit is the sum over its passes ([bench/workload.ts](../bench/workload.ts)). Both figures are medians of runs of some 10 ms that take turns with the timed ones, and the share of the
limit is that of medians; the share of the best run is that of the best figures of the whole bench run. Runs of less than 200 ms are timed after an untimed one, as in a loop. Element-wise work, norms, softmax and draws are not counted, so 100% cannot be
reached. **Peer** is onnxruntime-node on the same graph in the same run, taking turns; both must have computed the same numbers first.${results.some((result) => peerOf(result)) ? "" : " No peer was measured for this page."}`,
    `## Workloads

Mode \`${mainMode}\`, the default.

${workloadTable(results, workloads, most)}

${taskList(workloads, results)}`,
    `## Modes

Median (best) milliseconds. All modes give the same bits. Eager runs the same kernels, one op per call.

${modeTable(current.files, modes)}`,
    `## Outside kernels

"Outside kernels" is time inside the runs of compiled programs that no kernel spends: arguments in, the foreign call, answers out. Runs above about 50 Mflop leave the event loop free, and
what the hand-over to the dispatcher thread and back costs then is stated for the workloads that can also run blocking. "All outside kernels" adds checks and layout in JavaScript.

${overheadTable(results, most)}${stepText(current.steps)}`,
    `## Compiling

Both Toto 1.0 programs at full size (mean decode), in a fresh process: cold with an empty artifact cache, warm with a filled one. Weights are not counted.

${startSection(current)}`,
    `## How cost grows

${pictureList(current.curves)}${candleText(current.curves)}`,
    `## What is still between us and the limit

The kernels that take most of the time, for every workload below its aim, with ${most} threads. A kernel's limit is that of its contractions alone; waits at a barrier count for the kernel behind it.

${gaps(results, most)}`,
    ...others.map(({ title, results: { results: theirs } }) => `## ${title}\n\n${workloadTable(theirs, workloads, most)}`),
  ];
  return `${sections.join("\n\n")}\n`;
}
