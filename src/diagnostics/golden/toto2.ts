/** Golden functions of Toto 2.0: each case run through the decoder that forecasts use, with taps (folds and pruning off) or as the product. */
import {
  backfillStatistics,
  causalScaler,
  compile,
  finishQuantiles,
  impute,
  loadToto2Weights,
  openDevice,
  parseToto2Config,
  quantileLevels,
  size,
  State,
  Tensor,
  Toto2Decoder,
  wrapperEntry,
  wrapperPast,
  type Imputation,
  type Mode,
  type Toto2Config,
  type Toto2DecodeRequest,
  type Toto2Entry,
} from "../../internals.js";
import { checkGoldenOptions, goldenCheckpoint, goldenInput, type GoldenCase } from "./case.js";
import type { GoldenAnswer } from "./compare.js";
import type { GoldenContext, GoldenFunction, GoldenFunctions } from "./run.js";

type Answers = Map<string, GoldenAnswer>;
type Taps = ReadonlyMap<string, Tensor>;

const levels = quantileLevels.length;
const floats = (golden: GoldenCase, name: string): Float32Array => Float32Array.from(goldenInput(golden, name).data as ArrayLike<number>);
const option = <T>(golden: GoldenCase, name: string): T => golden.options[name] as T;
const dataOf = (taps: Taps, name: string): Float32Array => {
  const value = taps.get(name);
  if (!value) throw new Error(`the program has no tap "${name}"; it has ${[...taps.keys()].join(", ")}`);
  return value.data() as Float32Array;
};

/** Rows of a stored [B, rows, length] tensor, as copies cut or padded with 0 to `size`. */
function rowsOf<T extends Float32Array | Uint8Array>(
  make: (size: number) => T,
  data: ArrayLike<number>,
  length: number,
  padded: number,
): T[] {
  return Array.from({ length: data.length / length }, (_, row) => {
    const result = make(padded);
    for (let t = 0; t < Math.min(length, padded); t++) result[t] = data[row * length + t] as number;
    return result;
  });
}

interface Inputs {
  readonly entries: readonly Toto2Entry[];
  readonly batch: number;
  readonly targets: number;
  readonly covariates: number;
}

/** The case's series with its known covariates, as decoder entries. */
function entriesOf(golden: GoldenCase, patch: number, futurePatches: number): Inputs {
  const [batch, targets, length] = goldenInput(golden, "target").shape as [number, number, number];
  const known = golden.inputs.get("known");
  const [covariates, knownLength] = known ? (known.shape.slice(1) as [number, number]) : [0, 0];
  const bytes = (name: string): ArrayLike<number> => goldenInput(golden, name).data as ArrayLike<number>;
  const future = futurePatches * patch;
  const values = rowsOf((n) => new Float32Array(n), bytes("target"), length, length);
  const mask = rowsOf((n) => new Uint8Array(n), bytes("mask"), length, length);
  const ids = goldenInput(golden, "ids").data as ArrayLike<bigint | number>;
  const knownValues = known ? rowsOf((n) => new Float32Array(n), bytes("known"), knownLength, length + future) : [];
  const knownMask = known ? rowsOf((n) => new Uint8Array(n), bytes("knownMask"), knownLength, length + future) : [];
  const knownIds = known ? (goldenInput(golden, "knownIds").data as ArrayLike<bigint | number>) : [];
  const part = <T>(rows: readonly T[], b: number, count: number): T[] => rows.slice(b * count, (b + 1) * count);
  const entries = Array.from({ length: batch }, (_, b): Toto2Entry => {
    const own = part(knownValues, b, covariates);
    const ownMask = part(knownMask, b, covariates);
    return {
      values: [...part(values, b, targets), ...own.map((row) => row.subarray(0, length))],
      mask: [...part(mask, b, targets), ...ownMask.map((row) => row.subarray(0, length))],
      patches: length / patch,
      groups: Int32Array.from([
        ...part(Array.from(ids, Number), b, targets),
        ...part(Array.from(knownIds as ArrayLike<number>, Number), b, covariates),
      ]),
      future: own.map((row) => row.subarray(length)),
      futureMask: ownMask.map((row) => row.subarray(length)),
    };
  });
  return { entries, batch, targets, covariates };
}

