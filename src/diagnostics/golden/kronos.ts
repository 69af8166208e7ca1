/** Golden functions of Kronos: each case run through the generator that forecasts use, with taps (folds off) or as the product. */
import {
  averagePaths,
  compile,
  denormalise,
  featuresOf,
  fillCandles,
  KronosCodec,
  KronosGenerator,
  KronosNetwork,
  kronosCacheShape,
  KeyValueCache,
  loadKronosModelWeights,
  loadKronosTokenizerWeights,
  normaliseCandles,
  openDevice,
  parseKronosModelConfig,
  parseKronosTokenizerConfig,
  parseStamp,
  placesOf,
  stackRotary,
  Tensor,
  tokenProbabilities,
  wallClock,
  type CandleColumns,
  type GenerateRequest,
  type KronosModelConfig,
  type KronosTokenizerConfig,
  type LogitsInputs,
  type Mode,
} from "../../internals.js";
import { checkGoldenOptions, goldenCheckpoint, goldenInput, type GoldenCase } from "./case.js";
import type { GoldenAnswer } from "./compare.js";
import type { GoldenContext, GoldenFunction, GoldenFunctions } from "./run.js";

type Answers = Map<string, GoldenAnswer>;
type Taps = ReadonlyMap<string, Tensor>;

const floats = (golden: GoldenCase, name: string): Float32Array => Float32Array.from(goldenInput(golden, name).data as ArrayLike<number>);
const whole = (golden: GoldenCase, name: string): Int32Array =>
  Int32Array.from(goldenInput(golden, name).data as ArrayLike<bigint | number>, Number);
const option = <T>(golden: GoldenCase, name: string, otherwise?: T): T => (golden.options[name] ?? otherwise) as T;

const dataOf = (taps: Taps, name: string): Float32Array => {
  const value = taps.get(name);
  if (!value) throw new Error(`the program has no tap "${name}"; it has ${[...taps.keys()].join(", ")}`);
  return value.data() as Float32Array;
};

interface Codec {
  readonly codec: KronosCodec;
  readonly config: KronosTokenizerConfig;
}

async function withCodec(golden: GoldenCase, context: GoldenContext, body: (parts: Codec) => Promise<Answers>): Promise<Answers> {
  const { device } = openDevice(context.device);
  const checkpoint = goldenCheckpoint(golden, "tokenizer");
  const config = parseKronosTokenizerConfig(checkpoint.config);
  const weights = loadKronosTokenizerWeights(checkpoint.source, config, device);
  const codec = new KronosCodec(config, weights, { device, mode: context.mode as Mode, taps: context.program === "taps" });
  try {
    return await body({ codec, config });
  } finally {
    codec.dispose();
    weights.dispose();
    checkpoint.source.close();
  }
}

const withGenerator = (
  golden: GoldenCase,
  context: GoldenContext,
  body: (generator: KronosGenerator, config: KronosModelConfig) => Promise<Answers>,
): Promise<Answers> =>
  withCodec(golden, context, async ({ codec }) => {
    const { device } = openDevice(context.device);
    const product = context.program === "product";
    const checkpoint = goldenCheckpoint(golden, "model");
    const config = parseKronosModelConfig(checkpoint.config);
    const weights = loadKronosModelWeights(checkpoint.source, config, device, { fold: product });
    const options = { device, mode: context.mode as Mode, cached: true, sharePrefix: true, taps: !product };
    const generator = new KronosGenerator(config, weights, codec, options);
    try {
      return await body(generator, config);
    } finally {
      generator.dispose();
      weights.dispose();
      checkpoint.source.close();
    }
  });

