/** The same bits whatever the mode, the batch, the threads, the number of samples, the cache, and wherever chunks are cut. */
import { describe, expect, test } from "vitest";
import { bitsOf, loadTiny, makeCandles, predictOnce, request, type KronosChoice } from "./kronos-harness.js";

const horizon = 12;
/** One that never slides, one that slides in the middle, one longer than the window from the start, a short one. */
const lengths = [40, 60, 80, 2];
const series = lengths.map((length, index) => makeCandles(index + 1, length, horizon, index));
const asked = request(series, horizon, 3);

describe("bitwise equal to the product", () => {
  const choices: Readonly<Record<string, KronosChoice>> = {
    eager: { mode: "eager" },
    "default mode": { mode: "default" },
    "max-autotune": { mode: "max-autotune" },
    "one thread": { threads: 1 },
    "two threads": { threads: 2 },
    "three threads": { threads: 3 },
    "no cache": { kvCache: "none" },
    "own prefixes": { sharePrefix: false },
    "own prefixes, no cache": { sharePrefix: false, kvCache: "none", mode: "eager" },
  };
  const product = predictOnce({}, asked);
  for (const [name, choice] of Object.entries(choices)) {
    test(name, async () => {
      const [wanted, got] = [await product, await predictOnce(choice, asked)];
      wanted.forEach((answer, index) => expect(bitsOf(got[index] ?? answer), `series of ${lengths[index]}`).toEqual(bitsOf(answer)));
      expect(got.length).toBe(wanted.length);
    });
  }

  test("each series alone, and in another order", async () => {
    const model = loadTiny();
    const together = await model.predict(asked);
    for (const [index, entry] of series.entries()) {
      const [alone] = await model.predict({ ...asked, series: [entry] });
      expect(bitsOf(alone as never), `series of ${lengths[index]}`).toEqual(bitsOf(together[index] as never));
    }
    const reversed = await model.predict({ ...asked, series: [...series].reverse() });
    together.forEach((answer, index) => expect(bitsOf(reversed[series.length - 1 - index] as never)).toEqual(bitsOf(answer)));
    model.dispose();
  });

  test("a path does not depend on how many there are", async () => {
    const model = loadTiny();
    const [few] = await model.predict(request([series[1] as never], horizon, 2));
    const [many] = await model.predict(request([series[1] as never], horizon, 37));
    few?.paths?.forEach((paths, column) => expect(many?.paths?.[column]?.slice(0, 2 * horizon)).toEqual(paths));
    model.dispose();
  });

  test("requests beyond one call's rows are cut, with the same bits", async () => {
    const model = loadTiny();
    const [whole] = await model.predict(request([makeCandles(5, 6, 2)], 2, 4100));
    const [start] = await model.predict(request([makeCandles(5, 6, 2)], 2, 10));
    expect(whole?.paths?.[3]?.length).toBe(4100 * 2);
    expect(whole?.paths?.[3]?.slice(0, 20)).toEqual(start?.paths?.[3]);
    model.dispose();
  });
});

describe("what must differ does differ", () => {
  test("seed, stream, temperature, window", async () => {
    const model = loadTiny();
    const base = request([series[0] as never], horizon, 4);
    const answer = async (other: Partial<typeof base>): Promise<Int32Array> =>
      bitsOf((await model.predict({ ...base, ...other }))[0] as never);
    const reference = await answer({});
    expect(await answer({})).toEqual(reference);
    expect(await answer({ seed: 8 })).not.toEqual(reference);
    expect(await answer({ seed: 7 + 2 ** 32 })).not.toEqual(reference);
    expect(await answer({ series: [{ ...(series[0] as never as object), stream: 9 } as never] })).not.toEqual(reference);
    expect(await answer({ sampling: { maxContext: 64, temperature: 0.3 } })).not.toEqual(reference);
    expect(await answer({ sampling: { maxContext: 32 } })).not.toEqual(reference);
    expect(await answer({ sampling: { maxContext: 64, clip: 1 } })).not.toEqual(reference);
    model.dispose();
  });

  test("answers stay what they were after later calls and dispose", async () => {
    const model = loadTiny();
    const [first] = await model.predict(request([series[0] as never], horizon, 4));
    const kept = bitsOf(first as never);
    await model.predict(request([series[2] as never], horizon, 9));
    model.dispose();
    expect(bitsOf(first as never)).toEqual(kept);
  });

  test("without samples the likeliest path, once", async () => {
    const model = loadTiny();
    const [greedy] = await model.predict(request([series[0] as never], horizon, 0));
    const [drawn] = await model.predict(request([series[0] as never], horizon, 1, { topK: 1 }));
    expect(greedy?.paths).toBeUndefined();
    expect(greedy?.mean).toEqual(drawn?.mean);
    expect(model.report().meanKind).toBe("sample mean");
    model.dispose();
  });
});
