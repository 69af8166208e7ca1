/** Golden functions of Toto 1.0: each case run through the decoder that forecasts use, with taps (folds and pruning off) or as the product. */
import {
  causalScaler,
  compile,
  linear,
  loadToto1Weights,
  mixtureLogDensity,
  openDevice,
  outputParameters,
  parseToto1Config,
  realLogDensity,
  sanitise,
  size,
  State,
  Tensor,
  Toto1Decoder,
  type DecodeRequest,
  type Entry,
  type Mode,
  type Toto1Config,
  type Toto1Weights,
} from "../../internals.js";
import { checkGoldenOptions, goldenCheckpoint, goldenInput, type GoldenCase } from "./case.js";
import type { GoldenAnswer } from "./compare.js";
import type { GoldenContext, GoldenFunction, GoldenFunctions } from "./run.js";

type Answers = Map<string, GoldenAnswer>;
type Taps = ReadonlyMap<string, Tensor>;

interface Setup {
  readonly config: Toto1Config;
  readonly weights: Toto1Weights;
  readonly decoder: Toto1Decoder;
  readonly shape: readonly [number, number, number];
  readonly entries: readonly Entry[];
  readonly patches: number;
}

const floats = (golden: GoldenCase, name: string): Float32Array => Float32Array.from(goldenInput(golden, name).data as ArrayLike<number>);
const option = <T>(golden: GoldenCase, name: string): T => golden.options[name] as T;

/** The case's series as decoder entries: left padded to whole patches, masked values as they are (they are still fed). */
function makeEntries(
  golden: GoldenCase,
  patch: number,
  paths: number,
): { entries: Entry[]; shape: [number, number, number]; patches: number } {
  const series = goldenInput(golden, "series");
  const [batch, variates, length] = series.shape as [number, number, number];
  const values = floats(golden, "series");
  const mask = goldenInput(golden, "mask").data as ArrayLike<number>;
  const ids = goldenInput(golden, "ids").data as ArrayLike<bigint | number>;
  const patches = Math.ceil(length / patch);
  const pad = patches * patch - length;
  const rowOf = (b: number, v: number): number => (b * variates + v) * length;
  const entries = Array.from({ length: batch }, (_, b): Entry => ({
    values: Array.from({ length: variates }, (_, v) => {
      const padded = new Float32Array(patches * patch);
      padded.set(values.subarray(rowOf(b, v), rowOf(b, v) + length), pad);
      return padded;
    }),
    mask: Array.from({ length: variates }, (_, v) =>
      Uint8Array.from({ length: patches * patch }, (_, i) => (i < pad ? 0 : Number(mask[rowOf(b, v) + i - pad]))),
    ),
    patches,
    contextPatches: patches,
    groups: Int32Array.from({ length: variates }, (_, v) => Number(ids[rowOf(b, v)])),
    paths,
  }));
  return { entries, shape: [batch, variates, length], patches };
}

async function withSetup(
  golden: GoldenCase,
  context: GoldenContext,
  paths: number,
  body: (setup: Setup) => Promise<Answers>,
): Promise<Answers> {
  const checkpoint = goldenCheckpoint(golden, "model");
  const { device } = openDevice(context.device);
  const config = parseToto1Config(checkpoint.config);
  const product = context.program === "product";
  const weights = loadToto1Weights(checkpoint.source, config, device, { fold: product });
  const cached = option<boolean | undefined>(golden, "cache") ?? true;
  const decoder = new Toto1Decoder(config, weights, {
    device,
    mode: context.mode as Mode,
    kvCache: cached ? "static" : "none",
    sharePrefix: true,
    taps: !product,
  });
  try {
    return await body({ config, weights, decoder, ...makeEntries(golden, config.patch, paths) });
  } finally {
    decoder.dispose();
    weights.dispose();
    checkpoint.source.close();
  }
}

const dataOf = (taps: Taps, name: string): Float32Array => {
  const value = taps.get(name);
  if (!value) throw new Error(`the program has no tap "${name}"; it has ${[...taps.keys()].join(", ")}`);
  return value.data() as Float32Array;
};