const tokenizer: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, []);
  return withCodec(golden, context, async ({ codec, config }) => {
    const { width, coarseBits, fineBits } = config;
    const [batch, length, columns] = goldenInput(golden, "x").shape as [number, number, number];
    const x = floats(golden, "x");
    const bits = coarseBits + fineBits;
    const answers: Answers = new Map();
    const put = (name: string, shape: readonly number[], data: GoldenAnswer["data"]): void => void answers.set(name, { data, shape });
    const entries = Array.from({ length: batch }, (__, b) => ({ candles: x.slice(b * length * columns, (b + 1) * length * columns) }));
    const onTaps = (taps: Taps): void => {
      for (const [name, value] of taps) {
        if (name === "z" || name === "quantised") put(name, [batch, length, bits], value.data() as Float32Array);
        else if (/^embed$|^postQuant$|^(en|de)coder\d+\.out$/.test(name)) put(name, [batch, length, width], value.data() as Float32Array);
      }
    };
    const tokens = await codec.encode(entries, undefined, onTaps);
    const both = (part: "coarse" | "fine"): number[] => tokens.flatMap((entry) => Array.from(entry[part]));
    put("s1", [batch, length], both("coarse"));
    put("s2", [batch, length], both("fine"));
    const codes = tokens.flatMap(({ coarse, fine }) => Array.from(coarse, (token, t) => [token, fine[t] as number] as const));
    const bit = (code: readonly [number, number], j: number): number => (j < coarseBits ? code[0] >> j : code[1] >> (j - coarseBits)) & 1;
    put(
      "bits",
      [batch, length, bits],
      codes.flatMap((code) => Array.from({ length: bits }, (__, j) => bit(code, j))),
    );
    const none = { coarse: new Int32Array(0), fine: new Int32Array(0) };
    const decoded = await codec.decode(
      tokens.map(() => none),
      tokens.map((entry, source) => ({ ...entry, source })),
      undefined,
      onTaps,
    );
    put("reconstruction", [batch, length, columns], decoded);
    return answers;
  });
};

/** [sequences * T, heads, width] -> [sequences, heads, T, width]. */
function headsFirst(values: Float32Array, sequences: number, heads: number, width: number): Float32Array {
  const count = values.length / (sequences * heads * width);
  const result = new Float32Array(values.length);
  for (let row = 0; row < sequences * count * heads; row++) {
    const [s, t, h] = [Math.floor(row / (count * heads)), Math.floor(row / heads) % count, row % heads];
    result.set(values.subarray(row * width, (row + 1) * width), ((s * heads + h) * count + t) * width);
  }
  return result;
}

const logits: GoldenFunction = async (golden, context) => {
  checkGoldenOptions(golden, []);
  const { device } = openDevice(context.device);
  const product = context.program === "product";
  const checkpoint = goldenCheckpoint(golden, "model");
  const config = parseKronosModelConfig(checkpoint.config);
  const weights = loadKronosModelWeights(checkpoint.source, config, device, { fold: product });
  const [batch, length] = goldenInput(golden, "s1").shape as [number, number];
  const { width, heads, layers } = config;
  const blocks = new KeyValueCache(device, "prefix", kronosCacheShape(config, layers));
  const dependency = new KeyValueCache(device, "prefixDependency", kronosCacheShape({ ...config, heads: 4 }, 1));
  blocks.ensure(batch, length);
  dependency.ensure(batch, length);
  const headWidth = width / heads;
  const rotary = stackRotary(device, "rotary", config, weights.frequencies, length);
  const network = new KronosNetwork(config, weights);
  const run = compile((inputs: LogitsInputs) => ({ ...network.logits(inputs) }), {
    device,
    mode: context.mode as Mode,
    name: "golden.logits",
    taps: !product,
  });
  const vector = (values: Int32Array): Tensor => Tensor.from(values, [values.length]);
  const stamps = whole(golden, "stamps");
  const sequences = Array.from({ length: batch }, (_, row) => row);
  const plain = placesOf(
    sequences.map((row) => ({ row, position: 0, count: length })),
    "tokens",
  );
  const answer = run({
    stream: {
      coarse: vector(whole(golden, "s1")),
      fine: vector(whole(golden, "s2")),
      stamps: Array.from({ length: 5 }, (_, column) =>
        vector(Int32Array.from({ length: batch * length }, (__, t) => stamps[t * 5 + column] as number)),
      ),
    },
    places: {
      position: vector(plain.position.data() as Int32Array),
      row: vector(plain.row.data() as Int32Array),
      slot: vector(plain.slot.data() as Int32Array),
      length: vector(plain.length.data() as Int32Array),
    },
    length: vector(new Int32Array(batch).fill(length)),
    chosen: vector(whole(golden, "chosen")),
    sequenceRow: vector(Int32Array.from(sequences)),
    caches: { blocks: blocks.layers, dependency: dependency.layers[0] as NonNullable<(typeof dependency.layers)[0]> },
    rotary,
  });
  const answers: Answers = new Map<string, GoldenAnswer>([
    ["s1Logits", { data: answer.coarse.data() as Float32Array, shape: [batch, length, 2 ** config.coarseBits] }],
    ["s2Logits", { data: answer.fine.data() as Float32Array, shape: [batch, length, 2 ** config.fineBits] }],
  ]);
  for (const [name, value] of run.taps()) {
    const data = value.data() as Float32Array;
    if (/\.[qk]$/.test(name))
      answers.set(name, { data: headsFirst(data, batch, heads, headWidth), shape: [batch, heads, length, headWidth] });
    else if (name === "cross") answers.set(name, { data, shape: [batch, 1, width] });
    else if (!answers.has(name)) answers.set(name, { data, shape: [batch, length, width] });
  }
  run.dispose();
  blocks.dispose();
  dependency.dispose();
  rotary.cosine.dispose();
  rotary.sine.dispose();
  weights.dispose();
  checkpoint.source.close();
  return answers;
};

