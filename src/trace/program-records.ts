/**
 * Lowered programs as records of a device: a later process that traces the same graph has its program without fusing or rendering anything. What a record holds
 * is bound to the text of the compiler that made it. Must not know how graphs are lowered.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Graph } from "../ir/graph.js";
import type { Program } from "../ir/kernel.js";
import { readProgramJson } from "../ir/serialise.js";
import type { Device } from "../runtime/device.js";

/** Smaller graphs are lowered sooner than found. */
const fewestNodes = 32;

/** Everything that decides what a graph becomes, beside the graph itself. */
const compilerFolders = ["../ir", "../passes", "../codegen"];

let fingerprint: string | undefined;

/** A hash of the compiler's own files: another compiler makes other programs. Throws when they are not files. */
function compilerFingerprint(): string {
  if (fingerprint !== undefined) return fingerprint;
  const hash = createHash("sha256");
  const add = (file: string): void => void hash.update(`${file}\n`).update(readFileSync(file));
  for (const folder of compilerFolders) {
    const root = fileURLToPath(new URL(folder, import.meta.url));
    const files = readdirSync(root, { recursive: true, encoding: "utf8" }).filter((file) => /(?<!\.d)\.[jt]s$/.test(file));
    for (const file of files.sort()) add(join(root, file));
  }
  add(fileURLToPath(new URL(import.meta.url.endsWith(".ts") ? "lower.ts" : "lower.js", import.meta.url)));
  return (fingerprint = hash.digest("hex"));
}

/** The place of one graph's program among a device's records. */
export class ProgramRecord {
  readonly #name: string;
  readonly #key: string;

  private constructor(
    private readonly records: NonNullable<Device["records"]>,
    name: string,
    programKey: string,
  ) {
    this.#name = `program_${name.replace(/[^\w.-]+/g, "_")}`;
    // One hash of both: a record is found by the first digits of its key.
    this.#key = createHash("sha256").update(`${programKey} ${compilerFingerprint()}`).digest("hex");
  }

  /** Undefined where nothing is kept: no records, a graph of a few nodes, or a compiler that is not made of files. */
  static of({ name, nodes }: Graph, device: Device, programKey: () => string): ProgramRecord | undefined {
    if (!device.records || nodes.length < fewestNodes) return undefined;
    try {
      return new ProgramRecord(device.records, name, programKey());
    } catch (error) {
      if (error instanceof Error && "code" in error) return undefined;
      throw error;
    }
  }

  find(): Program | undefined {
    const text = this.records.find(this.#name, this.#key);
    return text === undefined ? undefined : readProgramJson(text);
  }

  /** Never fails: a program that cannot be kept is only made again. */
  add(program: Program): void {
    this.records.add(this.#name, this.#key, JSON.stringify(program));
  }
}
