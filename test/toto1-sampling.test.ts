/**
 * The mixture draw of Toto 1.0 against the distribution it stands for: known answers of the generator, uniformity, Kolmogorov-Smirnov and moment tests on both
 * devices, independence of counters, injected draws. Seeds are fixed, so a test either always passes or always fails; thresholds are those of a false alarm in
 * `alarm` of all seeds per test.
 */
import { describe, expect, test } from "vitest";
import { philox, studentT, uniform } from "../src/ir/ops/random.js";
import { logGamma } from "../src/models/toto1/distribution.js";
import { outputParameters } from "../src/models/toto1/forward.js";
import { compile, mixtureDraw, Tensor } from "../src/tensor/index.js";
import { openDevice, size } from "../src/trace/entry.js";
import { firstDifference, loadToto1, makeRandom, makeSeries } from "./toto1-harness.js";

/** Rate of false alarms per test, over seeds. */
const alarm = 1e-4;
const seed = 20240;

/** Critical Kolmogorov-Smirnov distance for n draws: P(D sqrt(n) > c) = 2 exp(-2 c^2) at most. */
const criticalDistance = (n: number): number => Math.sqrt(Math.log(2 / alarm) / 2 / n);
/** |z| that a standard normal exceeds at the rate of `alarm` (3.89), with room for many z of one test. */
const criticalZ = 3.89;

/** Continued fraction of the regularised incomplete beta function (Lentz). */
function betaRatio(a: number, b: number, x: number): number {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - betaRatio(b, a, 1 - x);
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b)) / a;
  let [c, d] = [1, 1 / (1 - ((a + b) * x) / (a + 1))];
  let h = d;
  for (let m = 1; m < 500; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / (1 + even * d);
    c = 1 + even / c;
    h *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / (1 + odd * d);
    c = 1 + odd / c;
    h *= d * c;
    if (Math.abs(d * c - 1) < 1e-14) break;
  }
  return front * h;
}

/** P(T <= t) of Student's t. */
function studentCumulative(t: number, df: number): number {
  const tail = 0.5 * betaRatio(df / 2, 0.5, df / (df + t * t));
  return t > 0 ? 1 - tail : tail;
}

interface Component {
  readonly df: number;
  readonly location: number;
  readonly scale: number;
  readonly weight: number;
}

const cumulative = (x: number, mixture: readonly Component[]): number =>
  mixture.reduce((sum, { df, location, scale, weight }) => sum + weight * studentCumulative((x - location) / scale, df), 0);

/** softplus(raw) = value. */
const rawOf = (value: number): number => (value > 20 ? value : Math.log(Math.expm1(value)));

/** Raw parameters of one sample position, in the order the draw reads: df, scale, location, logits. */
function rawParameters(mixture: readonly Component[]): Float32Array {
  const single = mixture.length === 1;
  return Float32Array.from([
    ...mixture.map(({ df }) => rawOf(Math.max(df - 2, 1e-7))),
    ...mixture.map(({ scale }) => rawOf(scale)),
    ...mixture.map(({ location }) => location),
    ...(single ? [] : mixture.map(({ weight }) => Math.log(weight) + 3)),
  ]);
}

const devices = ["native", "reference"] as const;
type DeviceName = (typeof devices)[number];

interface DrawChoice {
  readonly device: DeviceName;
  readonly mixture: readonly Component[];
  readonly rows: number;
  readonly patch?: number;
  readonly seed?: number;
  /** Counter of each row: series stream, path, variate, first sample. */
  readonly key?: (row: number) => readonly [number, number, number, number];
  readonly injected?: { readonly component: Int32Array; readonly normal: Float32Array; readonly chiSquare: Float32Array };
}