async function withDecoder<T>(
  golden: GoldenCase,
  context: GoldenContext,
  body: (decoder: Toto2Decoder, config: Toto2Config) => Promise<T>,
): Promise<T> {
  const checkpoint = goldenCheckpoint(golden, "model");
  const product = context.program === "product";
  const { device } = openDevice(context.device);
  try {
    const config = parseToto2Config(checkpoint.config);
    const weights = loadToto2Weights(checkpoint.source, config, device, { fold: product });
    const decoder = new Toto2Decoder(config, weights, { device, mode: context.mode as Mode, taps: !product });
    try {
      return await body(decoder, config);
    } finally {
      decoder.dispose();
      weights.dispose();
    }
  } finally {
    checkpoint.source.close();
  }
}

/** [targets][levels][future] -> [levels, targets, horizon]. */
function levelsFirst(answers: readonly Float32Array[], horizon: number): Float32Array {
  const result = new Float32Array(levels * answers.length * horizon);
  answers.forEach((answer, target) => {
    const future = answer.length / levels;
    for (let level = 0; level < levels; level++)
      result.set(answer.subarray(level * future, level * future + horizon), (level * answers.length + target) * horizon);
  });
  return result;
}

/** [sequences x tokens, heads, width] of equally long sequences -> [sequences, heads, tokens, width]. */
function headsFirst(values: Float32Array, sequences: number, heads: number, width: number): GoldenAnswer {
  const tokens = values.length / (sequences * heads * width);
  const data = new Float32Array(values.length);
  for (let s = 0; s < sequences; s++)
    for (let t = 0; t < tokens; t++)
      for (let h = 0; h < heads; h++) {
        const from = ((s * tokens + t) * heads + h) * width;
        data.set(values.subarray(from, from + width), ((s * heads + h) * tokens + t) * width);
      }
  return { data, shape: [sequences, heads, tokens, width] };
}

/** Tokens from .. to - 1 of every sequence of a [sequences x tokens, width] value. */
function tokenRange(values: Float32Array, sequences: number, width: number, from: number, to: number): Float32Array {
  const tokens = values.length / (sequences * width);
  const data = new Float32Array(sequences * (to - from) * width);
  for (let s = 0; s < sequences; s++)
    data.set(values.subarray((s * tokens + from) * width, (s * tokens + to) * width), s * (to - from) * width);
  return data;
}

/** [rows, P x levels] -> [levels, ...leading, P]. */
function headAnswer(values: Float32Array, leading: readonly number[], patch: number): GoldenAnswer {
  const rows = values.length / (patch * levels);
  const data = new Float32Array(values.length);
  for (let row = 0; row < rows; row++)
    for (let p = 0; p < patch; p++)
      for (let level = 0; level < levels; level++)
        data[(level * rows + row) * patch + p] = values[(row * patch + p) * levels + level] as number;
  return { data, shape: [levels, ...leading, patch] };
}

/** Tensors of one round. Cases of full-size models store the last embedded prediction token only, and of each layer the token before the predictions. */
function tapAnswers(
  answers: Answers,
  taps: Taps,
  round: number,
  { batch, targets, covariates, entries }: Inputs,
  config: Toto2Config,
  lastEmbedOnly: boolean,
): void {
  const { width, heads, keyHeads, queryWidth, patch } = config;
  const variates = targets + covariates;
  const sequences = batch * variates;
  const lead = [batch, variates];
  const put = (name: string, data: Float32Array, shape: readonly number[]): void => void answers.set(name, { data, shape });
  const [loc, scale] = [dataOf(taps, "loc"), dataOf(taps, "scale")].map((all) => all.subarray(0, all.length - 1)) as [
    Float32Array,
    Float32Array,
  ];
  const [locName, scaleName] = round === 0 ? ["loc", "scale"] : [`round${round}.patchLoc`, `round${round}.patchScale`];
  put(locName as string, loc, [...lead, loc.length / sequences]);
  put(scaleName as string, scale, [...lead, scale.length / sequences]);
  const context = (entries[0] as Toto2Entry).patches;
  const tokens = dataOf(taps, "tokens");
  const perSequence = tokens.length / (sequences * width);
  if (round === 0) {
    put("contextEmbed", tokenRange(tokens, sequences, width, 0, context), [...lead, context, width]);
    const from = lastEmbedOnly ? perSequence - 1 : context;
    const embedded = tokenRange(tokens, sequences, width, from, perSequence);
    put("predictionEmbed", embedded, lastEmbedOnly ? [...lead, width] : [...lead, perSequence - from, width]);
  }
  for (const name of taps.keys()) {
    const [, layer, part] = /^(layer\d+)\.(q|k|out)$/.exec(name) ?? [];
    if (part === "out") put(`round${round}.${layer ?? ""}.out`, dataOf(taps, name), [...lead, perSequence, width]);
    else if (part)
      answers.set(`round${round}.${name}`, headsFirst(dataOf(taps, name), sequences, part === "q" ? heads : keyHeads, queryWidth));
  }
  const hidden = dataOf(taps, "outNorm");
  const block = hidden.length / (sequences * width);
  put(`round${round}.outNorm`, hidden, [...lead, block, width]);
  const anchor = perSequence - block - 1;
  const anchors = config.kinds.map((_, layer) => tokenRange(dataOf(taps, `layer${layer}.out`), sequences, width, anchor, anchor + 1));
  put(`round${round}.layers.anchor`, Float32Array.from(anchors.flatMap((values) => [...values])), [anchors.length, ...lead, width]);
  answers.set(`round${round}.head`, headAnswer(dataOf(taps, "head"), [...lead, block], patch));
}