/** [tokens, heads, width] of equally long sequences -> [sequences, heads, tokens per sequence, width]. */
function headsFirst(values: Float32Array, sequences: number, heads: number, width: number): Float32Array {
  const perSequence = values.length / (sequences * heads * width);
  const result = new Float32Array(values.length);
  for (let s = 0; s < sequences; s++) {
    for (let t = 0; t < perSequence; t++) {
      for (let h = 0; h < heads; h++) {
        const from = ((s * perSequence + t) * heads + h) * width;
        result.set(values.subarray(from, from + width), ((s * heads + h) * perSequence + t) * width);
      }
    }
  }
  return result;
}

/** Rows `pick` of a [rows, width] array. */
function rowsOf(values: Float32Array, width: number, pick: readonly number[]): Float32Array {
  const result = new Float32Array(pick.length * width);
  pick.forEach((row, index) => result.set(values.subarray(row * width, (row + 1) * width), index * width));
  return result;
}

const stacked = (parts: readonly Float32Array[]): Float32Array => {
  const result = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (result.set(part, at), at + part.length), 0);
  return result;
};

const noKeys = (rows: number): Int32Array => new Int32Array(rows * 3);

const forward: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["exogenous", "cache"]);
  return withSetup(golden, context, 1, async ({ config, weights, decoder, shape, entries, patches }) => {
    const [batch, variates] = shape;
    const { patch, width, heads, components } = config;
    const sequences = batch * variates;
    const label = weights.labels ? 1 : 0;
    const answers: Answers = new Map();
    const onStep = (_step: number, taps: Taps): void => {
      const put = (name: string, shapeOf: readonly number[], values: Float32Array): void =>
        void answers.set(name, { data: values, shape: shapeOf });
      if (taps.size === 0) return;
      put("loc", [batch, variates, patches], dataOf(taps, "loc"));
      put("scale", [batch, variates, patches], dataOf(taps, "scale"));
      put("z", [batch, variates, patches * patch], dataOf(taps, "z"));
      put("embed", [batch, variates, patches, width], dataOf(taps, "embed"));
      for (const [name, value] of taps) {
        if (/^layer\d+\.[qk]$/.test(name))
          put(
            name,
            [sequences, heads, patches + label, width / heads],
            headsFirst(value.data() as Float32Array, sequences, heads, width / heads),
          );
        if (/^layer\d+\.out$/.test(name)) put(name, [batch, variates, patches + label, width], value.data() as Float32Array);
      }
      const last = Array.from({ length: sequences }, (_, s) => (s + 1) * patches - 1);
      put("unembed", [batch, variates, patch * width], rowsOf(dataOf(taps, "unembed"), patch * width, last));
      for (const [name, tapName] of [
        ["df", "df"],
        ["compLoc", "compLoc"],
        ["compScale", "compScale"],
        ["weights", "weights"],
      ] as const) {
        put(`head.${name}`, [batch, variates, patches * patch, components], dataOf(taps, tapName));
      }
      put("normalisedMean", [batch, variates, patches * patch], dataOf(taps, "normalisedMean"));
      put("mean", [batch, variates, patches * patch], dataOf(taps, "mean"));
    };
    const [answer] = await decoder.decode({
      entries,
      variates,
      exogenous: option<number>(golden, "exogenous"),
      steps: 1,
      sampled: false,
      keys: noKeys(sequences),
      seed: 0,
      everyPatch: true,
      onStep,
    });
    if (!answers.has("mean")) answers.set("mean", { data: answer as Float32Array, shape: [batch, variates, patches * patch] });
    return answers;
  });
};

