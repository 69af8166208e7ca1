/** Whole forecasts with the three model families. Formula weights have the published models' shapes; what a forecast costs does not depend on the weights' values. */
import { openDevice, type Mode } from "../src/trace/entry.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import { KronosModel } from "../src/models/kronos/model.js";
import type { ForecastModel, ModelRequest, ModelSeries } from "../src/models/model.js";
import type { KvCacheStrategy } from "../src/models/options.js";
import type { Checkpoint } from "../src/models/tensor-source.js";
import { Toto1Model } from "../src/models/toto1/model.js";
import { Toto2Model } from "../src/models/toto2/model.js";
import { causalKeys, stackPass, type Pass, type Session, type Stack, type Workload } from "./workload.js";

const checkpointOf = (preset: string): Checkpoint => formulaCheckpoint(preset, { seed: 1 });

/** Elements of the two-dimensional tensors whose names match. */
function elements({ source }: Checkpoint, pattern: RegExp): number {
  const shapes = source.names().map((name) => ({ name, shape: source.info(name)?.shape ?? [] }));
  return shapes
    .filter(({ name, shape }) => shape.length === 2 && pattern.test(name))
    .reduce((sum, { shape: [a = 0, b = 0] }) => sum + a * b, 0);
}

/** One model at a time, in the modes that were asked for: the largest have 600 MB of weights. */
const loaded = new Map<Mode, ForecastModel>();
let loadedKey = "";

/** Frees the model that the last workload used. */
export function unloadModel(): void {
  for (const model of loaded.values()) model.dispose();
  loaded.clear();
}

type Options = Parameters<typeof Toto1Model.load>[3];

const loaders: Readonly<Record<string, (preset: string, threads: number, options: Options) => ForecastModel>> = {
  toto1: (preset, threads, options) => Toto1Model.load(preset, checkpointOf(preset), openDevice("native", { threads }), options),
  toto2: (preset, threads, options) => Toto2Model.load(preset, checkpointOf(preset), openDevice("native", { threads }), options),
  kronos: (preset, threads, options) => {
    const tokenizer = tokenizerOf(preset);
    return KronosModel.load(
      { name: preset, checkpoint: checkpointOf(preset) },
      { name: tokenizer, checkpoint: checkpointOf(tokenizer) },
      openDevice("native", { threads }),
      options,
    );
  },
};

const tokenizerOf = (preset: string): string => (preset === "kronos-mini" ? "kronos-tokenizer-2k" : "kronos-tokenizer-base");

export interface ForecastTask {
  readonly name: string;
  readonly preset: string;
  readonly series: readonly ModelSeries[];
  readonly horizon: number;
  readonly samples: number;
  readonly kvCache?: KvCacheStrategy;
  readonly decoding?: ModelRequest["decoding"];
}

export interface ForecastSession extends Session {
  /** Until a session of another model, or of another number of threads, is opened. */
  readonly model: ForecastModel;
}

export function openForecast(
  { preset, kvCache = "static", name: _name, ...request }: ForecastTask,
  mode: Mode,
  threads: number,
): ForecastSession {
  const key = `${preset} ${threads} ${kvCache}`;
  if (loadedKey !== key) unloadModel();
  loadedKey = key;
  const load = loaders[preset.split("-")[0] as string] as (typeof loaders)[string];
  const model = loaded.get(mode) ?? load(preset, threads, { mode, kvCache });
  loaded.set(mode, model);
  return {
    model,
    device: openDevice("native", { threads }).device,
    run: async () => void (await model.predict({ ...request, seed: 1 })),
    recompiles: () => model.report().recompiles,
    compileMs: () => model.report().milliseconds.compile,
    dispose: () => undefined,
  };
}

/** A daily wave by the hour with a weekly bump per variate. */
export const wave = (variates: number, length: number): ModelSeries => ({
  values: Array.from({ length: variates }, (_, v) => Float32Array.from({ length }, (_, i) => 50 + 10 * Math.sin(i / 24 + v) + (i % 7))),
  stream: 1,
});

/** Hourly candles around a wave, with their time features. */
export function candles(length: number, horizon: number): ModelSeries {
  const close = (i: number): number => 100 + 8 * Math.sin(i / 19) + (i % 5) / 3;
  const column = (value: (i: number) => number): Float32Array => Float32Array.from({ length }, (_, i) => value(i));
  const stamps = (from: number, count: number): Int32Array =>
    Int32Array.from({ length: count * 5 }, (_, at) => {
      const time = new Date(Date.UTC(2024, 0, 1, from + Math.floor(at / 5)));
      return [time.getUTCMinutes(), time.getUTCHours(), (time.getUTCDay() + 6) % 7, time.getUTCDate(), time.getUTCMonth() + 1][
        at % 5
      ] as number;
    });
  return {
    values: [
      column((i) => close(i - 1)),
      column((i) => Math.max(close(i), close(i - 1)) + 1),
      column((i) => Math.min(close(i), close(i - 1)) - 1),
      column(close),
      column((i) => 1000 + 100 * Math.sin(i)),
      column((i) => (1000 + 100 * Math.sin(i)) * close(i)),
    ],
    stamps: { context: stamps(0, length), future: stamps(length, horizon) },
    stream: 1,
  };
}

