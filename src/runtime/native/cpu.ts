/**
 * Which instruction set the generated C may use on this machine, and the compiler flags that go with it.
 * Knows the CPU and `TEMPOGRAPH_ISA`; must not know compilers, kernels or caches.
 */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Isa } from "./contract.js";
import { NativeError } from "./errors.js";

export interface Cpu {
  /** Instruction set to generate for. */
  readonly isa: Isa;
  /** The features that decide the choice, sorted and comma-separated: part of every artifact key. */
  readonly features: string;
}

/** CPU features each instruction set needs, as /proc/cpuinfo spells them. */
const required: Record<Isa, readonly string[]> = {
  avx512: ["avx512bw", "avx512dq", "avx512f", "avx512vl", "fma"],
  avx2: ["avx2", "fma"],
  neon: ["asimd"],
  plain: [],
};

/** CPU features that code for `isa` needs. */
export const requiredFeatures = (isa: Isa): readonly string[] => required[isa];

const widestFirst = Object.keys(required) as readonly Isa[];

/** Explicit feature flags, never -march=native: the artifact must run wherever its key says it does. */
const isaFlags: Record<Isa, readonly string[]> = {
  avx512: ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
  avx2: ["-mavx2", "-mfma"],
  neon: [],
  plain: [],
};

const commonFlags = ["-g1", "-fPIC", "-shared", "-std=gnu11", "-fno-fast-math", "-ffp-contract=off", "-fno-math-errno"];

/** Every compiler flag of a kernel file for `isa`; equal numerics on every one of them is the point of the last three common ones. */
export function compilerFlags(isa: Isa): readonly string[] {
  return ["-O2", ...commonFlags, ...isaFlags[isa]];
}

/** The same of the runtime: its loops are as fast with less optimisation, and whoever opens a device the first time waits for its compiler. */
export function runtimeFlags(isa: Isa): readonly string[] {
  return ["-O1", ...commonFlags, ...isaFlags[isa]];
}

function featuresFromCpuinfo(text: string): readonly string[] {
  const line = /^(?:flags|Features)\s*:(.*)$/m.exec(text)?.[1] ?? "";
  return line.trim().split(/\s+/);
}

/** macOS on Intel names features in capitals and with a dot or without, so both lists are folded to the Linux spelling. */
function featuresFromSysctl(): readonly string[] {
  const answer = spawnSync("sysctl", ["-n", "machdep.cpu.features", "machdep.cpu.leaf7_features"], { encoding: "utf8" });
  return (answer.stdout ?? "").toLowerCase().replaceAll(".", "_").split(/\s+/);
}

/** Features of this CPU that matter to any instruction set; empty when the system does not tell. */
export function cpuFeatures(): ReadonlySet<string> {
  if (process.arch === "arm64") return new Set(["asimd"]);
  if (process.arch !== "x64") return new Set();
  let all: readonly string[];
  try {
    all = process.platform === "darwin" ? featuresFromSysctl() : featuresFromCpuinfo(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return new Set();
  }
  const relevant = new Set(Object.values(required).flat());
  return new Set(all.filter((feature) => relevant.has(feature)));
}

function isIsa(name: string): name is Isa {
  return Object.hasOwn(required, name);
}

/**
 * Chooses the widest instruction set the CPU has, or checks the one asked for: `requested`, the value of `TEMPOGRAPH_ISA` when set.
 * Throws `isa-unsupported` when the name is unknown or the CPU lacks a feature it needs.
 */
export function selectCpu(requested: string | undefined, features: ReadonlySet<string> = cpuFeatures()): Cpu {
  const featureText = [...features].sort().join(",");
  if (requested === undefined || requested === "") {
    const isa = widestFirst.find((name) => required[name].every((feature) => features.has(feature))) ?? "plain";
    return { isa, features: featureText };
  }
  if (!isIsa(requested)) {
    throw new NativeError("isa-unsupported", `TEMPOGRAPH_ISA is "${requested}"; it must be one of ${widestFirst.join(", ")}, or unset.`);
  }
  const missing = required[requested].filter((feature) => !features.has(feature));
  if (missing.length > 0) {
    const best = selectCpu(undefined, features).isa;
    throw new NativeError(
      "isa-unsupported",
      `TEMPOGRAPH_ISA asks for "${requested}", but this CPU lacks ${missing.join(", ")}; the widest it has is "${best}". Unset the variable.`,
    );
  }
  return { isa: requested, features: featureText };
}

/** Cores worth of time a container's limit allows, from cgroup v2's `cpu.max` ("200000 100000"); undefined when there is no limit. */
export function coresOfQuota(cpuMax: string): number | undefined {
  const [quota = NaN, period = NaN] = cpuMax.trim().split(/\s+/).map(Number);
  return quota > 0 && period > 0 ? Math.max(1, Math.ceil(quota / period)) : undefined;
}

/** Cores this process may keep busy: those it may be scheduled on, and no more than its container's limit pays for. */
export function usableCores(): number {
  try {
    return Math.min(availableParallelism(), coresOfQuota(readFileSync("/sys/fs/cgroup/cpu.max", "utf8")) ?? Infinity);
  } catch {
    return availableParallelism();
  }
}
