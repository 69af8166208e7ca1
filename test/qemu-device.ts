/**
 * A Device for NEON on any Linux machine: kernels are built by a cross compiler into a program of their own, which qemu runs on a memory image. Slow, for comparing
 * bits only; the product has no such device.
 */
import { createHash } from "node:crypto";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { asStored } from "../src/ir/bf16.js";
import { evaluateDim, type SizeBindings } from "../src/ir/dim.js";
import { dtypes, viewAs, type HostArray } from "../src/ir/dtype.js";
import type { StateDeclaration } from "../src/ir/graph.js";
import type { BufferReference, Program, SourceFile } from "../src/ir/kernel.js";
import type { CompiledGraph, Device, Executable, RunRequest, RunResult, StateBuffer } from "../src/runtime/device.js";
import { compilerFlags } from "../src/runtime/native/cpu.js";
import { panelColumns, panelElements } from "../src/runtime/native/panels.js";
import { ReferenceDevice } from "../src/runtime/reference/device.js";

const crossCompiler = "aarch64-linux-gnu-gcc";
const emulator = "qemu-aarch64";

/** Why there is no such device here; empty when there is. */
export const qemuMissing = [crossCompiler, emulator]
  .filter((tool) => spawnSync(tool, ["--version"]).status !== 0)
  .map((tool) => `no ${tool} here`)
  .join(", ");

const aligned = (bytes: number): number => Math.ceil(bytes / 64) * 64;

/** A State in the native device's layout. */
class ImageState implements StateBuffer {
  readonly shape: readonly number[];
  readonly memory: Uint8Array;

  constructor(
    readonly declaration: StateDeclaration,
    readonly sizes: SizeBindings,
  ) {
    this.shape = declaration.shape.map((dim) => evaluateDim(dim, sizes));
    // Kernels read whole vectors, so a little slack follows.
    this.memory = new Uint8Array(aligned(this.#elements() * dtypes[declaration.dtype].bytes) + 64);
  }

  get bytes(): number {
    return this.memory.byteLength;
  }

  #elements(): number {
    if (this.declaration.layout === "panels") return panelElements(this.shape[0] as number, this.shape[1] as number);
    return this.shape.reduce((a, b) => a * b, 1);
  }

  #view(): HostArray {
    return viewAs(this.declaration.dtype, this.memory.buffer as ArrayBuffer, 0, this.#elements());
  }

  write(values: HostArray): void {
    const stored = asStored(this.declaration.dtype, values);
    const target = this.#view();
    if (this.declaration.layout === "plain") return target.set(stored as never);
    const [rows, depth] = this.shape as [number, number];
    for (let row = 0; row < rows; row++)
      for (let k = 0; k < depth; k++)
        target[(Math.floor(row / panelColumns) * depth + k) * panelColumns + (row % panelColumns)] = stored[row * depth + k] as number;
  }

  read(): HostArray {
    return this.#view().slice();
  }

  free(): void {}
}

/** Reads a tape of launches and a memory image, runs the launches, writes the image back. */
const mainText = (symbols: readonly string[]): string => `#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
typedef void Kernel(char *const *, const int64_t *, int64_t, int64_t, char *);
${symbols.map((symbol) => `Kernel ${symbol};`).join("\n")}
static Kernel *const kernels[] = {${symbols.join(", ")}};
int main(int argc, char **argv) {
  FILE *in = fopen(argv[1], "rb");
  int64_t head[3];
  if (argc != 3 || !in || fread(head, 8, 3, in) != 3) return 2;
  int64_t *tape = malloc((size_t)head[0] * 8 + 8);
  char *image = aligned_alloc(64, (size_t)head[1]), *scratch = (char *)aligned_alloc(64, (size_t)head[2] + 64) + 64;
  if (fread(tape, 8, (size_t)head[0], in) != (size_t)head[0] || fread(image, 1, (size_t)head[1], in) != (size_t)head[1]) return 2;
  for (int64_t *at = tape; at < tape + head[0];) {
    Kernel *kernel = kernels[*at++];
    const int64_t units = *at++, count = *at++;
    char *pointers[64];
    for (int64_t i = 0; i < count; i++) pointers[i] = image + *at++;
    const int64_t numbers = *at++;
    ((int64_t *)scratch)[-1] = -1;
    kernel(pointers, at, 0, units, scratch);
    at += numbers;
  }
  FILE *out = fopen(argv[2], "wb");
  return out && fwrite(image, 1, (size_t)head[1], out) == (size_t)head[1] && fclose(out) == 0 ? 0 : 2;
}
`;

class QemuExecutable implements Executable {
  readonly counters = { kernels: 0, launches: 0, foreignCalls: 0, waits: 0, arenaBytes: 0, runs: 0 };
  readonly sources = [];

  constructor(
    private readonly folder: string,
    private readonly binary: string,
    private readonly symbols: readonly string[],
    private readonly program: Program,
  ) {}

