/**
 * `tempograph inspect MODEL`: runs one small forecast and shows what the engine made of the model: programs, kernels, memory, compile time, guards, breaks, generated
 * source, and with --profile where the time goes.
 */
import { InputError } from "../forecast/errors.js";
import { resolveSettings } from "../forecast/resolve-settings.js";
import type { SettingName } from "../forecast/settings.js";
import type { Forecaster, ForecastReport, ModelInspection, SeriesInput } from "../index.js";
import type { CliContext } from "./context.js";
import { bytes, duration } from "./numbers.js";
import { checkLine } from "./present.js";
import { settingFlags } from "./setting-flags.js";
import { renderTable } from "./table.js";

export interface InspectFlags extends Partial<Record<SettingName, string>> {
  profile?: boolean;
  json?: boolean;
}

type Program = ModelInspection["programs"][number];

const DEFAULT_CONTEXT = 512;
const DEFAULT_HORIZON = 96;

/** A daily wave by the hour, or candles that follow it. */
export function exampleSeries(takes: Forecaster["takes"], length: number): SeriesInput {
  const wave = Array.from({ length }, (_, step) => 100 + 10 * Math.sin((2 * Math.PI * step) / 24) + 3 * Math.sin(step * step));
  const timestamps = wave.map((_, step) => new Date(Date.UTC(2024, 0, 1, step)));
  if (takes === "series") return { values: wave, timestamps, id: "example" };
  const open = wave.map((value, step) => wave[step - 1] ?? value);
  return {
    columns: {
      open,
      high: wave.map((close, step) => Math.max(close, open[step] as number) + 1),
      low: wave.map((close, step) => Math.min(close, open[step] as number) - 1),
      close: wave,
      volume: wave.map((value) => 50 + value),
    },
    timestamps,
    id: "example",
  };
}

/** Time per label, slowest first. */
interface LabelShare {
  readonly label: string;
  readonly launches: number;
  readonly milliseconds: number;
  readonly share: number;
  readonly flops: number;
  readonly bytes: number;
}

function labelShares(profile: NonNullable<Program["profile"]>): LabelShare[] {
  const total = profile.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const labels = new Map<string, { launches: number; milliseconds: number; flops: number; bytes: number }>();
  for (const { label, milliseconds, flops, bytes: moved } of profile) {
    const sum = labels.get(label) ?? { launches: 0, milliseconds: 0, flops: 0, bytes: 0 };
    labels.set(label, {
      launches: sum.launches + 1,
      milliseconds: sum.milliseconds + milliseconds,
      flops: sum.flops + flops,
      bytes: sum.bytes + moved,
    });
  }
  return [...labels]
    .map(([label, sum]) => ({ label, ...sum, share: total > 0 ? sum.milliseconds / total : 0 }))
    .sort((a, b) => b.milliseconds - a.milliseconds);
}

export async function runInspect(reference: string | undefined, flags: InspectFlags, context: CliContext): Promise<number> {
  const given = settingFlags({ ...flags, ...(reference === undefined ? {} : { model: reference }) });
  const { values } = resolveSettings({ flags: given, environment: context.environment, folder: context.folder });
  const forecaster = await context.load(values.model, {
    device: values.device,
    mode: values.mode,
    kvCache: values.kvCache,
    weights: values.weights,
    ...(values.threads === undefined ? {} : { threads: values.threads }),
  });
  try {
    const length = values.context ?? DEFAULT_CONTEXT;
    const horizon = values.horizon ?? DEFAULT_HORIZON;
    const forecast = await forecaster.predict(exampleSeries(forecaster.takes, length), {
      horizon,
      context: length,
      seed: values.seed,
      signal: context.signal,
      ...(values.samples === undefined ? {} : { samples: values.samples }),
    });
    const inspection = await forecaster.inspect({ profile: flags.profile ?? false });
    if (!inspection) throw new InputError("not-inspectable", `${values.model} has no compiled programs to inspect`);
    const { report } = forecast;
    if (flags.json)
      context.writeOut(`${JSON.stringify(asJson(values.model, forecaster, { context: length, horizon }, report, inspection), null, 2)}\n`);
    else context.writeOut(asText(values.model, forecaster, { context: length, horizon }, report, inspection));
    return 0;
  } finally {
    forecaster.dispose();
  }
}

interface Asked {
  readonly context: number;
  readonly horizon: number;
}

function asJson(model: string, forecaster: Forecaster, asked: Asked, report: ForecastReport, inspection: ModelInspection): unknown {
  return {
    model,
    family: forecaster.family,
    request: asked,
    report,
    device: inspection.device,
    programs: inspection.programs.map(({ profile, ...program }) => ({
      ...program,
      ...(profile
        ? {
            profile: {
              milliseconds: profile.reduce((sum, launch) => sum + launch.milliseconds, 0),
              labels: labelShares(profile),
              launches: profile,
            },
          }
        : {}),
    })),
  };
}