const forecast: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["horizon", "decodeBlockSize", "hasMissingValues", "scalerFallbackMinObs", "quantileRealCapK", "rounds"]);
  return withDecoder(golden, context, async (decoder, config) => {
    const { patch } = config;
    const horizon = option<number>(golden, "horizon");
    const futurePatches = Math.ceil(horizon / patch);
    const inputs = entriesOf(golden, patch, futurePatches);
    const answers: Answers = new Map();
    const lastEmbedOnly = golden.expected.find(({ name }) => name === "predictionEmbed")?.shape.length === 3;
    const request: Toto2DecodeRequest = {
      entries: inputs.entries,
      variates: inputs.targets + inputs.covariates,
      covariates: inputs.covariates,
      futurePatches,
      blockPatches: (option<number | null>(golden, "decodeBlockSize") ?? 0) / patch,
      hasMissingValues: option<boolean>(golden, "hasMissingValues"),
      fallbackMinimum: option<number>(golden, "scalerFallbackMinObs"),
      capScales: option<number>(golden, "quantileRealCapK"),
      onRound: (round, _rounds, taps) => {
        if (taps.size > 0) tapAnswers(answers, taps, round, inputs, config, lastEmbedOnly);
      },
    };
    const quantiles = levelsFirst(await decoder.decode(request), horizon);
    answers.set("quantiles", { data: quantiles, shape: [levels, inputs.batch, inputs.targets, horizon] });
    return answers;
  });
};

const scaler: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["patch", "minObs"]);
  const { device } = openDevice(context.device);
  const patch = option<number>(golden, "patch");
  const needs = option<number[]>(golden, "minObs");
  const [batch, variates, length] = goldenInput(golden, "series").shape as [number, number, number];
  const [sequences, patches] = [batch * variates, length / patch];
  const moments = new State(device, "moments", [sequences, 6], "f64");
  interface Given {
    readonly values: Tensor;
    readonly mask: Tensor;
    readonly sequences: { readonly first: Tensor; readonly count: Tensor; readonly prefix: Tensor; readonly row: Tensor };
    readonly needed: readonly Tensor[];
  }
  const run = compile(
    ({ values, mask, sequences: vectors, needed }: Given) => {
      const options = { fresh: true, addedVariance: 0, minimumScale: 1e-6, clamp: false, lowFactor: 0, highFactor: Infinity };
      const statistics = causalScaler(values, mask, vectors, moments, options);
      const split = (both: Tensor): { loc: Tensor; scale: Tensor } => ({ loc: both.slice(1, 0, 1), scale: both.slice(1, 1, 1) });
      const { loc, scale } = split(statistics);
      const z = mask.select(values.sub(loc).div(scale), 0);
      return {
        loc,
        scale,
        z,
        asinh: z.asinh(),
        backfilled: needed.map((need) => split(backfillStatistics(values, mask, statistics, vectors, need))),
      };
    },
    { device, mode: context.mode as Mode, name: "golden.scaler" },
  );
  const vector = (value: (s: number) => number): Tensor =>
    Tensor.from(
      Int32Array.from({ length: sequences }, (_, s) => value(s)),
      [size("sequences", sequences)],
    );
  const count = vector(() => patches);
  const answer = run({
    values: Tensor.from(floats(golden, "series"), [sequences * patches, patch]),
    mask: Tensor.from(Int32Array.from(goldenInput(golden, "mask").data as ArrayLike<number>), [sequences * patches, patch]),
    sequences: { first: vector((s) => s * patches), count, prefix: count, row: vector((s) => s) },
    needed: needs.map((need) => Tensor.from(Int32Array.of(need), [1])),
  });
  run.dispose();
  moments.dispose();
  const perPatch = (value: Tensor): GoldenAnswer => ({ data: value.data() as Float32Array, shape: [batch, variates, patches] });
  const perSample = (value: Tensor): GoldenAnswer => ({ data: value.data() as Float32Array, shape: [batch, variates, length] });
  const answers: Answers = new Map([
    ["loc", perPatch(answer.loc)],
    ["scale", perPatch(answer.scale)],
    ["z", perSample(answer.z)],
    ["asinh", perSample(answer.asinh)],
  ]);
  needs.forEach((need, index) => {
    const { loc, scale } = answer.backfilled[index] as { loc: Tensor; scale: Tensor };
    answers.set(`backfill${need}.loc`, perPatch(loc));
    answers.set(`backfill${need}.scale`, perPatch(scale));
  });
  return Promise.resolve(answers);
};

