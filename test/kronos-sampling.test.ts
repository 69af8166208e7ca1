/** Token ops on both devices: sign bits, filters as published, draws that follow the filtered distribution. */
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { compile, drawToken, expandBits, packSigns, Tensor, tokenProbabilities } from "../src/tensor/index.js";
import { openDevice, size } from "../src/trace/entry.js";

const devices = ["native", "reference"] as const;
const disposals: (() => void)[] = [];
afterAll(() => disposals.forEach((dispose) => dispose()));

function compiled<Args extends unknown[], Result>(device: string, body: (...args: Args) => Result): (...args: Args) => Result {
  const made = compile(body, { device: openDevice(device).device, name: "tokens", dynamic: { rows: [1, 1 << 20] } });
  disposals.push(() => made.dispose());
  return made;
}

describe.each(devices)("%s", (device) => {
  const filter = compiled(device, (logits: Tensor, settings: Tensor) => tokenProbabilities(logits, settings));
  const kept = (values: readonly number[], temperature: number, topK: number, topP: number): number[] => {
    const probabilities = filter(
      Tensor.from(Float32Array.from(values), [1, values.length]),
      Tensor.from(Float32Array.of(temperature, topK, topP), [3]),
    ).data();
    return Array.from(probabilities.keys()).filter((index) => (probabilities[index] as number) > 0);
  };
  const logs = (probabilities: readonly number[]): number[] => probabilities.map((p) => Math.log(p));

  test("top-k keeps all ties with the k-th value and switches top-p off", () => {
    expect(kept([1, 2, 2, 0, 2], 1, 2, 1)).toEqual([1, 2, 4]);
    expect(kept([1, 2, 2, 0, 2], 1, 1, 0.1)).toEqual([1, 2, 4]);
    expect(kept([1, 2, 2, 0, 2], 1, 4, 0.1)).toEqual([0, 1, 2, 4]);
    expect(kept([1, 2, 2, 0, 2], 1, 99, 0.1)).toEqual([0, 1, 2, 3, 4]);
    expect(kept([0, -0, -1], 1, 1, 1)).toEqual([0, 1]);
  });

  test("top-p keeps the first token above it and everything before", () => {
    const p = logs([0.05, 0.3, 0.5, 0.15]);
    expect(kept(p, 1, 0, 0)).toEqual([2]);
    expect(kept(p, 1, 0, 0.49)).toEqual([2]);
    expect(kept(p, 1, 0, 0.6)).toEqual([1, 2]);
    expect(kept(p, 1, 0, 0.81)).toEqual([1, 2, 3]);
    expect(kept(p, 1, 0, 0.96)).toEqual([0, 1, 2, 3]);
    expect(kept(p, 1, 0, 1)).toEqual([0, 1, 2, 3]);
    expect(kept([3, 3, 3, 3], 1, 0, 0.5)).toEqual([0, 1, 2]);
    expect(kept([3, 3, 3, 3], 1, 0, 0.3)).toEqual([0, 1]);
  });

  test("signs to tokens, lowest bit first; 0 and NaN are 0; and back", () => {
    const pack = compiled(device, (z: Tensor) => ({ coarse: packSigns(z, 0, 3), fine: packSigns(z, 3, 3) }));
    const z = Float32Array.of(1, -1, 2, 0, 0.5, NaN, -0, 1e-40, -3, Infinity, -Infinity, 1);
    const { coarse, fine } = pack(Tensor.from(z, [size("rows", 2), 6]));
    expect([Array.from(coarse.data()), Array.from(fine.data())]).toEqual([
      [0b101, 0b010],
      [0b010, 0b101],
    ]);
    const expand = compiled(device, (a: Tensor, b: Tensor) => expandBits(a, b, { coarseBits: 3, fineBits: 3, scale: 0.5 }));
    const bits = expand(Tensor.from(Int32Array.of(5, 2), [size("rows", 2)]), Tensor.from(Int32Array.of(2, 5), [size("rows", 2)]));
    expect(Array.from(bits.data())).toEqual([1, -1, 1, -1, 1, -1, -1, 1, -1, 1, -1, 1].map((sign) => sign / 2));
  });

  const draw = compiled(device, (logits: Tensor, source: Tensor, keys: Tensor, step: Tensor, seed: Tensor, settings: Tensor) =>
    drawToken(logits, source, { keys, step, seed, settings }, "coarse"),
  );
  const drawMany = (logits: readonly number[], rows: number, settings: readonly [number, number, number], seed = 1): Int32Array => {
    const axis = size("rows", rows);
    return draw(
      Tensor.from(Float32Array.from(logits), [1, logits.length]),
      Tensor.from(new Int32Array(rows), [axis]),
      Tensor.from(
        Int32Array.from({ length: 2 * rows }, (_, i) => (i % 2 === 0 ? 0 : i >> 1)),
        [axis, 2],
      ),
      Tensor.from(new Int32Array(rows), [axis]),
      Tensor.from(Int32Array.of(seed, 0), [2]),
      Tensor.from(Float32Array.from(settings), [3]),
    ).data() as Int32Array;
  };

  test("draws follow the filtered distribution", () => {
    const rows = device === "native" ? 40000 : 4000;
    const logits = logs([0.1, 0.2, 0.05, 0.4, 0.25]);
    const counts = new Float64Array(5);
    for (const token of drawMany(logits, rows, [1, 0, 0.7])) counts[token] = (counts[token] as number) + 1;
    // 0.4 + 0.25 = 0.65 is not above 0.7, so 0.2 stays too.
    const expected = [0, 0.2, 0, 0.4, 0.25].map((p) => (p / 0.85) * rows);
    const deviation = counts.reduce((sum, count, index) => {
      const wanted = expected[index] as number;
      return wanted === 0 ? sum + count * 1000 : sum + (count - wanted) ** 2 / wanted;
    }, 0);
    expect(deviation).toBeLessThan(20);
  });

  test("all equal maxima are drawn among under topK 1", () => {
    const seen = new Set(drawMany([2, 5, 5, 1, 5], 200, [1, 1, 1]));
    expect([...seen].sort()).toEqual([1, 2, 4]);
  });
});

test("native and reference draw the same tokens but at rounding edges", () => {
  const seed = 20260102;
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -8, max: 8, noNaN: true }), { minLength: 3, maxLength: 100 }),
      fc.double({ min: 0.2, max: 3, noNaN: true }),
      fc.integer({ min: 0, max: 20 }),
      fc.double({ min: 0.05, max: 1, noNaN: true }),
      (values, temperature, topK, topP) => {
        const answers = devices.map((device) => {
          const run = compile((logits: Tensor, settings: Tensor) => tokenProbabilities(logits, settings), {
            device: openDevice(device).device,
          });
          const { length } = values;
          const padded = Float32Array.from({ length: 128 }, (_, i) => values[i % length] as number);
          const result = run(Tensor.from(padded, [1, 128]), Tensor.from(Float32Array.of(temperature, topK, topP), [3])).data();
          run.dispose();
          return result;
        }) as unknown as [ArrayLike<number>, ArrayLike<number>];
        const differing = Array.from({ length: 128 }, (_, i) => Math.abs((answers[0][i] as number) - (answers[1][i] as number)));
        // A token at the edge of the filter may fall on either side; then its probability is spread over the others.
        const edges = differing.filter((_, i) => (answers[0][i] as number) > 0 !== (answers[1][i] as number) > 0).length;
        return edges <= Math.ceil(128 / values.length) + 1 && (edges > 0 || Math.max(...differing) < 1e-6);
      },
    ),
    { seed, numRuns: 60 },
  );
});