/** [rows * patch] draws, all of the same mixture. */
function draw({
  device,
  mixture,
  rows,
  patch = 8,
  seed: ofSeed = seed,
  key = (row) => [0, row, 0, 0],
  injected,
}: DrawChoice): Float32Array {
  const single = rawParameters(mixture);
  const raw = new Float32Array(patch * single.length);
  for (let position = 0; position < patch; position++) raw.set(single, position * single.length);
  const keys = new Int32Array(3 * rows);
  const start = new Int32Array(rows);
  for (let row = 0; row < rows; row++) {
    const [stream, path, variate, first] = key(row);
    keys.set([stream, path, variate], 3 * row);
    start[row] = first;
  }
  const axis = size("rows", rows);
  const run = compile(
    (
      parameters: Tensor,
      source: Tensor,
      counters: Tensor,
      from: Tensor,
      seeds: Tensor,
      given?: Record<"component" | "normal" | "chiSquare", Tensor>,
    ) => mixtureDraw(parameters, source, counters, from, seeds, mixture.length, given),
    { device: openDevice(device).device, mode: "reduce-overhead", name: "draw", dynamic: { rows: [1, 1 << 20] } },
  );
  try {
    return run(
      Tensor.from(raw, [1, patch, single.length]),
      Tensor.from(new Int32Array(rows), [axis]),
      Tensor.from(keys, [axis, 3]),
      Tensor.from(start, [axis]),
      Tensor.from(Int32Array.of(ofSeed | 0, Math.floor(ofSeed / 2 ** 32) | 0), [2]),
      injected && {
        component: Tensor.from(injected.component, [axis, patch]),
        normal: Tensor.from(injected.normal, [axis, patch]),
        chiSquare: Tensor.from(injected.chiSquare, [axis, patch]),
      },
    ).data() as Float32Array;
  } finally {
    run.dispose();
  }
}

/** Largest distance between the draws' step function and the mixture's distribution function. */
function distance(draws: Float32Array, mixture: readonly Component[]): number {
  const sorted = Float64Array.from(draws).sort();
  let worst = 0;
  sorted.forEach((x, index) => {
    const expected = cumulative(x, mixture);
    worst = Math.max(worst, expected - index / sorted.length, (index + 1) / sorted.length - expected);
  });
  return worst;
}

const mixtures: Readonly<Record<string, readonly Component[]>> = {
  "df 2.0000001, heaviest tails": [{ df: 2.0000001, location: 0, scale: 1, weight: 1 }],
  "df 2.5": [{ df: 2.5, location: -3, scale: 0.2, weight: 1 }],
  "df 7": [{ df: 7, location: 10, scale: 4, weight: 1 }],
  "df 1000, nearly normal": [{ df: 1000, location: 0, scale: 1, weight: 1 }],
  "two apart": [
    { df: 4, location: -5, scale: 1, weight: 0.3 },
    { df: 30, location: 5, scale: 0.5, weight: 0.7 },
  ],
  "a rare one among four": [
    { df: 3, location: 0, scale: 1, weight: 0.5 },
    { df: 2.2, location: 1, scale: 2, weight: 0.01 },
    { df: 12, location: -4, scale: 0.1, weight: 0.29 },
    { df: 80, location: 9, scale: 3, weight: 0.2 },
  ],
  "24 components": Array.from({ length: 24 }, (_, k) => ({ df: 2.1 + k, location: k - 12, scale: 0.3 + 0.1 * k, weight: (k + 1) / 300 })),
};

describe("the generator", () => {
  test("known answers of Philox 4x32-10 (Random123)", () => {
    expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    const ones = 0xffffffff;
    expect(philox([ones, ones, ones, ones], [ones, ones])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
    expect(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1,
    ]);
  });

  test("uniform numbers are never 0 or 1", () => {
    expect(uniform(0)).toBe(2 ** -33);
    expect(uniform(0xffffffff)).toBe(1 - 2 ** -33);
  });

  test("every word of successive counters is uniform: chi-square over 256 cells, each word and each counter place", () => {
    // 255 degrees: mean 255, deviation 22.6; 360 is exceeded about once in 10,000 seeds.
    for (let place = 0; place < 4; place++) {
      const cells = [0, 1, 2, 3].map(() => new Float64Array(256));
      const count = 25600;
      for (let i = 0; i < count; i++) {
        const counter: [number, number, number, number] = [0, 0, 0, 0];
        counter[place] = i;
        philox(counter, [seed, 0]).forEach((word, which) => cells[which]![word >>> 24]!++);
      }
      for (const histogram of cells) {
        const statistic = histogram.reduce((sum, n) => sum + (n - count / 256) ** 2 / (count / 256), 0);
        expect(statistic).toBeLessThan(360);
        expect(statistic).toBeGreaterThan(170);
      }
    }
  });

  test("the polar form is Student's t: quantiles of u on a grid", () => {
    // At v = 0 the cosine is 1, so |t| of the pair (u, v) is the radius, whose distribution is P(R^2 > r^2) = (1 + r^2 / df)^(-df / 2).
    for (const df of [2, 2.5, 7, 1000])
      for (const u of [1e-9, 0.01, 0.3, 0.9, 1 - 1e-9]) expect((1 + studentT(u, 0, df) ** 2 / df) ** (-df / 2) / u).toBeCloseTo(1, 6);
  });
});