interface Combination {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
}

const filter: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["combinations"]);
  const answers: Answers = new Map();
  const run = compile((values: Tensor, settings: Tensor) => tokenProbabilities(values, settings), {
    device: openDevice(context.device).device,
    mode: context.mode as Mode,
    name: "golden.filter",
  });
  option<readonly Combination[]>(golden, "combinations").forEach(({ temperature, topK, topP }, index) => {
    const settings = Tensor.from(Float32Array.of(temperature, topK, topP), [3]);
    for (const [input, prefix] of [
      ["logits", ""],
      ["tied", "tied"],
    ] as const) {
      if (prefix !== "" && (topK === 0 || !golden.inputs.has(input))) continue;
      const shape = goldenInput(golden, input).shape as [number, number];
      const probabilities = run(Tensor.from(floats(golden, input), shape), settings).data() as Float32Array;
      const named = (name: string): string => `${prefix}${prefix === "" ? name : name[0]?.toUpperCase() + name.slice(1)}${index}`;
      answers.set(named("kept"), { data: Array.from(probabilities, (p) => (p > 0 ? 1 : 0)), shape });
      answers.set(named("probabilities"), { data: probabilities, shape });
    }
  });
  run.dispose();
  return Promise.resolve(answers);
};

interface GenerateParts {
  /** [B][T0 * 6] normalised. */
  readonly candles: readonly Float32Array[];
  readonly stamps: readonly Int32Array[];
  readonly futureStamps: readonly Int32Array[];
}

async function generated(golden: GoldenCase, context: GoldenContext, parts: GenerateParts, answers: Answers): Promise<Answers> {
  const [steps, paths] = [option<number>(golden, "predLen"), option<number>(golden, "sampleCount")];
  return withGenerator(golden, context, async (generator, config) => {
    const batch = parts.candles.length;
    const rows = batch * paths;
    const history: Taps[] = [];
    const forced = option<boolean>(golden, "forced", false) ? [whole(golden, "forcedS1"), whole(golden, "forcedS2")] : undefined;
    const ofStep = (values: Int32Array, step: number): Int32Array => values.subarray(step * rows, (step + 1) * rows);
    const request: GenerateRequest = {
      entries: parts.candles.map((candles, b) => ({
        candles,
        stamps: parts.stamps[b] as Int32Array,
        futureStamps: parts.futureStamps[b] as Int32Array,
        paths,
      })),
      steps,
      window: option<number>(golden, "maxContext"),
      keys: new Int32Array(rows * 2),
      seed: 0,
      temperature: option<number>(golden, "temperature"),
      topK: option<number>(golden, "topK"),
      topP: option<number>(golden, "topP", 1),
      ...(forced
        ? { forced: (step) => ({ coarse: ofStep(forced[0] as Int32Array, step), fine: ofStep(forced[1] as Int32Array, step) }) }
        : {}),
      onStep: (_, taps) => history.push(taps),
    };
    const { context: tokens, tokens: drawn, values } = await generator.generate(request);
    const length = (tokens[0]?.coarse.length ?? 0) as number;
    const repeated = (part: "coarse" | "fine"): number[] =>
      tokens.flatMap((entry) => Array.from({ length: paths }, () => Array.from(entry[part])).flat());
    answers.set("contextS1", { data: repeated("coarse"), shape: [rows, length] });
    answers.set("contextS2", { data: repeated("fine"), shape: [rows, length] });
    const perStep = (part: "coarse" | "fine"): number[] =>
      Array.from({ length: steps }, (_, step) => drawn.map((row) => row[part][step] as number)).flat();
    answers.set("s1", { data: perStep("coarse"), shape: [steps, rows] });
    answers.set("s2", { data: perStep("fine"), shape: [steps, rows] });
    if (context.program === "taps") {
      const shapes = { hidden: config.width, s1Logits: 2 ** config.coarseBits, s2Logits: 2 ** config.fineBits };
      for (const [name, width] of Object.entries(shapes)) {
        const stored = golden.expected.find((tensor) => tensor.name === name)?.shape[0] ?? steps;
        // Large cases keep the first and the last step only.
        const kept = stored === steps ? history : [history[0] as Taps, history[history.length - 1] as Taps];
        const data = kept.flatMap((taps) => Array.from(dataOf(taps, `candle.${name}`)));
        answers.set(name, { data, shape: [kept.length, rows, width] });
      }
    }
    const count = steps * 6;
    const prediction = Array.from({ length: batch }, (_, b) =>
      Array.from(averagePaths(values.subarray(b * paths * count, (b + 1) * paths * count), paths, count)),
    ).flat();
    answers.set("prediction", { data: prediction, shape: [batch, steps, 6] });
    return answers;
  });
}