/* ---- Toto 1.0 ------------------------------------------------------------------------------------------------------------------- */

/** Unembedding and mixture heads are one matrix after the fold: four parameters of 24 components for each of 64 samples. */
function toto1Stack(): Stack {
  const { config } = checkpointOf("toto1-base");
  const width = Number(config["embed_dim"]);
  const patch = Number(config["patch_size"]);
  const components = Number((config["output_distribution_kwargs"] as Record<string, unknown>)["k_components"]);
  const layers = Number(config["num_layers"]);
  return {
    // Layers that mix variates see a key per variate, which does not count.
    layers: layers - layers / Number(config["spacewise_every_n_layers"]),
    attentionWidth: width,
    tokenMatrices: elements(checkpointOf("toto1-base"), /layers[.]|patch_embed/),
    answerMatrices: width * patch * components * 4,
  };
}

interface Toto1Task {
  readonly variates?: number;
  readonly context: number;
  readonly horizon: number;
  readonly samples: number;
  readonly cached?: boolean;
}

/** The prefix once for the series, then a token per path and variate; without a cache every step is a prefill that is one patch longer. */
export function toto1Passes({ variates = 1, context, horizon, samples, cached = true }: Toto1Task): Pass[] {
  const stack = toto1Stack();
  const [patches, steps, paths] = [Math.ceil(context / 64), Math.ceil(horizon / 64), Math.max(1, samples)];
  const prefill = (length: number): Pass =>
    stackPass(`prefill of ${length} patches`, stack, {
      tokens: variates * length,
      answers: variates,
      keys: variates * causalKeys(length),
      cached: 0,
    });
  if (!cached) return Array.from({ length: steps }, (_, step) => prefill(patches + step));
  const rows = variates * paths;
  const later = Array.from({ length: steps - 1 }, (_, step) =>
    stackPass(`step ${step + 2}`, stack, {
      tokens: rows,
      answers: rows,
      keys: rows * (patches + step + 1),
      cached: variates * patches + rows * step,
    }),
  );
  return [prefill(patches), ...later];
}

export function toto1Workload(name: string, task: Toto1Task): Workload {
  const { variates = 1, context, horizon, samples, cached = true } = task;
  const forecast = {
    name,
    preset: "toto1-base",
    series: [wave(variates, context)],
    horizon,
    samples,
    ...(cached ? {} : { kvCache: "none" as const }),
  };
  const parts = [`context ${context}`, `horizon ${horizon}`, samples === 0 ? "mean decode" : `${samples} samples`];
  return {
    name,
    task: `Toto 1.0 base, ${[...(variates > 1 ? [`${variates} variates`] : []), ...parts, ...(cached ? [] : ["no cache"])].join(", ")}`,
    passes: toto1Passes(task),
    open: (mode, threads) => openForecast(forecast, mode, threads),
  };
}

/* ---- Toto 2.0 ------------------------------------------------------------------------------------------------------------------- */

interface Toto2Task {
  readonly preset: "toto2-22m" | "toto2-4m";
  readonly batch: number;
  readonly horizon: number;
  readonly block?: number;
}

const toto2Context = 4096;

/** A round sees its block after the context; later rounds read the block before again, with its medians as values, and keep the keys before that. */
function toto2Passes({ preset, batch, horizon, block = horizon }: Toto2Task): Pass[] {
  const checkpoint = checkpointOf(preset);
  const { config } = checkpoint;
  const patch = Number(config["patch_size"]);
  const layers = Number(config["num_layers"]);
  const stack: Stack = {
    layers: layers - layers / Number(config["layer_group_size"]),
    attentionWidth: Number(config["num_heads"]) * Number(config["v_dim"]),
    tokenMatrices: elements(checkpoint, /layers[.]|patch_proj/),
    answerMatrices: elements(checkpoint, /output_head/),
  };
  const [context, future, most] = [toto2Context / patch, Math.ceil(horizon / patch), Math.ceil(block / patch)];
  const passes: Pass[] = [];
  for (let done = 0; done < future; done += most) {
    const answers = Math.min(most, future - done);
    const before = done === 0 ? 0 : context + done - most;
    const tokens = context + done + answers - before;
    passes.push(
      stackPass(`round ${passes.length + 1}`, stack, {
        tokens: batch * tokens,
        answers: batch * answers,
        keys: batch * causalKeys(tokens, before),
        cached: batch * before,
      }),
    );
  }
  return passes;
}