const postprocess: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["patch"]);
  const q = goldenInput(golden, "q");
  const [, batch, variates, block, patch] = q.shape as [number, number, number, number, number];
  const rows = batch * variates * block;
  const crossing = floats(golden, "q");
  const given = new Float32Array(crossing.length);
  for (let level = 0; level < levels; level++)
    for (let i = 0; i < rows * patch; i++) given[i * levels + level] = crossing[level * rows * patch + i] as number;
  const run = compile((x: Tensor, loc: Tensor, scale: Tensor, limits: Tensor) => finishQuantiles(x.sinh().mul(scale).add(loc), limits), {
    device: openDevice(context.device).device,
    mode: context.mode as Mode,
    name: "golden.postprocess",
  });
  const column = (name: string): Tensor => Tensor.from(floats(golden, name), [rows, 1, 1]);
  const [low, high] = [floats(golden, "lo"), floats(golden, "hi")];
  const finish = (limit: (row: number) => readonly [number, number]): GoldenAnswer => {
    const limits = Float32Array.from({ length: 2 * rows }, (_, i) => limit(Math.floor(i / 2))[i % 2] as number);
    const sorted = run(Tensor.from(given, [rows, patch, levels]), column("loc"), column("scale"), Tensor.from(limits, [rows, 2]));
    const values = sorted.data() as Float32Array;
    const data = new Float32Array(values.length);
    for (let row = 0; row < rows; row++)
      for (let level = 0; level < levels; level++)
        data.set(values.subarray((row * levels + level) * patch, (row * levels + level + 1) * patch), (level * rows + row) * patch);
    return { data, shape: q.shape };
  };
  const answers: Answers = new Map([
    ["uncapped", finish(() => [-Infinity, Infinity])],
    ["capped", finish((row) => [low[Math.floor(row / block)] as number, high[Math.floor(row / block)] as number])],
  ]);
  run.dispose();
  return Promise.resolve(answers);
};

const imputed: GoldenFunction = (golden) => {
  checkGoldenOptions(golden, []);
  const { shape } = goldenInput(golden, "values");
  const length = shape[1] as number;
  const rows = rowsOf((n) => new Float32Array(n), floats(golden, "values"), length, length);
  const answer = (imputation: Imputation): GoldenAnswer => {
    const data = new Float32Array(rows.length * length);
    rows.forEach((row, index) =>
      data.set(
        impute(
          row,
          Uint8Array.from(row, (value) => (Number.isNaN(value) ? 0 : 1)),
          imputation,
        ),
        index * length,
      ),
    );
    return { data, shape };
  };
  return Promise.resolve(
    new Map([
      ["ffill", answer("ffill")],
      ["linear", answer("linear")],
    ]),
  );
};

