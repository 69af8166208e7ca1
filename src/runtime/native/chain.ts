/**
 * Runs of a program laid out one after the other: each has inputs and outputs of its own, so that one foreign call can make several, and an input may be the output of
 * the run before. They are a ring of two halves: one is filled and read while the other runs. What else a run computes lies where every run of the program has it. Must
 * not know when or on which thread they run.
 */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { HostArray } from "../../ir/dtype.js";
import type { BufferReference, Program, ProgramBuffer } from "../../ir/kernel.js";
import type { ChainLinks, RunRequest, RunResult } from "../device.js";
import type { NativeBuffer, NativeLibrary } from "./contract.js";
import { bytesOf, copyPlaces, fillPlaces, placeAt, type Place } from "./places.js";
import { writeStepTable, type AddressOf } from "./step-table.js";

const line = 64;

/** Work of the runs that go into half a chain, a byte of memory as much as eight flops: some 50 ms of two cores. Other forecasts wait for the end of two halves. */
const chainedWork = 1e10;
const longestChain = 32;

/** How many runs of a program go into half a chain: 1 where an output is a State's, which would not outlive the next run. */
export function runsTogether({ launches, outputs }: Program, sizes: SizeBindings): number {
  if (outputs.some(({ source }) => source.kind !== "value")) return 1;
  const work = launches.reduce((sum, { flops, bytes }) => sum + evaluateDim(flops, sizes) + 8 * evaluateDim(bytes, sizes), 0);
  return Math.max(1, Math.min(longestChain, Math.floor(chainedWork / work)));
}

/** What one run has to itself. */
interface Link {
  /** Those that are filled in; the others are outputs of the run before. */
  readonly inputs: readonly Place[];
  readonly outputs: readonly Place[];
  readonly address: AddressOf;
}

interface Half {
  readonly table: NativeBuffer;
  readonly links: readonly Link[];
}

/** Outputs of a run: as arrays, and where in the chain's memory the buffers behind them lie. */
interface Outputs {
  readonly places: readonly Place[];
  readonly buffers: ReadonlyMap<number, number>;
}

export interface ChainParts {
  readonly library: NativeLibrary;
  readonly program: Program;
  readonly entries: ReadonlyMap<string, number>;
  readonly sizes: SizeBindings;
  /** Where a run that stands alone finds everything. */
  readonly address: AddressOf;
}

export class NativeChain {
  readonly #memory: NativeBuffer;
  readonly #halves: readonly [Half, Half];
  readonly #inputBytes: readonly number[];
  readonly #outputBytes: readonly number[];

  /** Room for `length` runs in each half. */
  constructor(
    private readonly parts: ChainParts,
    readonly links: ChainLinks,
    readonly length: number,
  ) {
    const { library, program, sizes } = parts;
    const rounded = (bytes: number): number => Math.ceil(bytes / line) * line;
    this.#inputBytes = program.inputs.map((input) => rounded(bytesOf(input, sizes)));
    this.#outputBytes = program.outputs.map(({ source }) =>
      rounded(evaluateDim((program.buffers[source.kind === "value" ? source.buffer : 0] as ProgramBuffer).bytes, sizes)),
    );
    const runBytes = [...this.#inputBytes, ...this.#outputBytes].reduce((sum, bytes) => sum + bytes, 0);
    this.#memory = library.allocate(runBytes * length * 2 + line);
    const outputs = Array.from({ length: length * 2 }, (_, run) => this.#outputs(run * runBytes));
    const ring = outputs.map((own, run) => this.#link(own, outputs.at(run - 1) as Outputs, run * runBytes));
    this.#halves = [this.#half(ring.slice(0, length)), this.#half(ring.slice(length))];
  }

  #half(links: readonly Link[]): Half {
    const { library, program, entries, sizes } = this.parts;
    const addresses = links.map(({ address }) => address);
    return { table: writeStepTable(library, program.launches, entries, sizes, addresses), links };
  }

  #outputs(offset: number): Outputs {
    let at = this.#inputBytes.reduce((sum, bytes) => sum + bytes, offset);
    const buffers = new Map<number, number>();
    const places = this.parts.program.outputs.map((output, index): Place => {
      const { buffer } = output.source as BufferReference & { kind: "value" };
      if (!buffers.has(buffer)) buffers.set(buffer, at);
      at += this.#outputBytes[index] as number;
      return placeAt(output, this.parts.sizes, this.#memory.view, buffers.get(buffer) as number);
    });
    return { places, buffers };
  }

  #link({ places, buffers }: Outputs, before: Outputs, offset: number): Link {
    const { program, sizes, address } = this.parts;
    let at = offset;
    const inputs = new Map<string, number>();
    const filled: Place[] = [];
    program.inputs.forEach((input, index) => {
      const source = this.links.get(input.name);
      const place = source === undefined ? at : placeOf(before.places, source).values.byteOffset;
      if (source === undefined) filled.push(placeAt(input, sizes, this.#memory.view, place));
      inputs.set(input.name, place);
      at += this.#inputBytes[index] as number;
    });
    const own = (reference: BufferReference): number | undefined =>
      reference.kind === "input" ? inputs.get(reference.name) : reference.kind === "value" ? buffers.get(reference.buffer) : undefined;
    return {
      inputs: filled,
      outputs: places,
      address: (reference) => {
        const place = own(reference);
        return place === undefined ? address(reference) : this.#memory.address + place;
      },
    };
  }

  /** What the first run of half 0 takes from a run before: to where that would have left it. Nothing of the chain may be running. */
  begin({ inputs }: RunRequest): void {
    const { outputs } = this.#halves[1].links.at(-1) as Link;
    for (const [input, output] of this.links) placeOf(outputs, output).values.set(inputs.get(input) as HostArray);
  }

  /** Puts the inputs of run `run` of a half in place. The half must not be running. */
  fill(half: 0 | 1, run: number, request: RunRequest): void {
    fillPlaces((this.#halves[half].links[run] as Link).inputs, request, this.parts.program.name);
  }

  tableOf(half: 0 | 1): NativeBuffer {
    return this.#halves[half].table;
  }

  /** Results of the first `count` runs of a half. */
  results(half: 0 | 1, count: number): RunResult[] {
    return this.#halves[half].links.slice(0, count).map(({ outputs }) => copyPlaces(outputs));
  }

  free(): void {
    for (const { table } of this.#halves) table.free();
    this.#memory.free();
  }
}

const placeOf = (places: readonly Place[], name: string): Place => places.find((place) => place.name === name) as Place;