describe(`draws against the mixture, false alarms ${alarm} (seed ${seed})`, () => {
  for (const device of devices) {
    const rows = device === "native" ? 5000 : 2500;
    test.each(Object.entries(mixtures))(`Kolmogorov-Smirnov, ${device}: %s`, (_name, mixture) => {
      const draws = draw({ device, mixture, rows });
      expect(draws.every(Number.isFinite)).toBe(true);
      expect(distance(draws, mixture)).toBeLessThan(criticalDistance(draws.length));
    });
  }

  test("the test itself sees a scale wrong by 5%, a wrong weight, and normal draws instead of df 4", () => {
    const mixture = mixtures["two apart"]!;
    const draws = draw({ device: "native", mixture, rows: 5000 });
    const scaled = mixture.map((component) => ({ ...component, scale: component.scale * 1.05 }));
    const weighted = mixture.map((component, k) => ({ ...component, weight: component.weight + (k ? -0.02 : 0.02) }));
    const normal = mixture.map((component) => ({ ...component, df: 1e6 }));
    const single = [{ df: 4, location: 0, scale: 1, weight: 1 }];
    expect(distance(draws, weighted)).toBeGreaterThan(criticalDistance(draws.length));
    expect(distance(draw({ device: "native", mixture: single, rows: 5000 }), [{ ...single[0]!, df: 1e6 }])).toBeGreaterThan(
      criticalDistance(40000),
    );
    expect(distance(draw({ device: "native", mixture: single, rows: 20000 }), [{ ...single[0]!, scale: 1.05 }])).toBeGreaterThan(
      criticalDistance(160000),
    );
    expect(distance(draws, scaled)).toBeGreaterThan(distance(draws, mixture));
    expect(distance(draws, normal)).toBeGreaterThan(distance(draws, mixture));
  });

  test("mean, variance, skewness and kurtosis where they exist", () => {
    const df = 12;
    const draws = draw({ device: "native", mixture: [{ df, location: 2, scale: 3, weight: 1 }], rows: 12500 });
    const n = draws.length;
    const z = Float64Array.from(draws, (x) => (x - 2) / 3);
    const moment = (power: number): number => z.reduce((sum, x) => sum + x ** power, 0) / n;
    /** E t^k of Student's t, even k below df. */
    const exact = (k: number): number => {
      let value = df ** (k / 2);
      for (let i = 1; i <= k / 2; i++) value *= (2 * i - 1) / (df - 2 * i);
      return value;
    };
    for (const power of [1, 2, 3, 4]) {
      const expected = power % 2 ? 0 : exact(power);
      const deviation = Math.sqrt((exact(2 * power) - expected ** 2) / n);
      expect(Math.abs(moment(power) - expected) / deviation, `moment ${power}`).toBeLessThan(criticalZ);
    }
  });

  test("components are chosen as often as their weights say, also when one has nearly all", () => {
    for (const weights of [
      [0.1, 0.2, 0.3, 0.4],
      [1e-4, 0.9998, 1e-4],
      [0.5, 0.5],
    ]) {
      // Components far apart and narrow: which one a draw came from shows in its value.
      const mixture = weights.map((weight, k) => ({ df: 50, location: 1000 * k, scale: 1, weight }));
      const draws = draw({ device: "native", mixture, rows: 10000 });
      weights.forEach((weight, k) => {
        const count = draws.filter((x) => Math.round(x / 1000) === k).length;
        const deviation = Math.sqrt(draws.length * weight * (1 - weight));
        expect(Math.abs(count - draws.length * weight) / deviation, `${weights.join()} component ${k}`).toBeLessThan(criticalZ + 1);
      });
    }
  });

  test("native and reference draw the same numbers, up to rounding", () => {
    for (const [name, mixture] of Object.entries(mixtures)) {
      const [native, reference] = devices.map((device) => draw({ device, mixture, rows: 400 })) as [Float32Array, Float32Array];
      const apart = native.filter((x, i) => !(Math.abs(x - reference[i]!) <= 1e-5 * (1 + Math.abs(reference[i]!)))).length;
      expect(apart, name).toBe(0);
    }
  });
});

