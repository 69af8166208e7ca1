/**
 * Several runs of a program laid out one after the other: each has inputs and outputs of its own, so that one foreign call can make them all, and an input may be the
 * output of the run before. What else a run computes lies where every run of the program has it. Must not know when or on which thread they run.
 */
import { evaluateDim, type SizeBindings } from "../../ir/dim.js";
import type { BufferReference, Program, ProgramBuffer } from "../../ir/kernel.js";
import type { ChainLinks, RunRequest, RunResult } from "../device.js";
import type { NativeBuffer, NativeLibrary } from "./contract.js";
import { bytesOf, copyPlaces, fillPlaces, placeAt, type Place } from "./places.js";
import { writeStepTable, type AddressOf } from "./step-table.js";

const line = 64;

/** Work of the runs that go into one chain, a byte of memory as much as eight flops: some 50 ms of two cores. Other forecasts wait for its end. */
const chainedWork = 1e10;
const longestChain = 32;

/** How many runs of a program go into one chain: 1 where an output is a State's, which would not outlive the next run. */
export function runsTogether({ launches, outputs }: Program, sizes: SizeBindings): number {
  if (outputs.some(({ source }) => source.kind !== "value")) return 1;
  const work = launches.reduce((sum, { flops, bytes }) => sum + evaluateDim(flops, sizes) + 8 * evaluateDim(bytes, sizes), 0);
  return Math.max(1, Math.min(longestChain, Math.floor(chainedWork / work)));
}

/** What one run of the chain has to itself. */
interface Link {
  /** Those that are filled in; the others are outputs of the run before. */
  readonly inputs: readonly Place[];
  readonly outputs: readonly Place[];
  readonly address: AddressOf;
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
  readonly table: NativeBuffer;
  readonly #memory: NativeBuffer;
  readonly #links: readonly Link[] = [];
  readonly #program: Program;

  /** Room for `length` runs. */
  constructor(
    parts: ChainParts,
    readonly links: ChainLinks,
    length: number,
  ) {
    const { library, program, entries, sizes } = parts;
    this.#program = program;
    const rounded = (bytes: number): number => Math.ceil(bytes / line) * line;
    const inputBytes = program.inputs.map((input) => rounded(bytesOf(input, sizes)));
    const outputBytes = program.outputs.map(({ source }) =>
      rounded(evaluateDim((program.buffers[source.kind === "value" ? source.buffer : 0] as ProgramBuffer).bytes, sizes)),
    );
    const runBytes = [...inputBytes, ...outputBytes].reduce((sum, bytes) => sum + bytes, 0);
    this.#memory = library.allocate(runBytes * length + line);
    const made: Link[] = [];
    for (let run = 0; run < length; run++) made.push(this.#link(parts, made[run - 1], run * runBytes, inputBytes, outputBytes));
    this.#links = made;
    this.table = writeStepTable(
      library,
      program.launches,
      entries,
      sizes,
      made.map(({ address }) => address),
    );
  }

  #link(
    { program, sizes, address }: ChainParts,
    before: Link | undefined,
    offset: number,
    inputBytes: number[],
    outputBytes: number[],
  ): Link {
    const memory = this.#memory;
    let at = offset;
    const next = (bytes: number): number => (at += bytes) - bytes;
    const inputs = new Map<string, number>();
    const filled: Place[] = [];
    program.inputs.forEach((input, index) => {
      const place = next(inputBytes[index] as number);
      const source = before && this.links.get(input.name);
      inputs.set(input.name, source ? (before.outputs.find(({ name }) => name === source) as Place).values.byteOffset : place);
      if (!source) filled.push(placeAt(input, sizes, memory.view, place));
    });
    const buffers = new Map<number, number>();
    const outputs = program.outputs.map((output, index): Place => {
      const { buffer } = output.source as BufferReference & { kind: "value" };
      const place = next(outputBytes[index] as number);
      if (!buffers.has(buffer)) buffers.set(buffer, place);
      return placeAt(output, sizes, memory.view, buffers.get(buffer) as number);
    });
    const own = (reference: BufferReference): number | undefined =>
      reference.kind === "input" ? inputs.get(reference.name) : reference.kind === "value" ? buffers.get(reference.buffer) : undefined;
    return {
      inputs: filled,
      outputs,
      address: (reference) => {
        const place = own(reference);
        return place === undefined ? address(reference) : memory.address + place;
      },
    };
  }

  /** Puts the inputs of as many runs in place as there are requests, at most those there is room for. */
  fill(requests: readonly RunRequest[]): void {
    requests.forEach((request, run) => fillPlaces((this.#links[run] as Link).inputs, request, this.#program.name));
  }

  /** Results of the first `count` runs. */
  results(count: number): RunResult[] {
    return this.#links.slice(0, count).map(({ outputs }) => copyPlaces(outputs));
  }

  free(): void {
    this.table.free();
    this.#memory.free();
  }
}
