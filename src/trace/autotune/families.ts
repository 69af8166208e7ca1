/**
 * Kernel families of a program: launches that are the same kernel at the same sizes, whose schedule may be searched. A kernel that touches a mutable State is never one,
 * so that a search has no side effects. Must not know how candidates are found or measured.
 */
import { evaluateDim, type Dim, type SizeBindings } from "../../ir/dim.js";
import type { KernelLaunch, Program } from "../../ir/kernel.js";
import type { KernelSchedule } from "../../ir/schedule.js";

export interface KernelFamily {
  /** The usual kernel's symbol, which holds a hash of its text, and the sizes it is launched with. */
  readonly key: string;
  readonly symbol: string;
  /** Label of the first member. */
  readonly label: string;
  readonly usual: KernelSchedule;
  /** Positions of the launches in the program, and of the kernels they are rendered from. */
  readonly members: readonly number[];
}

export const familyKey = (launch: KernelLaunch): string => `${launch.symbol}(${launch.numbers.map(String).join(",")})`;

/** In the order of their first launch in `program`, whose kernels all have their usual schedule. */
export function familiesOf(program: Program): KernelFamily[] {
  const mutable = new Set(program.states.filter(({ kind }) => kind === "mutable").map(({ name }) => name));
  const families = new Map<string, KernelFamily & { members: number[] }>();
  program.launches.forEach((launch, index) => {
    const { schedule, symbol, label } = launch;
    if (!schedule || launch.pointers.some((pointer) => pointer.kind === "state" && mutable.has(pointer.name))) return;
    const key = familyKey(launch);
    const family = families.get(key);
    if (family) family.members.push(index);
    else families.set(key, { key, symbol, label, usual: schedule, members: [index] });
  });
  return [...families.values()];
}

const variablesOf = (dim: Dim): readonly string[] => (typeof dim === "number" ? [] : dim.terms.flatMap(({ variables }) => variables));

/** Names of the sizes that the work of a program's families depends on. */
export function sizesThatMatter(program: Program, families: readonly KernelFamily[]): string[] {
  const launches = families.map(({ members }) => program.launches[members[0] as number] as KernelLaunch);
  return [...new Set(launches.flatMap(({ units }) => [...variablesOf(units.dim), ...variablesOf(units.times)]))].sort();
}

/** Largest size of a class: the smallest power of two that is no smaller; 0 stays 0. */
export const classBound = (value: number): number => (value <= 0 ? 0 : 2 ** Math.ceil(Math.log2(value)));

/**
 * The class of sizes that share schedules: each size that matters rounded up to a power of two, such as `rows=256 tokens=2048`; "fixed" when none does. Sizes
 * beside each other in a class do nearly the same work, and a class is met again in the next process.
 */
export function shapeClassOf(names: readonly string[], sizes: SizeBindings): string {
  return names.map((name) => `${name}=${classBound(sizes[name] ?? 0)}`).join(" ") || "fixed";
}

/** Useful work of a launch at these sizes, in multiply-adds and bytes. */
export function workOf(launch: KernelLaunch, sizes: SizeBindings): { readonly flops: number; readonly bytes: number } {
  return { flops: evaluateDim(launch.flops, sizes), bytes: evaluateDim(launch.bytes, sizes) };
}

/** Bytes of a program's values. */
export function bytesOf({ inputs, buffers }: Program, sizes: SizeBindings): number {
  const elements = inputs.reduce((sum, { shape }) => sum + shape.reduce<number>((total, dim) => total * evaluateDim(dim, sizes), 1), 0);
  return 4 * elements + buffers.reduce((sum, { bytes }) => sum + evaluateDim(bytes, sizes), 0);
}