describe("counters", () => {
  const mixture = mixtures["a rare one among four"]!;
  const one = (device: DeviceName, key: readonly [number, number, number, number], ofSeed = seed): Float32Array =>
    draw({ device, mixture, rows: 1, patch: 64, key: () => key, seed: ofSeed });

  for (const device of devices) {
    test(`stream, path, variate, sample and both seed words each give other draws: ${device}`, () => {
      const origin: readonly [number, number, number, number] = [3, 5, 2, 640];
      const draws = [one(device, origin)];
      for (let place = 0; place < 4; place++) {
        for (const step of [1, place === 3 ? 64 : 256, place === 2 ? 1 << 20 : 1 << 30]) {
          const moved = [...origin] as [number, number, number, number];
          moved[place]! += step;
          // One sample further is the same sequence shifted by one: the same absolute sample, not a new draw.
          if (place === 3 && step === 1) {
            expect(firstDifference(one(device, moved).slice(0, 63), draws[0]!.slice(1))).toBeUndefined();
            continue;
          }
          draws.push(one(device, moved));
        }
      }
      draws.push(one(device, origin, seed + 1), one(device, origin, seed + 2 ** 32), one(device, [-3, 5, 2, 640]));
      const all = draws.flatMap((values) => [...values]);
      expect(new Set(all).size).toBe(all.length);
      expect(firstDifference(one(device, origin), draws[0]!)).toBeUndefined();
    });
  }

  test(`neighbouring paths, steps, variates and streams are uncorrelated, false alarms ${alarm}`, () => {
    const normalish = [{ df: 200, location: 0, scale: 1, weight: 1 }];
    const n = 20000;
    const correlation = (a: Float32Array, b: Float32Array): number => {
      const [meanA, meanB] = [a, b].map((values) => values.reduce((sum, x) => sum + x, 0) / values.length) as [number, number];
      let [both, first, second] = [0, 0, 0];
      a.forEach((x, i) => {
        both += (x - meanA) * (b[i]! - meanB);
        first += (x - meanA) ** 2;
        second += (b[i]! - meanB) ** 2;
      });
      return both / Math.sqrt(first * second);
    };
    const along = (key: (row: number) => [number, number, number, number]): Float32Array =>
      draw({ device: "native", mixture: normalish, rows: n, patch: 1, key });
    const base = along((row) => [0, row, 0, 0]);
    const others = {
      "next path": base.slice(1),
      "next sample": along((row) => [0, row, 0, 1]),
      "next patch": along((row) => [0, row, 0, 64]),
      "next variate": along((row) => [0, row, 1, 0]),
      "next stream": along((row) => [1, row, 0, 0]),
      "stream and path exchanged": along((row) => [row + 1, 0, 0, 0]),
    };
    for (const [name, values] of Object.entries(others)) {
      const beside = base.slice(0, values.length);
      expect(Math.abs(correlation(beside, values)) * Math.sqrt(values.length), name).toBeLessThan(criticalZ);
      const sizes = correlation(beside.map(Math.abs), values.map(Math.abs));
      expect(Math.abs(sizes) * Math.sqrt(values.length), `${name}, absolute values`).toBeLessThan(criticalZ);
    }
  });

  test("paths, variates and series of a forecast share no draws", async () => {
    const model = loadToto1();
    const same = makeSeries({ length: 64, seed: 4 });
    const twice = [...same.values, ...same.values];
    // Two equal variates that do not see each other, in two equal series with different streams: only the draws differ.
    const series = [0, 1].map((stream) => ({ values: twice, groups: Int32Array.of(0, 1), stream }));
    const answers = await model.predict({ series, horizon: 24, samples: 50, seed });
    model.dispose();
    const all = answers.flatMap(({ paths }) => paths!.flatMap((values) => [...values]));
    expect(all.length).toBe(2 * 2 * 50 * 24);
    expect(new Set(all).size).toBeGreaterThan(0.999 * all.length);
  });
});