  runSync({ inputs, states, sizes }: RunRequest): RunResult {
    const { program } = this;
    const places = new Map<string, number>();
    const parts: { at: number; bytes: Uint8Array }[] = [];
    let end = 0;
    const place = (key: string, bytes: Uint8Array): void => {
      places.set(key, end);
      parts.push({ at: end, bytes });
      end = aligned(end + bytes.byteLength + 64);
    };
    for (const { name } of program.inputs) place(`input ${name}`, bytesOf(inputs.get(name) as HostArray));
    for (const { name } of program.states) place(`state ${name}`, (states.get(name) as ImageState).memory);
    program.buffers.forEach(({ bytes }, index) => place(`value ${index}`, new Uint8Array(evaluateDim(bytes, sizes))));
    const offset = (reference: BufferReference): number =>
      places.get(`${reference.kind} ${reference.kind === "value" ? reference.buffer : reference.name}`) as number;
    const image = new Uint8Array(aligned(end + 64));
    for (const { at, bytes } of parts) image.set(bytes, at);
    const after = this.#emulate(this.#tape(sizes, offset), image, sizes);
    for (const { name } of program.states) {
      const { memory } = states.get(name) as ImageState;
      const at = offset({ kind: "state", name });
      memory.set(after.subarray(at, at + memory.byteLength));
    }
    return new Map(
      program.outputs.map(({ name, dtype, shape, source }) => {
        const length = shape.reduce<number>((total, dim) => total * evaluateDim(dim, sizes), 1);
        return [name, viewAs(dtype, after.buffer as ArrayBuffer, after.byteOffset + offset(source), length).slice()];
      }),
    );
  }

  #tape(sizes: SizeBindings, offset: (reference: BufferReference) => number): number[] {
    return this.program.launches.flatMap(({ symbol, units, pointers, numbers }) => [
      this.symbols.indexOf(symbol),
      Math.ceil(evaluateDim(units.dim, sizes) / units.divide) * evaluateDim(units.times, sizes),
      pointers.length,
      ...pointers.map(offset),
      numbers.length,
      ...numbers.map((dim) => evaluateDim(dim, sizes)),
    ]);
  }

  #emulate(tape: readonly number[], image: Uint8Array, sizes: SizeBindings): Uint8Array {
    const scratch = aligned(Math.max(64, ...this.program.launches.map(({ scratchBytes }) => evaluateDim(scratchBytes, sizes))));
    const words = BigInt64Array.from([tape.length, image.byteLength, scratch, ...tape], BigInt);
    const [before, after] = [join(this.folder, "before"), join(this.folder, "after")];
    writeFileSync(before, Buffer.concat([new Uint8Array(words.buffer), image]));
    const run = spawnSync(emulator, [this.binary, before, after], { encoding: "utf8" });
    if (run.status !== 0) throw new Error(`${emulator} ended with ${run.status ?? run.signal}: ${run.stderr}`);
    return new Uint8Array(readFileSync(after));
  }

  run(request: RunRequest): Promise<RunResult> {
    return Promise.resolve(this.runSync(request));
  }

  profile(): never {
    throw new Error("an emulated device has no times worth reading");
  }

  runWatched(): never {
    throw new Error("an emulated device runs whole programs only");
  }

  dispose(): void {}
}

const bytesOf = (values: HostArray): Uint8Array => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

export class QemuDevice implements Device {
  readonly name = "native";
  readonly target = "neon";
  readonly description = "NEON under qemu";
  readonly capabilities = { fma: true, f64: true, threads: 1 };
  readonly builds = { compiled: 0, cacheHits: 0, milliseconds: 0 };
  readonly allocatedBytes = 0;
  readonly #folder = mkdtempSync(join(tmpdir(), "tempograph-qemu-"));

  allocate(declaration: StateDeclaration, sizes: SizeBindings): StateBuffer {
    return new ImageState(declaration, sizes);
  }

  load(compiled: CompiledGraph): Promise<Executable> {
    return Promise.resolve(this.loadSync(compiled));
  }

  loadSync({ program }: CompiledGraph): Executable {
    const symbols = [...new Set(program.sources.flatMap((source) => source.symbols))];
    return new QemuExecutable(this.#folder, this.#build(program.sources, symbols), symbols, program);
  }

  /** One static program of all sources; equal sources are built once. */
  #build(sources: readonly SourceFile[], symbols: readonly string[]): string {
    const key = createHash("sha256")
      .update(sources.map(({ text }) => text).join("\n"))
      .digest("hex");
    const binary = join(this.#folder, key);
    if (existsSync(binary)) return binary;
    const files = [...sources.map(({ text }) => text), mainText(symbols)].map((text, index) => {
      const file = join(this.#folder, `${key}-${index}.c`);
      writeFileSync(file, text);
      return file;
    });
    const flags = compilerFlags("neon").filter((flag) => flag !== "-shared" && flag !== "-fPIC");
    const built = spawnSync(crossCompiler, [...flags, "-static", "-o", binary, ...files], { encoding: "utf8" });
    if (built.status !== 0) throw new Error(`${crossCompiler} failed: ${built.stderr}`);
    return binary;
  }

  /** What folds weights in models; not emulated. */
  multiplyF64(...parts: Parameters<Device["multiplyF64"]>): Float32Array {
    return new ReferenceDevice().multiplyF64(...parts);
  }

  dispose(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