function asText(model: string, forecaster: Forecaster, asked: Asked, report: ForecastReport, inspection: ModelInspection): string {
  const { device, programs } = inspection;
  const lines = [
    `${model} (${forecaster.family}), one forecast of ${asked.horizon} steps from ${asked.context}, ${report.mode}, kv cache ${report.kvCache}, weights ${report.weights}`,
    `device      ${device.description}`,
    `memory      ${bytes(device.allocatedBytes)} on the device: weights, caches, arenas`,
    `kernels     ${device.kernelsCompiled} compiled, ${device.cacheHits} from the artifact cache, ${duration(device.buildMilliseconds)}`,
    `forecast    ${report.compiles} compiles, ${report.recompiles} recompiles, ${report.graphBreaks} graph breaks, ${report.fallbacks} fallbacks, ${report.capturedSteps} of ${report.steps} steps captured`,
    ...(report.check ? [checkLine(report.check)] : []),
    "",
    programTable(programs),
  ];
  for (const program of programs) lines.push("", ...programLines(program));
  return `${lines.join("\n")}\n`;
}

const PROGRAM_COLUMNS = [
  "program",
  "graphs",
  "nodes",
  "kernels",
  "launches",
  "calls",
  "foreign calls",
  "arena",
  "weights",
  "states",
  "trace",
  "lower",
  "build",
  "search",
];

function programTable(programs: readonly Program[]): string {
  const rows = programs.map((program) => {
    const { specializations, brokenSegments: cut, milliseconds } = program;
    const most = (pick: (one: Program["specializations"][number]) => number): number => Math.max(0, ...specializations.map(pick));
    const sum = (pick: (one: Program["specializations"][number]) => number): number =>
      specializations.reduce((total, one) => total + pick(one), 0);
    return [
      program.name,
      String(specializations.reduce((total, one) => total + one.segments, cut.count)),
      String(sum(({ nodes }) => nodes)),
      String(sum(({ kernels }) => kernels) + cut.kernels),
      String(sum(({ launches }) => launches) + cut.launches),
      String(program.calls),
      String(program.foreignCalls),
      bytes(sum(({ arenaBytes }) => arenaBytes) + cut.arenaBytes),
      bytes(most(({ constantBytes }) => constantBytes)),
      bytes(most(({ mutableBytes }) => mutableBytes)),
      duration(milliseconds.trace),
      duration(milliseconds.lower),
      duration(milliseconds.build),
      duration(milliseconds.search),
    ];
  });
  return renderTable(
    PROGRAM_COLUMNS.map((title, index) => ({ title, align: index === 0 ? "left" : "right" })),
    rows,
  );
}

function programLines(program: Program): string[] {
  const lines = [
    `${program.name}: ${program.compiles} compiles, ${program.recompiles} recompiles, ${program.graphBreaks} graph breaks, ${program.fallbacks} fallbacks`,
  ];
  for (const [guard, count] of Object.entries(program.recompilesByGuard)) lines.push(`  recompiled ${count}x by ${guard}`);
  for (const [location, count] of Object.entries(program.breaksByLocation)) lines.push(`  broken ${count}x at ${location}`);
  for (const schedule of program.specializations.flatMap((one) => one.schedules)) lines.push(...scheduleLines(schedule));
  const sources = [...program.specializations, program.brokenSegments].flatMap((one) => one.sources);
  const paths = new Set(sources.flatMap(({ path }) => (path === undefined ? [] : [path])));
  for (const path of paths) lines.push(`  source ${path}`);
  if (program.profile) lines.push(profileTable(labelShares(program.profile)));
  return lines;
}

type Schedule = Program["specializations"][number]["schedules"][number];

/** Where a class of sizes has its schedules from, and each kernel that does not have the usual one. */
function scheduleLines({ shape, source, reason, candidates, seconds, kernels }: Schedule): string[] {
  const changed = kernels.filter(({ schedule }) => schedule !== "usual");
  const from = {
    search: `searched now: ${candidates} candidates in ${duration(1000 * seconds)}`,
    cache: "from the artifact cache, no search",
    bundle: "from the bundle",
    usual: `usual, because ${reason ?? "nothing better is known"}`,
  }[source];
  return [
    `  schedules for ${shape}: ${from}; ${changed.length} of ${kernels.length} kernels changed`,
    ...changed.map(
      ({ kernel, launches, schedule, gain }) =>
        `    ${kernel} (${launches} ${launches === 1 ? "launch" : "launches"}): ${schedule}${gain === undefined ? "" : `, ${(100 * gain).toFixed(1)}% less time`}`,
    ),
  ];
}

function profileTable(labels: readonly LabelShare[]): string {
  const rate = (amount: number, milliseconds: number): string =>
    amount > 0 && milliseconds > 0 ? (amount / milliseconds / 1e6).toFixed(1) : "";
  const columns = ["label", "launches", "time", "share", "Mflop", "GFLOP/s", "moved", "GB/s"];
  return renderTable(
    columns.map((title, index) => ({ title, align: index === 0 ? "left" : "right" })),
    labels.map((one) => [
      one.label,
      String(one.launches),
      `${one.milliseconds.toFixed(3)} ms`,
      `${(100 * one.share).toFixed(1)}%`,
      one.flops > 0 ? (one.flops / 1e6).toFixed(2) : "",
      rate(one.flops, one.milliseconds),
      one.bytes > 0 ? bytes(one.bytes) : "",
      rate(one.bytes, one.milliseconds),
    ]),
  );
}