describe("sampling error of a forecast", () => {
  test("the mean moves between seeds as 1 / sqrt(samples), and not at all for one seed", async () => {
    const model = loadToto1();
    const horizon = 16;
    const series = [makeSeries({ length: 60, seed })];
    const meanOf = async (samples: number, draws: number): Promise<Float32Array> =>
      ((await model.predict({ series, horizon, samples, seed: draws }))[0] as { mean: readonly Float32Array[] }).mean[0] as Float32Array;
    /** Root mean square over steps of the standard deviation over 30 seeds. */
    const spread = async (samples: number): Promise<number> => {
      const means: Float32Array[] = [];
      for (let draws = 0; draws < 30; draws++) means.push(await meanOf(samples, draws));
      let total = 0;
      for (let t = 0; t < horizon; t++) {
        const values = means.map((mean) => mean[t] as number);
        const centre = values.reduce((a, b) => a + b, 0) / values.length;
        total += values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1) / horizon;
      }
      return Math.sqrt(total);
    };
    const errors: number[] = [];
    for (const samples of [8, 32, 128, 512]) errors.push(await spread(samples));
    console.info(
      `standard deviation of the mean over seeds, 8, 32, 128, 512 samples: ${errors.map((error) => error.toPrecision(3)).join(", ")}`,
    );
    // Four times the samples should halve it; a ratio of two such estimates from 30 seeds strays by some 15 %.
    errors.slice(1).forEach((error, index) => {
      expect((errors[index] as number) / error).toBeGreaterThan(1.4);
      expect((errors[index] as number) / error).toBeLessThan(2.9);
    });
    expect(firstDifference(await meanOf(32, 5), await meanOf(32, 5))).toBeUndefined();
    model.dispose();
  });
});

describe("injected draws", () => {
  test.each(devices)("t = normal / sqrt(chiSquare / df), of the given component: %s", (device) => {
    const mixture = mixtures["a rare one among four"]!;
    const [rows, patch] = [50, 8];
    const random = makeRandom(seed);
    const length = rows * patch;
    const injected = {
      component: Int32Array.from({ length }, () => Math.floor(4 * random())),
      normal: Float32Array.from({ length }, () => 6 * random() - 3),
      chiSquare: Float32Array.from({ length }, () => 0.1 + 20 * random()),
    };
    const got = draw({ device, mixture, rows, patch, injected });
    got.forEach((value, i) => {
      const { df, location, scale } = mixture[injected.component[i]!]!;
      const expected = location + (scale * injected.normal[i]!) / Math.sqrt(injected.chiSquare[i]! / df);
      expect(Math.abs(value - expected)).toBeLessThan(1e-5 * (1 + Math.abs(expected)));
    });
    expect(firstDifference(draw({ device, mixture, rows, patch, injected, seed: 1 }), got)).toBeUndefined();
  });

  test("the parameters the draw uses are those of the head", () => {
    const mixture = mixtures["24 components"]!;
    const raw = rawParameters(mixture);
    const { device } = openDevice("reference");
    const run = compile((spread: Tensor, centre: Tensor) => outputParameters(centre, spread, 24), { device, name: "parameters" });
    const answer = run(Tensor.from(raw.slice(0, 48), [1, 48]), Tensor.from(raw.slice(48), [1, 48]));
    run.dispose();
    mixture.forEach(({ df, location, scale, weight }, k) => {
      expect((answer.df.data()[k] as number) / df).toBeCloseTo(1, 5);
      expect(answer.location.data()[k]).toBeCloseTo(location, 5);
      expect((answer.scale.data()[k] as number) / scale).toBeCloseTo(1, 5);
      expect((answer.weights.data()[k] as number) / weight).toBeCloseTo(1, 5);
    });
  });
});
