/** Programs made ahead of time: what identifies one, and hearing of every one that is made. Must not know how they are kept. */
import { createHash } from "node:crypto";
import { printGraph, type Graph } from "../ir/graph.js";
import type { Program } from "../ir/kernel.js";
import { printProgramJson } from "../ir/serialise.js";
import type { BundledProgram } from "../runtime/device.js";

/** Equal keys mean equal programs: the traced graph, whether it is fused, what it is rendered for, and the class of sizes whose schedules it has, if any. */
export function programKey(traced: Graph, fused: boolean, target: string, shapeClass = ""): string {
  const kind = `${fused ? "fused" : "eager"} ${target}${shapeClass === "" ? "" : ` scheduled for ${shapeClass}`}`;
  return createHash("sha256")
    .update(`tempograph-program-2 ${kind}\n${printGraph(traced)}`)
    .digest("hex")
    .slice(0, 40);
}

export type ProgramListener = (key: string, program: BundledProgram) => void;

const listeners = new Set<ProgramListener>();

/** Hears every program that is lowered from now on, until the returned function is called. */
export function onProgram(listener: ProgramListener): () => void {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

export const isHeard = (): boolean => listeners.size > 0;

export function announceProgram(key: string, program: Program): void {
  const made = { name: program.name, text: printProgramJson(program), sources: program.sources };
  for (const listener of listeners) listener(key, made);
}
