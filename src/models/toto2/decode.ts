/**
 * Decoding with Toto 2.0 (model-spec B.8): one compiled pass per round. A single pass predicts all patches at once; block decoding feeds medians back and keeps
 * keys and values of context and fed patches, while those of prediction tokens are overwritten by the next round.
 */
import { compile, Tensor, type Compiled, type RotaryTables } from "../../tensor/index.js";
import { size, State, type CheckSetting, type Mode, type Stance } from "../../trace/entry.js";
import { sizeVar } from "../../ir/dim.js";
import { momentColumns } from "../../ir/ops/routines.js";
import { KeyValueCache } from "../../nn/key-value-cache.js";
import { decayTable, rotaryTables } from "../../nn/rotary.js";
import type { Device } from "../../runtime/device.js";
import { InputError } from "../input-error.js";
import type { Toto2Config } from "./config.js";
import { Toto2Network, type Toto2Answer, type Toto2Inputs, type Toto2Variant } from "./forward.js";
import type { Corrections, LayoutOptions, Round } from "./layout.js";
import { RoundInputsCache, type RoundInputs } from "./round-inputs.js";
import { SampleStore, type Entry, type SampleMemory } from "./samples.js";
import { quantileLevels, type Toto2Weights } from "./weights.js";

export interface Toto2DecoderOptions {
  readonly device: Device;
  readonly mode: Mode;
  /** A stance for its programs alone, asked for at each call; undefined = the process-wide one. */
  readonly stance?: () => Stance | undefined;
  /** Keep every tapped value of each round. */
  readonly taps: boolean;
  readonly check?: CheckSetting | undefined;
}

/** One chunk of work: entries with equal V and E. */
export interface Toto2DecodeRequest {
  readonly entries: readonly Entry[];
  /** Variates of each entry, covariates included. */
  readonly variates: number;
  readonly covariates: number;
  /** Patches to predict, n. */
  readonly futurePatches: number;
  /** Patches per round; 0 or more than there are = a single pass. */
  readonly blockPatches: number;
  readonly hasMissingValues: boolean;
  /** Observed samples that statistics need before they count; 0 = off. */
  readonly fallbackMinimum: number;
  /** Scales beyond the observed range that a forecast may reach; 0 = no limit. */
  readonly capScales: number;
  readonly corrections?: Partial<Corrections>;
  readonly signal?: AbortSignal | undefined;
  readonly onRound?: (round: number, rounds: number, taps: ReadonlyMap<string, Tensor>) => void;
}

type Pass = Compiled<[Toto2Inputs], Toto2Answer>;

interface Rotary {
  readonly tables: RotaryTables;
  readonly reach: number;
}

/** Positions of the published tables: patches of context and horizon together. */
export const maximumPositions = 8192;

/** Rows of the largest multiplier table: either centre rule runs the same compiled program. */
const mostDecays = 2 * maximumPositions + 1;

/** Samples of a store whose memory serves the next one. */
const mostKeptSamples = 1 << 18;

const medianIndex = quantileLevels.indexOf(0.5);

export class Toto2Decoder {
  readonly #programs = new Map<string, Pass>();
  readonly #cache: KeyValueCache;
  readonly #rotary = new Map<boolean, Rotary>();
  readonly #rounds = new RoundInputsCache();
  #memory: SampleMemory | undefined;
  readonly #needed = lastMade((minimum: number) => Tensor.from(Int32Array.of(minimum), [1]));
  readonly #reach = lastMade((scales: number) => Tensor.from(Float32Array.of(-scales, scales), [2]));
  #moments: { readonly state: State; readonly rows: number } | undefined;