/** Known futures of the last E variates as the decoder wants them; rows run (entry, path, variate). */
function futureOf(golden: GoldenCase, setup: Setup, paths: number, horizon: number): DecodeRequest["future"] {
  const exogenous = option<number>(golden, "exogenous");
  if (exogenous === 0) return undefined;
  const [batch, variates] = setup.shape;
  const known = floats(golden, "futureExogenous");
  const { patch } = setup.config;
  return (step) => {
    const values = new Float32Array(batch * paths * variates * patch);
    const flags = new Int32Array(batch * paths * variates);
    for (let row = 0; row < flags.length; row++) {
      const channel = (row % variates) - (variates - exogenous);
      if (channel < 0) continue;
      flags[row] = 1;
      const b = Math.floor(row / (paths * variates));
      for (let p = 0; p < patch && step * patch + p < horizon; p++)
        values[row * patch + p] = known[(b * exogenous + channel) * horizon + step * patch + p] as number;
    }
    return { values, known: flags };
  };
}

const decodeMean: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["horizon", "cache", "exogenous", "steps"]);
  return withSetup(golden, context, 1, async (setup) => {
    const { config, decoder, shape, entries } = setup;
    const [batch, variates] = shape;
    const { patch, width, components } = config;
    const horizon = option<number>(golden, "horizon");
    const steps = Math.ceil(horizon / patch);
    const sequences = batch * variates;
    const history: Taps[] = [];
    const future = futureOf(golden, setup, 1, horizon);
    const patches = await decoder.decode({
      entries,
      variates,
      exogenous: option<number>(golden, "exogenous"),
      steps,
      sampled: false,
      keys: noKeys(sequences),
      seed: 0,
      onStep: (_, taps) => history.push(taps),
      ...(future ? { future } : {}),
    });
    const answers: Answers = new Map([
      ["forecast", { data: cropped(patches, sequences, patch, horizon), shape: [batch, variates, horizon] }],
    ]);
    if (context.program === "product") return answers;
    const first = history[0] as Taps;
    const collect = (name: string, tapName: string, rest: readonly number[]): void => {
      answers.set(name, { data: stacked(history.map((taps) => dataOf(taps, tapName))), shape: [steps, batch, variates, ...rest] });
    };
    for (const name of first.keys()) {
      const layer = /^(layer\d+)\.out$/.exec(name)?.[1];
      if (!layer) continue;
      const perSequence = dataOf(first, name).length / (sequences * width);
      answers.set(`prefill.${layer}.last`, {
        data: rowsOf(
          dataOf(first, name),
          width,
          Array.from({ length: sequences }, (_, s) => (s + 1) * perSequence - 1),
        ),
        shape: [batch, variates, width],
      });
    }
    collectAttention(answers, history, { config, sequences, cached: option<boolean>(golden, "cache") });
    collect("steps.lastHidden", "lastHidden", [width]);
    collect("steps.patchLoc", "patchLoc", []);
    collect("steps.patchScale", "patchScale", []);
    for (const part of ["df", "compLoc", "compScale", "weights"]) collect(`steps.${part}`, part, [patch, components]);
    collect("steps.mean", "mean", [patch]);
    return answers;
  });
};

/** Keys of the first time layer as attended in the last step, and the last query there; a model without time layers has neither. */
function collectAttention(
  answers: Answers,
  history: readonly Taps[],
  { config, sequences, cached }: { config: Toto1Config; sequences: number; cached: boolean },
): void {
  const layer = config.kinds.indexOf("time");
  if (layer < 0) return;
  const [name, { width, heads }] = [`layer${layer}`, config];
  const headWidth = width / heads;
  const last = history[history.length - 1] as Taps;
  const keys = cached
    ? joinCache(history, `${name}.k`, sequences, heads, headWidth)
    : headsFirst(dataOf(last, `${name}.k`), sequences, heads, headWidth);
  answers.set(`${name}.keys`, { data: keys, shape: [sequences, heads, keys.length / (sequences * width), headWidth] });
  const queries = dataOf(last, `${name}.q`);
  const perSequence = queries.length / (sequences * width);
  const places = Array.from({ length: sequences }, (_, s) => (s + 1) * perSequence - 1);
  answers.set(`${name}.queries`, { data: rowsOf(queries, width, places), shape: [sequences, heads, headWidth] });
}