const predict: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, [
    "horizon",
    "contextLength",
    "decodeBlockSize",
    "hasMissingValues",
    "imputation",
    "scalerFallbackMinObs",
    "quantileRealCapK",
    "quantiles",
  ]);
  if (option<number[]>(golden, "quantiles").join() !== quantileLevels.join())
    throw new Error(`golden case ${golden.name}: quantiles [${option<number[]>(golden, "quantiles").join(", ")}] are not the model's`);
  return withDecoder(golden, context, async (decoder, config) => {
    const { patch } = config;
    const horizon = option<number>(golden, "horizon");
    const futurePatches = Math.ceil(horizon / patch);
    const past = wrapperPast(option<number>(golden, "contextLength"), horizon, patch);
    const split = (name: string): Float32Array[] => {
      const tensor = golden.inputs.get(name);
      const length = tensor?.shape[1] as number;
      return tensor ? rowsOf((n) => new Float32Array(n), tensor.data as ArrayLike<number>, length, length) : [];
    };
    const count = [...golden.inputs.keys()].filter((name) => /^series\d+$/.test(name)).length;
    const entries = Array.from({ length: count }, (_, index) =>
      wrapperEntry(
        { target: [...split(`series${index}`), ...split(`past${index}`)], known: split(`known${index}`) },
        { past, patch, futurePatches, imputation: option<Imputation>(golden, "imputation") },
      ),
    );
    const [first] = entries as [Toto2Entry];
    const covariates = first.future.length;
    const variates = first.values.length;
    const targets = variates - covariates;
    const wanted = split("series0").length;
    const answers: Answers = new Map();
    const put = (name: string, rows: readonly (Float32Array | Uint8Array)[], perEntry: number): void => {
      const length = rows[0]?.length ?? 0;
      const data = rows[0] instanceof Uint8Array ? new Uint8Array(rows.length * length) : new Float32Array(rows.length * length);
      rows.forEach((row, index) => data.set(row, index * length));
      answers.set(name, { data, shape: [count, perEntry, length] });
    };
    put(
      "modelTarget",
      entries.flatMap(({ values }) => values.slice(0, targets)),
      targets,
    );
    put(
      "modelMask",
      entries.flatMap(({ mask }) => mask.slice(0, targets)),
      targets,
    );
    if (covariates > 0) {
      const whole = <T extends Float32Array | Uint8Array>(make: (n: number) => T, past_: T, future: T): T => {
        const result = make(past_.length + future.length);
        result.set(past_);
        result.set(future, past_.length);
        return result;
      };
      put(
        "modelKnown",
        entries.flatMap(({ values, future }) =>
          future.map((row, e) => whole((n) => new Float32Array(n), values[targets + e] as Float32Array, row)),
        ),
        covariates,
      );
      put(
        "modelKnownMask",
        entries.flatMap(({ mask, futureMask }) =>
          futureMask.map((row, e) => whole((n) => new Uint8Array(n), mask[targets + e] as Uint8Array, row)),
        ),
        covariates,
      );
    }
    const quantiles = await decoder.decode({
      entries,
      variates,
      covariates,
      futurePatches,
      blockPatches: (option<number | null>(golden, "decodeBlockSize") ?? 0) / patch,
      hasMissingValues: option<boolean>(golden, "hasMissingValues"),
      fallbackMinimum: option<number>(golden, "scalerFallbackMinObs"),
      capScales: option<number>(golden, "quantileRealCapK"),
    });
    for (let index = 0; index < count; index++) {
      const own = quantiles.slice(index * targets, index * targets + wanted);
      answers.set(`quantiles${index}`, quantileAnswer(golden, `quantiles${index}`, levelsFirst(own, horizon), wanted, horizon));
    }
    return answers;
  });
};

/** The wrapper gives [levels, horizon] of one variate and [levels, horizon, V] of several, stored with either order of the last two axes. */
function quantileAnswer(golden: GoldenCase, name: string, values: Float32Array, variates: number, horizon: number): GoldenAnswer {
  if (variates === 1) return { data: values, shape: [levels, horizon] };
  const stored = golden.expected.find((tensor) => tensor.name === name)?.shape;
  if (stored?.[1] === variates && stored[2] === horizon && variates !== horizon)
    return { data: values, shape: [levels, variates, horizon] };
  const data = new Float32Array(values.length);
  for (let level = 0; level < levels; level++)
    for (let v = 0; v < variates; v++)
      for (let t = 0; t < horizon; t++) data[(level * horizon + t) * variates + v] = values[(level * variates + v) * horizon + t] as number;
  return { data, shape: [levels, horizon, variates] };
}

export const toto2Goldens: GoldenFunctions = {
  "toto2.forecast": forecast,
  "toto2.scaler": scaler,
  "toto2.postprocess": postprocess,
  "toto2.impute": imputed,
  "toto2.predict": predict,
};