  constructor(
    private readonly config: Toto2Config,
    private readonly weights: Toto2Weights,
    private readonly options: Toto2DecoderOptions,
  ) {
    const { kinds, keyHeads, queryWidth, valueWidth } = config;
    this.#cache = new KeyValueCache(options.device, "cache", {
      layers: kinds.filter((kind) => kind === "time").length,
      heads: keyHeads,
      keyWidth: queryWidth,
      valueWidth,
    });
  }

  get compiled(): readonly Pass[] {
    return [...this.#programs.values()];
  }

  /** Bytes of cache one sequence needs. */
  bytesPerSequence(patches: number): number {
    return this.#cache.bytesPerRow(patches);
  }

  /** Quantiles of every target (entry, target), each [levels][futurePatches * P] level-major, in real units. */
  async decode(request: Toto2DecodeRequest): Promise<Float32Array[]> {
    const { entries, variates, covariates, futurePatches } = request;
    const { patch } = this.config;
    const longest = Math.max(...entries.map(({ patches }) => patches)) + futurePatches;
    if (longest > maximumPositions)
      throw new InputError(
        "too-many-patches",
        `context and horizon take ${longest} patches of ${patch} samples, the model has positions for ${maximumPositions}: shorten one of them.`,
      );
    const corrections = { stableCentre: false, placedGroups: false, ...request.corrections };
    const firstBlock = request.blockPatches > 0 ? Math.min(request.blockPatches, futurePatches) : futurePatches;
    const rotary = this.#rotaryFor(corrections.stableCentre);
    const layoutOptions: LayoutOptions = {
      patch,
      variates,
      covariates,
      futurePatches,
      hasMissingValues: request.hasMissingValues,
      corrections,
      firstBlock,
      reach: rotary.reach,
      everyToken: this.options.taps,
    };
    const store = new SampleStore(entries, layoutOptions, this.#memory);
    this.#memory = undefined;
    this.#reserve(store.firstPatch.length, longest);
    const program = this.#programFor({ variates, covariates });
    const targets = entries.length * (variates - covariates);
    const answers = Array.from({ length: targets }, () => new Float32Array(quantileLevels.length * futurePatches * patch));
    const rounds = Math.ceil(futurePatches / firstBlock);
    let limits: Float32Array | undefined;
    for (let index = 0, done = 0; done < futurePatches; index++) {
      const round: Round = { done, block: Math.min(firstBlock, futurePatches - done), again: done === 0 ? 0 : firstBlock };
      const inputs = this.#inputs(store, this.#rounds.of(store, layoutOptions, round), request, rotary, limits);
      const answer = await program.run([inputs], request.signal);
      const quantiles = answer.quantiles.data() as Float32Array;
      limits ??= everyNth(answer.limits.data() as Float32Array, 2, round.block);
      this.#collect(answers, quantiles, round, futurePatches);
      request.onRound?.(index, rounds, program.taps());
      done += round.block;
      if (done < futurePatches)
        store.feed(round.done, round.block, (row) => medians(answers[row] as Float32Array, round, futurePatches, patch));
    }
    if (store.values.length <= mostKeptSamples) this.#memory = { values: store.values, mask: store.mask };
    return answers;
  }

  /** Rows [target * block + k][levels][P] to [target][levels][future]. */
  #collect(answers: readonly Float32Array[], quantiles: Float32Array, { done, block }: Round, futurePatches: number): void {
    const { patch } = this.config;
    const levels = quantileLevels.length;
    answers.forEach((answer, target) => {
      for (let k = 0; k < block; k++) {
        for (let level = 0; level < levels; level++) {
          const from = ((target * block + k) * levels + level) * patch;
          answer.set(quantiles.subarray(from, from + patch), (level * futurePatches + done + k) * patch);
        }
      }
    });
  }

  #inputs(
    store: SampleStore,
    { sequences, embedding, query, key, keyGroups, variate, wanted, rows, ...ofRows }: RoundInputs,
    request: Toto2DecodeRequest,
    rotary: Rotary,
    limits: Float32Array | undefined,
  ): Toto2Inputs {
    const axes = [size("patches", store.patches), this.config.patch];
    return {
      values: Tensor.from(store.values, axes),
      mask: Tensor.from(store.mask, axes),
      sequences,
      needed: this.#needed(request.fallbackMinimum),
      ...embedding,
      query,
      key,
      keyGroups,
      variate,
      wanted,
      answer: { ...rows, ...this.#bounds(store, ofRows, request, limits) },
      caches: this.#cache.layers,
      rotary: rotary.tables,
      moments: (this.#moments as { state: State }).state,
    };
  }

  /** In the first round the observed range, to be widened by k scales; later that round's limits, widened by nothing. Without a cap k is infinite. */
  #bounds(
    store: SampleStore,
    { rowSequences: sequences, rowAxis }: Pick<RoundInputs, "rowSequences" | "rowAxis">,
    request: Toto2DecodeRequest,
    limits: Float32Array | undefined,
  ): { bounds: Tensor; reach: Tensor } {
    const { capScales, covariates, variates } = request;
    const bounds = new Float32Array(2 * sequences.length);
    const targets = variates - covariates;
    for (let row = 0; row < sequences.length; row++) {
      const sequence = sequences[row] as number;
      const target = Math.floor(sequence / variates) * targets + (sequence % variates);
      const [from, at] = limits ? [limits, 2 * target] : [store.range, 2 * sequence];
      bounds[2 * row] = from[at] as number;
      bounds[2 * row + 1] = from[at + 1] as number;
    }
    const k = limits ? 0 : capScales > 0 ? capScales : Infinity;
    return {
      bounds: Tensor.from(bounds, [size(rowAxis, sequences.length), 2]),
      reach: this.#reach(k),
    };
  }

  /** Tables for all positions there are. Exponents stay within half of them, except with one centre for all rounds. */
  #rotaryFor(stableCentre: boolean): Rotary {
    const known = this.#rotary.get(stableCentre);
    if (known) return known;
    const { queryWidth, extrapolate } = this.config;
    const width = queryWidth / 2;
    const reach = stableCentre ? maximumPositions : maximumPositions / 2 + 1;
    const { device } = this.options;
    const form = { positions: maximumPositions, headWidth: queryWidth, width, pairing: "interleaved" } as const;
    const base = (dim: number): number => (2 * Math.floor(dim / 2) + 0.4 * width) / (1.4 * width);
    const tables = rotaryTables(device, "rotary", form);
    const made = {
      tables: extrapolate
        ? { ...tables, multiplier: decayTable(device, "rotary.decay", reach, queryWidth, width, 256, base, mostDecays) }
        : tables,
      reach,
    };
    this.#rotary.set(stableCentre, made);
    return made;
  }

  #reserve(sequences: number, longest: number): void {
    this.#cache.ensure(sequences, longest);
    const rows = sequences + 1;
    if (this.#moments && this.#moments.rows >= rows) return;
    this.#moments?.state.dispose();
    const capacity = Math.ceil(rows / 64) * 64;
    const state = new State(this.options.device, "moments", [sizeVar("momentsRows", 1, 1 << 20), momentColumns], "f64", {
      sizes: { momentsRows: capacity },
    });
    this.#moments = { state, rows: capacity };
  }

  #programFor(variant: Toto2Variant): Pass {
    const key = `${variant.variates} ${variant.covariates}`;
    let program = this.#programs.get(key);
    if (!program) {
      const network = new Toto2Network(this.config, this.weights, variant);
      const { device, mode, taps, stance, check } = this.options;
      const most = 1 << 22;
      const dynamic = {
        patches: [1, most],
        embedded: [1, most],
        tokens: [1, most],
        wanted: [1, most],
        rows: [1, most],
        sequences: [1, 1 << 16],
        groupRows: [1, 1 << 16],
        groupSlots: [1, 2 * maximumPositions],
      } as const;
      program = compile((inputs: Toto2Inputs) => network.round(inputs), {
        device,
        mode,
        taps,
        ...(stance ? { stance } : {}),
        check,
        name: "toto2.round",
        dynamic,
        fullGraph: true,
      });
      this.#programs.set(key, program);
    }
    return program;
  }

  dispose(): void {
    for (const program of this.#programs.values()) program.dispose();
    this.#cache.dispose();
    this.#moments?.state.dispose();
    for (const { tables } of this.#rotary.values()) {
      tables.cosine.dispose();
      tables.sine.dispose();
      tables.multiplier?.dispose();
    }
    this.#rotary.clear();
  }
}

/** A function that gives the same tensor again while it is asked for the same number. */
function lastMade(make: (value: number) => Tensor): (value: number) => Tensor {
  let last: { readonly value: number; readonly tensor: Tensor } | undefined;
  return (value) => (last?.value === value ? last : (last = { value, tensor: make(value) })).tensor;
}

/** The first of every `count` groups of `width` numbers. */
function everyNth(values: Float32Array, width: number, count: number): Float32Array {
  const groups = values.length / (width * count);
  const result = new Float32Array(groups * width);
  for (let g = 0; g < groups; g++) result.set(values.subarray(g * count * width, g * count * width + width), g * width);
  return result;
}

/** The medians of a round's patches, [block * P], of one target's answer. */
function medians(answer: Float32Array, { done, block }: Round, futurePatches: number, patch: number): Float32Array {
  const from = (medianIndex * futurePatches + done) * patch;
  return answer.subarray(from, from + block * patch);
}