const generate: GoldenFunction = (golden, context) => {
  checkGoldenOptions(golden, ["maxContext", "predLen", "sampleCount", "topK", "topP", "temperature", "clip", "forced"]);
  const [batch, length] = goldenInput(golden, "x").shape as [number, number];
  const clip = option<number>(golden, "clip");
  const steps = option<number>(golden, "predLen");
  const [x, stamps, future] = [floats(golden, "x"), whole(golden, "stamps"), whole(golden, "futureStamps")];
  const perSeries = Array.from({ length: batch }, (_, b) => b);
  const parts = {
    candles: perSeries.map((b) => x.slice(b * length * 6, (b + 1) * length * 6).map((value) => Math.min(Math.max(value, -clip), clip))),
    stamps: perSeries.map((b) => stamps.slice(b * length * 5, (b + 1) * length * 5)),
    futureStamps: perSeries.map((b) => future.slice(b * steps * 5, (b + 1) * steps * 5)),
  };
  return generated(golden, context, parts, new Map());
};

const predict: GoldenFunction = async (golden, context) => {
  checkGoldenOptions(golden, [
    "maxContext",
    "predLen",
    "sampleCount",
    "topK",
    "topP",
    "temperature",
    "clip",
    "forced",
    "columns",
    "source",
    "timestamps",
    "futureTimestamps",
  ]);
  const names = option<readonly string[]>(golden, "columns");
  const table = goldenInput(golden, "candles").data as ArrayLike<number>;
  const length = table.length / names.length;
  const columns = Object.fromEntries(
    names.map((name, column) => [name, Float64Array.from({ length }, (_, row) => table[row * names.length + column] as number)]),
  ) as unknown as CandleColumns;
  const { scale, candles } = normaliseCandles(fillCandles(columns), option<number>(golden, "clip"));
  const features = (stamps: readonly string[]): Int32Array =>
    featuresOf(
      stamps.map((text) => {
        const stamp = parseStamp(text);
        if (!stamp) throw new Error(`golden case ${golden.name}: "${text}" is no timestamp`);
        return wallClock(stamp);
      }),
    );
  const stamps = features(option<readonly string[]>(golden, "timestamps"));
  const futureStamps = features(option<readonly string[]>(golden, "futureTimestamps"));
  const steps = option<number>(golden, "predLen");
  const answers: Answers = new Map<string, GoldenAnswer>([
    ["stamps", { data: Array.from(stamps), shape: [length, 5] }],
    ["futureStamps", { data: Array.from(futureStamps), shape: [steps, 5] }],
    ["mean", { data: scale.mean, shape: [6] }],
    ["std", { data: scale.deviation, shape: [6] }],
    ["x", { data: candles, shape: [length, 6] }],
  ]);
  await generated(golden, context, { candles: [candles], stamps: [stamps], futureStamps: [futureStamps] }, answers);
  const prediction = Float32Array.from((answers.get("prediction") as GoldenAnswer).data as ArrayLike<number>);
  answers.set("forecast", { data: prediction.map((value, index) => denormalise(value, index % 6, scale)), shape: [steps, 6] });
  return answers;
};

export const kronosGoldens: GoldenFunctions = {
  "kronos.tokenizer": tokenizer,
  "kronos.logits": logits,
  "kronos.filter": filter,
  "kronos.generate": generate,
  "kronos.predict": predict,
};