/** Keys of the prefill, then one per decode step: [sequences, heads, tokens, width]. */
function joinCache(history: readonly Taps[], name: string, sequences: number, heads: number, width: number): Float32Array {
  const context = headsFirst(dataOf(history[0] as Taps, name), sequences, heads, width);
  const contextTokens = context.length / (sequences * heads * width);
  const total = contextTokens + history.length - 1;
  const result = new Float32Array(sequences * heads * total * width);
  for (let row = 0; row < sequences * heads; row++) {
    result.set(context.subarray(row * contextTokens * width, (row + 1) * contextTokens * width), row * total * width);
    history
      .slice(1)
      .forEach((taps, step) =>
        result.set(dataOf(taps, name).subarray(row * width, (row + 1) * width), (row * total + contextTokens + step) * width),
      );
  }
  return result;
}

/** [steps][rows * P] -> [rows, horizon]. */
function cropped(patches: readonly Float32Array[], rows: number, patch: number, horizon: number): Float32Array {
  const result = new Float32Array(rows * horizon);
  patches.forEach((values, step) => {
    const length = Math.min(patch, horizon - step * patch);
    for (let row = 0; row < rows; row++) result.set(values.subarray(row * patch, row * patch + length), row * horizon + step * patch);
  });
  return result;
}

const decodeSamples: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["horizon", "samples", "samplesPerBatch", "cache", "exogenous", "steps"]);
  const samples = option<number>(golden, "samples");
  return withSetup(golden, context, samples, async (setup) => {
    const { config, decoder, shape, entries } = setup;
    const [batch, variates] = shape;
    const { patch, components } = config;
    const horizon = option<number>(golden, "horizon");
    const steps = Math.ceil(horizon / patch);
    const rows = batch * samples * variates;
    const [component, normal, chiSquare] = [
      goldenInput(golden, "component").data as ArrayLike<bigint | number>,
      floats(golden, "normal"),
      floats(golden, "chiSquare"),
    ];
    /** Index into [samples, B, step, V, P] of a row (entry, path, variate). */
    const given = (row: number, step: number): number => {
      const [b, j, v] = [Math.floor(row / (samples * variates)), Math.floor(row / variates) % samples, row % variates];
      return (((j * batch + b) * steps + step) * variates + v) * patch;
    };
    const perRow = <T extends Float32Array | Int32Array>(make: (length: number) => T, step: number, read: (index: number) => number): T => {
      const result = make(rows * patch);
      for (let row = 0; row < rows; row++) for (let p = 0; p < patch; p++) result[row * patch + p] = read(given(row, step) + p);
      return result;
    };
    const history: Taps[] = [];
    const future = futureOf(golden, setup, samples, horizon);
    const patches = await decoder.decode({
      entries,
      variates,
      exogenous: option<number>(golden, "exogenous"),
      steps,
      sampled: true,
      keys: noKeys(rows),
      seed: 0,
      injected: (step) => ({
        component: perRow(
          (length) => new Int32Array(length),
          step,
          (index) => Number(component[index]),
        ),
        normal: perRow(
          (length) => new Float32Array(length),
          step,
          (index) => normal[index] as number,
        ),
        chiSquare: perRow(
          (length) => new Float32Array(length),
          step,
          (index) => chiSquare[index] as number,
        ),
      }),
      onStep: (_, taps) => history.push(taps),
      ...(future ? { future } : {}),
    });
    const answers = sampleStatistics(cropped(patches, rows, patch, horizon), batch, variates, samples, horizon);
    if (context.program === "product") return answers;
    for (const [name, tapName] of [
      ["df", "df"],
      ["compLoc", "compLoc"],
      ["compScale", "compScale"],
      ["weight", "weights"],
    ] as const) {
      const data = new Float32Array(samples * batch * steps * variates * patch);
      history.forEach((taps, step) => {
        const values = dataOf(taps, tapName);
        const perSequence = values.length === batch * variates * patch * components;
        for (let row = 0; row < rows; row++) {
          const source = perSequence ? Math.floor(row / (samples * variates)) * variates + (row % variates) : row;
          for (let p = 0; p < patch; p++)
            data[given(row, step) + p] = values[(source * patch + p) * components + Number(component[given(row, step) + p])] as number;
        }
      });
      answers.set(`drawn.${name}`, { data, shape: [samples, batch, steps, variates, patch] });
    }
    return answers;
  });
};

