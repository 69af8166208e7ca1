/** The same bits whatever the mode, the batch, the number of threads and the chunking; attention with key groups gives those of plain attention. */
import { describe, expect, test } from "vitest";
import type { ModelRequest } from "../src/models/model.js";
import { KeyValueCache } from "../src/nn/key-value-cache.js";
import { appendToCache, attention, compile, maskedAttention, Tensor, type KeyValueState } from "../src/tensor/index.js";
import { modes, openDevice, size } from "../src/trace/entry.js";
import { firstDifference, isAlive, makeRandom, makeSeries } from "./toto1-harness.js";
import { everyNumber, loadToto2, predictOnce, requestOf, type ModelChoice } from "./toto2-harness.js";

const seed = 2024;
const horizon = 50;

/** Three series of two variates, ragged, with gaps. */
const joint = [40, 131, 64].map((length, index) =>
  makeSeries({ length, variates: 2, seed: seed + index, missing: 0.2, stream: index + 1 }),
);
const known = [56, 90].map((length, index) =>
  makeSeries({ length, variates: 3, seed: seed + 9 + index, stream: index, known: { variates: 1, horizon } }),
);
const single = [33, 250, 8].map((length, index) => makeSeries({ length, seed: seed + 20 + index, missing: 0.1, stream: index }));

const requests: Readonly<Record<string, ModelRequest>> = {
  "single pass": requestOf(joint, horizon),
  "block decoding": requestOf(joint, horizon, { decodeBlockSize: 16 }),
  covariates: requestOf(known, horizon, { decodeBlockSize: 24 }),
  univariate: requestOf(single, horizon, { hasMissingValues: false }),
  paths: { ...requestOf(single, horizon), samples: 3, seed: 5 },
};
const configurations: Readonly<Record<string, ModelChoice>> = { published: {}, alternative: { preset: "toto2-tiny-alt" } };

describe.each(Object.entries(configurations))("%s configuration", (_, choice) => {
  test.each(Object.entries(requests))("%s: all modes alike", async (_name, request) => {
    const [first, ...others] = await Promise.all(modes.map(async (mode) => everyNumber(await predictOnce({ ...choice, mode }, request))));
    expect(isAlive(first as Float32Array)).toBe(true);
    for (const other of others) expect(firstDifference(other, first as Float32Array)).toBeUndefined();
  });

  test.each(Object.entries(requests))("%s: alone as in company", async (_name, request) => {
    const model = loadToto2(choice);
    const together = await model.predict(request);
    const random = makeRandom(seed);
    for (const [index, series] of request.series.entries()) {
      const [alone] = await model.predict({ ...request, series: [series] });
      expect(firstDifference(everyNumber([alone!]), everyNumber([together[index]!]))).toBeUndefined();
    }
    const crowd = Array.from({ length: 7 }, () => request.series[Math.floor(random() * request.series.length)]!);
    const crowded = await model.predict({ ...request, series: [...crowd, ...request.series] });
    expect(firstDifference(everyNumber(crowded.slice(7)), everyNumber(together))).toBeUndefined();
    model.dispose();
  });
});

test("the number of threads changes nothing", async () => {
  const request = requestOf(joint, horizon, { decodeBlockSize: 16 });
  const [one, two, five] = await Promise.all(
    [1, 2, 5].map(async (threads) => everyNumber(await predictOnce({ deviceOptions: { threads } }, request))),
  );
  expect(firstDifference(two!, one!)).toBeUndefined();
  expect(firstDifference(five!, one!)).toBeUndefined();
});

test("attention with key groups: the bits of attention where no key is masked, and of a cache without the masked keys", () => {
  const { device } = openDevice("native");
  const shape = { layers: 1, heads: 2, keyWidth: 16, valueWidth: 24 };
  const [tokens, length, width, valueWidth] = [21, 21, 16, 24];
  const random = makeRandom(seed);
  const values = (count: number): Float32Array => Float32Array.from({ length: count }, () => 2 * random() - 1);
  const [q, k, v] = [values(tokens * 4 * width), values(tokens * 2 * width), values(tokens * 2 * valueWidth)];
  const ints = (value: (token: number) => number, count = tokens): Tensor =>
    Tensor.from(
      Int32Array.from({ length: count }, (_, token) => value(token)),
      [size("tokens", count)],
    );
  const cache = new KeyValueCache(device, "cache", shape);
  cache.ensure(1, 32);
  interface Given {
    readonly q: Tensor;
    readonly k: Tensor;
    readonly v: Tensor;
    readonly slot: Tensor;
    readonly length: Tensor;
    readonly row: Tensor;
    readonly group: Tensor;
    readonly groups: Tensor;
    readonly cache: KeyValueState;
  }
  const dynamic = { tokens: [1, 1024] } as const;
  const plain = compile(
    (given: Given) => {
      appendToCache(given.cache, given.k, given.v, given.row, given.slot);
      return attention(given.q, given.cache, given.row, given.length, { scale: 0.25, valueWidth });
    },
    { device, dynamic, name: "plain" },
  );
  const masked = compile(
    (given: Given) => {
      appendToCache(given.cache, given.k, given.v, given.row, given.slot);
      const groups = { keys: given.groups, queries: given.group };
      return maskedAttention(given.q, given.cache, given.row, given.length, groups, { scale: 0.25, valueWidth });
    },
    { device, dynamic, name: "masked" },
  );
  const given = (groupOf: (key: number) => number): Given => ({
    q: Tensor.from(q, [size("tokens", tokens), 4, width]),
    k: Tensor.from(k, [size("tokens", tokens), 2, width]),
    v: Tensor.from(v, [size("tokens", tokens), 2, valueWidth]),
    slot: ints((token) => token),
    length: ints((token) => Math.min(token + 1, length)),
    row: ints(() => 0),
    group: ints(() => 1),
    groups: Tensor.from(
      Int32Array.from({ length: 32 }, (_, key) => groupOf(key)),
      [1, 32],
    ),
    cache: cache.layers[0]!,
  });
  const whole = plain(given(() => 1)).data() as Float32Array;
  expect(isAlive(whole)).toBe(true);
  expect(firstDifference(masked(given(() => 1)).data() as Float32Array, whole)).toBeUndefined();
  // A masked key is not visited: whatever it holds, infinities and NaN included, the others' answer stays finite and the same.
  const hidden = (key: number): number => (key % 5 === 2 ? 0 : 1);
  const before = masked(given(hidden)).data() as Float32Array;
  expect(firstDifference(before, whole)).toBeDefined();
  for (let key = 2; key < tokens; key += 5) {
    k.fill(Infinity, key * 2 * width, (key + 1) * 2 * width);
    v.fill(NaN, key * 2 * valueWidth, (key + 1) * 2 * valueWidth);
  }
  const after = masked(given(hidden)).data() as Float32Array;
  expect(firstDifference(after.slice(), before.slice())).toBeUndefined();
  plain.dispose();
  masked.dispose();
  cache.dispose();
});