export function toto2Workload(name: string, task: Toto2Task): Workload {
  const { preset, batch, horizon, block } = task;
  const series = Array.from({ length: batch }, () => wave(1, toto2Context));
  const decoding = block === undefined ? {} : { decoding: { decodeBlockSize: block } };
  return {
    name,
    task: `Toto 2.0 ${preset.slice(6)}, context ${toto2Context}, horizon ${horizon}, batch ${batch}${block === undefined ? "" : `, block ${block}`}`,
    passes: toto2Passes(task),
    open: (mode, threads) => openForecast({ name, preset, series, horizon, samples: 0, ...decoding }, mode, threads),
  };
}

/* ---- Kronos ------------------------------------------------------------------------------------------------------------------------ */

interface KronosTask {
  readonly preset: "kronos-mini" | "kronos-small" | "kronos-base";
  readonly lookback: number;
  readonly horizon: number;
  readonly samples: number;
}

interface KronosStacks {
  readonly model: Stack;
  readonly encoder: Stack;
  readonly decoder: Stack;
  readonly window: number;
}

/** Without the matrices that depend on a token alone, which become tables at load: fusion of the embeddings and the dependency layer's query. */
function kronosStacks(preset: string): KronosStacks {
  const [checkpoint, tokenizer] = [checkpointOf(preset), checkpointOf(tokenizerOf(preset))];
  const tokenizerStack = (side: "encoder" | "decoder", others: RegExp): Stack => ({
    // Files hold one layer less than the configuration names.
    layers: Number(tokenizer.config[side === "encoder" ? "n_enc_layers" : "n_dec_layers"]) - 1,
    attentionWidth: Number(tokenizer.config["d_model"]),
    tokenMatrices: elements(tokenizer, new RegExp(`^${side}[.]`)) + elements(tokenizer, others),
    answerMatrices: 0,
  });
  return {
    model: {
      // The dependency layer attends as well.
      layers: Number(checkpoint.config["n_layers"]) + 1,
      attentionWidth: Number(checkpoint.config["d_model"]),
      tokenMatrices: elements(checkpoint, /^transformer[.]|cross_attn[.][kv]_proj/),
      answerMatrices: elements(checkpoint, /^head[.]|cross_attn[.]out_proj/),
    },
    encoder: tokenizerStack("encoder", /^embed[.]|^quant_embed/),
    decoder: tokenizerStack("decoder", /^head[.]|^post_quant_embed[.]/),
    window: preset === "kronos-mini" ? 2048 : 512,
  };
}

/** Encode and prefill once, a token per path and candle while the window holds them all, whole windows afterwards, and one decode of the last window. */
export function kronosPasses({ preset, lookback, horizon, samples }: KronosTask): Pass[] {
  const { model, encoder, decoder, window } = kronosStacks(preset);
  const whole = (name: string, sequences: number, tokens: number, count = 1): Pass =>
    stackPass(name, model, { tokens: sequences * tokens, answers: samples, keys: sequences * causalKeys(tokens), cached: 0 }, count);
  const growing = Math.min(horizon - 1, window - lookback);
  const steps = Array.from({ length: growing }, (_, step) =>
    stackPass(`step ${step + 2}`, model, {
      tokens: samples,
      answers: samples,
      keys: samples * (lookback + step + 1),
      cached: lookback + samples * step,
    }),
  );
  const slides = horizon - 1 - growing;
  const context = Math.min(lookback, window - horizon);
  return [
    stackPass("encode", encoder, { tokens: lookback, answers: 0, keys: causalKeys(lookback), cached: 0 }),
    whole("prefill", 1, lookback),
    ...steps,
    ...(slides > 0 ? [whole("whole window", samples, window, slides)] : []),
    stackPass("decode", decoder, {
      tokens: context + samples * horizon,
      answers: 0,
      keys: causalKeys(context) + samples * causalKeys(horizon, context),
      cached: 0,
    }),
  ];
}

export function kronosWorkload(name: string, task: KronosTask): Workload {
  const { preset, lookback, horizon, samples } = task;
  const series = [candles(lookback, horizon)];
  return {
    name,
    task: `${preset.replace("kronos", "Kronos")} with tokenizer, lookback ${lookback}, ${horizon} candles, ${samples === 1 ? "1 sample" : `${samples} samples`}`,
    passes: kronosPasses(task),
    open: (mode, threads) => openForecast({ name, preset, series, horizon, samples }, mode, threads),
  };
}