/** Samples [B, V, horizon, samples] of rows (entry, path, variate), with their mean and linearly interpolated quantiles. */
function sampleStatistics(rows: Float32Array, batch: number, variates: number, samples: number, horizon: number): Answers {
  const data = new Float32Array(batch * variates * horizon * samples);
  const levels = [0.1, 0.5, 0.9];
  const mean = new Float32Array(batch * variates * horizon);
  const quantiles = levels.map(() => new Float32Array(mean.length));
  for (let cell = 0; cell < mean.length; cell++) {
    const [b, v, t] = [Math.floor(cell / (variates * horizon)), Math.floor(cell / horizon) % variates, cell % horizon];
    const drawn = Array.from({ length: samples }, (_, j) => rows[((b * samples + j) * variates + v) * horizon + t] as number);
    data.set(drawn, cell * samples);
    mean[cell] = drawn.reduce((sum, value) => sum + value, 0) / samples;
    const sorted = [...drawn].sort((a, c) => a - c);
    levels.forEach((level, index) => {
      const at = level * (samples - 1);
      const [low, high] = [sorted[Math.floor(at)] as number, sorted[Math.ceil(at)] as number];
      (quantiles[index] as Float32Array)[cell] = low + (high - low) * (at - Math.floor(at));
    });
  }
  const shape = [batch, variates, horizon];
  return new Map<string, GoldenAnswer>([
    ["samples", { data, shape: [...shape, samples] }],
    ["mean", { data: mean, shape }],
    ...levels.map((level, index): [string, GoldenAnswer] => [`quantile${level}`, { data: quantiles[index] as Float32Array, shape }]),
  ]);
}

const scaler: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["patch", "stabilizeWithGlobal", "scaleFactorExponent", "prefix"]);
  const { device } = openDevice(context.device);
  const [batch, variates, length] = goldenInput(golden, "series").shape as [number, number, number];
  const patch = option<number>(golden, "patch");
  const exponent = option<number | undefined>(golden, "scaleFactorExponent") ?? 10;
  // Without a prefix the clamp looks at all samples (model-spec A.4).
  const prefix = option<number | null | undefined>(golden, "prefix") ?? length;
  const [sequences, patches] = [batch * variates, length / patch];
  const moments = new State(device, "moments", [sequences, 6], "f64");
  const run = compile(
    (values: Tensor, mask: Tensor, first: Tensor, count: Tensor, context_: Tensor, row: Tensor) => {
      const options = {
        fresh: true,
        addedVariance: 0.1,
        minimumScale: 0,
        clamp: option<boolean | undefined>(golden, "stabilizeWithGlobal") ?? true,
        lowFactor: 10 ** -exponent,
        highFactor: 10 ** exponent,
      };
      const statistics = causalScaler(values, mask, { first, count, prefix: context_, row }, moments, options);
      const [loc, scale] = [statistics.slice(1, 0, 1), statistics.slice(1, 1, 1)];
      return { loc, scale, z: values.sub(loc).div(scale) };
    },
    { device, mode: context.mode as Mode, name: "golden.scaler" },
  );
  const perSequence = (value: (s: number) => number): Tensor =>
    Tensor.from(
      Int32Array.from({ length: sequences }, (_, s) => value(s)),
      [size("sequences", sequences)],
    );
  const mask = Int32Array.from(goldenInput(golden, "mask").data as ArrayLike<number>);
  const answer = run(
    Tensor.from(floats(golden, "series"), [sequences * patches, patch]),
    Tensor.from(mask, [sequences * patches, patch]),
    perSequence((s) => s * patches),
    perSequence(() => patches),
    perSequence(() => prefix / patch),
    perSequence((s) => s),
  );
  run.dispose();
  moments.dispose();
  return Promise.resolve(
    new Map<string, GoldenAnswer>([
      ["loc", { data: answer.loc.data() as Float32Array, shape: [batch, variates, patches] }],
      ["scale", { data: answer.scale.data() as Float32Array, shape: [batch, variates, patches] }],
      ["z", { data: answer.z.data() as Float32Array, shape: [batch, variates, length] }],
    ]),
  );
};

const head: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, []);
  const checkpoint = goldenCheckpoint(golden, "model");
  const { device } = openDevice(context.device);
  const config = parseToto1Config(checkpoint.config);
  const weights = loadToto1Weights(checkpoint.source, config, device, { fold: false });
  const { components } = config;
  const [rows, width] = goldenInput(golden, "features").shape as [number, number];
  const heads = weights.heads;
  if (!heads) throw new Error("unfolded weights have no output heads");
  const run = compile(
    (features: Tensor) => {
      const centre = linear(features, heads.centre.weight, heads.centre.bias);
      const {
        df,
        location,
        scale,
        weights: mixture,
      } = outputParameters(centre, linear(features, heads.spread.weight, heads.spread.bias), components);
      return {
        df: df.mul(1),
        compLoc: location.mul(1),
        compScale: scale.mul(1),
        weights: mixture.mul(1),
        mean: mixture.mul(location).sum(),
      };
    },
    { device, mode: context.mode as Mode, name: "golden.head" },
  );
  const answer = run(Tensor.from(floats(golden, "features"), [rows, width]));
  const [loc, scale, points, realPoints] = [
    floats(golden, "loc"),
    floats(golden, "scale"),
    floats(golden, "points"),
    floats(golden, "realPoints"),
  ];
  const perPoint = points.length / rows;
  const parametersOf = (row: number) => {
    const part = (value: Tensor): Float32Array => (value.data() as Float32Array).subarray(row * components, (row + 1) * components);
    return { df: part(answer.df), location: part(answer.compLoc), scale: part(answer.compScale), weights: part(answer.weights) };
  };
  const density = Float32Array.from(points, (x, index) => mixtureLogDensity(x, parametersOf(Math.floor(index / perPoint))));
  const real = Float32Array.from(realPoints, (y, index) => {
    const row = Math.floor(index / perPoint);
    return realLogDensity(y, parametersOf(row), loc[row] as number, scale[row] as number);
  });
  const mean = Float32Array.from(
    answer.mean.data() as Float32Array,
    (value, row) => Math.fround((scale[row] as number) * value) + (loc[row] as number),
  );
  const result = new Map<string, GoldenAnswer>([
    ...(["df", "compLoc", "compScale", "weights"] as const).map((name): [string, GoldenAnswer] => [
      name,
      { data: answer[name].data() as Float32Array, shape: [rows, components] },
    ]),
    ["mean", { data: mean, shape: [rows] }],
    ["logDensity", { data: density, shape: [rows, perPoint] }],
    ["realLogDensity", { data: real, shape: [rows, perPoint] }],
  ]);
  run.dispose();
  weights.dispose();
  return Promise.resolve(result);
};

const sanitised: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, []);
  const values = floats(golden, "values");
  const run = compile((x: Tensor) => sanitise(x), {
    device: openDevice(context.device).device,
    mode: context.mode as Mode,
    name: "golden.sanitise",
  });
  const data = run(Tensor.from(values, [values.length])).data() as Float32Array;
  run.dispose();
  return Promise.resolve(new Map([["sanitised", { data, shape: [values.length] }]]));
};

export const toto1Goldens: GoldenFunctions = {
  "toto1.scaler": scaler,
  "toto1.forward": forward,
  "toto1.decodeMean": decodeMean,
  "toto1.decodeSamples": decodeSamples,
  "toto1.head": head,
  "toto1.sanitise": sanitised,
};
