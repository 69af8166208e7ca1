import { execFileSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InputError } from "../src/io/errors.js";
import { openCheckpoint } from "../src/io/checkpoint.js";
import { singleBitsOfHalf } from "../src/io/float-formats.js";
import { openSafetensors, writeSafetensors } from "../src/io/safetensors.js";
import { formulaCheckpoint } from "../src/models/formula/checkpoint.js";
import type { TensorSource } from "../src/models/tensor-source.js";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "tempograph-io-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let fileNumber = 0;
const newPath = (): string => join(folder, `file${fileNumber++}.safetensors`);

/** A file with this header text, header length (default: the true one) and data bytes. */
function rawFile(header: string | Uint8Array, dataBytes: number | Uint8Array, length?: bigint): string {
  const json = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, length ?? BigInt(json.length), true);
  const path = newPath();
  writeFileSync(path, Buffer.concat([prefix, json, typeof dataBytes === "number" ? new Uint8Array(dataBytes) : dataBytes]));
  return path;
}

const entry = (begin: number, end: number, shape = [(end - begin) / 4], dtype = "F32"): string =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

function expectInputError(action: () => unknown, code: string, message: RegExp): void {
  let caught: unknown;
  try {
    action();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(InputError);
  expect((caught as InputError).message).toMatch(message);
  expect((caught as InputError).code).toBe(code);
}

/** How many descriptors point into the test folder; undefined where the platform does not tell. */
const openDescriptors = (): number | undefined => {
  try {
    return readdirSync("/proc/self/fd").filter((descriptor) => {
      try {
        return readlinkSync(`/proc/self/fd/${descriptor}`).startsWith(folder);
      } catch {
        return false;
      }
    }).length;
  } catch {
    return undefined;
  }
};

describe("reading safetensors", () => {
  test("all dtypes come back as stored", () => {
    const path = newPath();
    const data = {
      F64: Float64Array.of(1.1, -0, NaN),
      F32: Float32Array.of(1.5, Infinity, -2),
      F16: Uint16Array.of(0x3c00, 0x0001, 0xfc00),
      BF16: Uint16Array.of(0x3f80, 0x8000, 0x7fc1),
      I64: BigInt64Array.of(-1n, 2n ** 62n, 0n),
      I32: Int32Array.of(-5, 6, 7),
      U8: Uint8Array.of(1, 2, 255),
      BOOL: Uint8Array.of(1, 0, 1),
    } as const;
    writeSafetensors(
      path,
      Object.entries(data).map(([dtype, values]) => ({ name: `t.${dtype}`, dtype: dtype as keyof typeof data, shape: [3], data: values })),
      { made: "here" },
    );
    const file = openSafetensors(path);
    try {
      expect(file.metadata).toEqual({ made: "here" });
      for (const [dtype, values] of Object.entries(data)) expect(file.read(`t.${dtype}`)).toEqual(values);
      expect(file.readFloat32("t.F32")).toEqual(data.F32);
      expect(file.readFloat32("t.F64")).toEqual(Float32Array.from(data.F64));
      expect([...file.readFloat32("t.F16")]).toEqual([1, 2 ** -24, -Infinity]);
      expect([...file.readFloat32("t.BF16")]).toEqual([1, -0, NaN]);
      expectInputError(() => file.readFloat32("t.I64"), "checkpoint-tensor", /"t.I64" has dtype I64, expected a floating-point/);
      expectInputError(() => file.read("absent"), "checkpoint-tensor", /no tensor "absent"/);
      const bytes = new Uint8Array(12);
      file.readInto("t.F32", bytes);
      expect(new Float32Array(bytes.buffer)).toEqual(data.F32);
      expect(() => file.readInto("t.F32", new Float32Array(2))).toThrow(/3 elements, the target has 2/);
    } finally {
      file.close();
    }
    file.close();
    expect(() => file.read("t.F32")).toThrow(/closed/);
  });

  test("half precision: every finite pattern against its definition", () => {
    const view = new DataView(new ArrayBuffer(4));
    for (let half = 0; half < 0x10000; half++) {
      const exponent = (half >>> 10) & 31;
      const fraction = half & 1023;
      const magnitude =
        exponent === 31
          ? fraction === 0
            ? Infinity
            : NaN
          : exponent === 0
            ? fraction * 2 ** -24
            : (1024 + fraction) * 2 ** (exponent - 25);
      view.setUint32(0, singleBitsOfHalf(half));
      const got = view.getFloat32(0);
      if (!Object.is(got, half & 0x8000 ? -magnitude : magnitude) && !Number.isNaN(magnitude)) expect.fail(`pattern ${half}: ${got}`);
      if (Number.isNaN(magnitude) && !Number.isNaN(got)) expect.fail(`pattern ${half} is no NaN`);
    }
  });

  test("empty tensors, scalars and odd names", () => {
    const path = newPath();
    writeSafetensors(path, [
      { name: "empty", dtype: "F32", shape: [2, 0], data: new Float32Array() },
      { name: "scalar", dtype: "F32", shape: [], data: Float32Array.of(7) },
      { name: "__proto__", dtype: "F32", shape: [1], data: () => Float32Array.of(8) },
      { name: 'quo"te {', dtype: "U8", shape: [1], data: Uint8Array.of(9) },
    ]);
    const file = openSafetensors(path);
    expect([...file.tensors.keys()].sort()).toEqual(["__proto__", "empty", 'quo"te {', "scalar"]);
    expect(file.readFloat32("empty").length).toBe(0);
    expect(file.readFloat32("scalar")[0]).toBe(7);
    expect(file.readFloat32("__proto__")[0]).toBe(8);
    file.close();
  });

  test("bad files are named, with what was found", () => {
    const one = `{"a":${entry(0, 8)}}`;
    const descriptors = openDescriptors();
    const cases: [() => string, string, RegExp][] = [
      [() => join(folder, "absent"), "file-missing", /absent: it does not exist/],
      [() => folder, "file-kind", /it is a folder, expected a regular file/],
      [() => rawFile("", 0, 0n), "safetensors-header", /does not begin with "\{"/],
      [() => rawFile(one, 7), "safetensors-truncated", /tensor "a" ends at data byte 8, but the file holds only 7/],
      [() => rawFile(one, 9), "safetensors-gap", /last 1 data bytes belong to no tensor/],
      [() => rawFile(one, 8, 1000n), "safetensors-truncated", /header needs 1000 bytes/],
      [() => rawFile(one, 8, 2n ** 63n), "safetensors-header", /header length is 9223372036854775808/],
      [() => rawFile("{oops", 0), "safetensors-header", /not valid JSON/],
      [() => rawFile(Uint8Array.of(0x7b, 0xff, 0x7d), 0), "safetensors-header", /not valid JSON/],
      [() => rawFile(`{"a":${entry(0, 8)},"a":${entry(0, 8)}}`, 8), "safetensors-duplicate", /key "a" occurs twice in the header/],
      [() => rawFile(`{"\\u0061":${entry(0, 8)},"a":${entry(0, 8)}}`, 8), "safetensors-duplicate", /key "a" occurs twice/],
      [
        () => rawFile(`{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8),
        "safetensors-duplicate",
        /"dtype".*in "a"/,
      ],
      [() => rawFile(`{"a":${entry(0, 8)},"b":${entry(4, 12)}}`, 12), "safetensors-overlap", /"a" and "b" overlap/],
      [() => rawFile(`{"a":${entry(0, 8)},"b":${entry(12, 16)}}`, 16), "safetensors-gap", /data bytes 8 to 12, before tensor "b"/],
      [() => rawFile(`{"a":${entry(0, 8, [3])}}`, 8), "safetensors-size", /shape \[3\] needs 12 bytes.*hold 8/],
      [() => rawFile(`{"a":${entry(0, 8, [2 ** 40, 2 ** 40])}}`, 8), "safetensors-size", /needs/],
      [() => rawFile(`{"a":${entry(8, 0, [2])}}`, 8), "safetensors-size", /needs 8 bytes/],
      [() => rawFile(`{"a":${entry(0, 8, [2], "F8_E5M2")}}`, 8), "safetensors-dtype", /dtype "F8_E5M2", expected one of F64, F32/],
      [() => rawFile(`{"a":${entry(0, 8, [2], "toString")}}`, 8), "safetensors-dtype", /dtype "toString"/],
      [() => rawFile(`{"a":${entry(0, 8, [-2])}}`, 8), "safetensors-header", /shape \[-2\]/],
      [() => rawFile(`{"a":${entry(0, 8, [1.5])}}`, 8), "safetensors-header", /shape \[1.5\]/],
      [() => rawFile(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}}`, 8), "safetensors-header", /data_offsets \[0\]/],
      [() => rawFile(`{"a":{"dtype":"F32","shape":[2]}}`, 8), "safetensors-header", /data_offsets missing/],
      [() => rawFile(`{"a":3}`, 0), "safetensors-header", /described by 3/],
      [() => rawFile(`{"__metadata__":{"a":1}}`, 0), "safetensors-header", /__metadata__/],
    ];
    for (const [make, code, message] of cases) expectInputError(() => openSafetensors(make()), code, message);
    const short = newPath();
    writeFileSync(short, "abc");
    expectInputError(() => openSafetensors(short), "safetensors-truncated", /3 bytes, too few/);
    expect(openDescriptors()).toBe(descriptors);
  });

  test.skipIf(process.platform === "win32")("a pipe is refused instead of blocking", () => {
    const path = newPath();
    execFileSync("mkfifo", [path]);
    expectInputError(() => openSafetensors(path), "file-kind", /it is a pipe/);
  });

  test("fuzzed headers: a file opens or gives an InputError, and nothing stays open", () => {
    const size = fc.oneof(fc.nat(40), fc.integer(), fc.constant(2 ** 53), fc.double());
    const tensor = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom("F32", "I64", "BOOL", "F16", "nothing"), fc.anything()),
        shape: fc.oneof(fc.array(fc.nat(4), { maxLength: 3 }), fc.array(size), fc.anything()),
        data_offsets: fc.oneof(fc.tuple(fc.nat(64), fc.nat(64)), fc.array(size), fc.anything()),
      },
      { requiredKeys: [] },
    );
    const header = fc.oneof(
      fc.dictionary(fc.string(), fc.oneof(tensor, fc.jsonValue())).map((value) => Buffer.from(JSON.stringify(value))),
      fc.uint8Array({ maxLength: 64 }),
      fc.string().map((text) => Buffer.from(`{${text}`)),
    );
    const descriptors = openDescriptors();
    fc.assert(
      fc.property(header, fc.nat(64), fc.option(fc.bigInt(0n, 2n ** 64n - 1n)), (bytes, dataBytes, length) => {
        const path = rawFile(bytes, dataBytes, length ?? undefined);
        try {
          const file = openSafetensors(path);
          for (const name of file.tensors.keys()) file.read(name);
          file.close();
        } catch (error) {
          if (!(error instanceof InputError)) throw error;
          expect(error.message).toContain(path);
        } finally {
          rmSync(path);
        }
      }),
      { numRuns: 300 },
    );
    expect(openDescriptors()).toBe(descriptors);
  });

  test("damaging one byte of a good file never crashes", () => {
    const path = newPath();
    writeSafetensors(path, [
      { name: "a", dtype: "F32", shape: [2, 2], data: new Float32Array(4) },
      { name: "b", dtype: "I64", shape: [2], data: new BigInt64Array(2) },
    ]);
    const good = readFileSync(path);
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, value, cut) => {
        const bytes = Buffer.from(good);
        bytes[at] = value;
        for (const content of [bytes, good.subarray(0, cut)]) {
          writeFileSync(path, content);
          try {
            openSafetensors(path).close();
          } catch (error) {
            if (!(error instanceof InputError)) throw error;
          }
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe("writing safetensors", () => {
  test("a failed write leaves neither the file nor a temporary one", () => {
    const place = join(folder, "failing");
    mkdirSync(place);
    const path = join(place, "x.safetensors");
    const broken = { name: "b", dtype: "F32", shape: [2], data: () => Float32Array.of(1) } as const;
    expect(() => writeSafetensors(path, [{ name: "a", dtype: "F32", shape: [1], data: Float32Array.of(1) }, broken])).toThrow(/"b".*got 1/);
    expect(readdirSync(place)).toEqual([]);
    expectInputError(() => writeSafetensors(join(place, "no", "x"), []), "file-unwritable", /cannot write/);
    mkdirSync(path);
    expectInputError(() => writeSafetensors(path, []), "file-unwritable", /cannot write/);
    expect(readdirSync(place)).toEqual(["x.safetensors"]);
  });

  test("an earlier file survives a failing rewrite; duplicate names are refused", () => {
    const path = newPath();
    const one = { name: "a", dtype: "F32", shape: [1], data: Float32Array.of(4) } as const;
    writeSafetensors(path, [one]);
    expect(() => writeSafetensors(path, [one, one])).toThrow(/written twice/);
    expect(() => writeSafetensors(path, [{ ...one, data: Float64Array.of(1) }])).toThrow(/Float64Array/);
    const file = openSafetensors(path);
    expect(file.readFloat32("a")[0]).toBe(4);
    file.close();
  });
});

describe("checkpoint folders", () => {
  const tiny = formulaCheckpoint("kronos-tokenizer-tiny", { seed: 3 });
  let number = 0;
  const newFolder = (): string => {
    const path = join(folder, `checkpoint${number++}`);
    mkdirSync(path);
    return path;
  };
  const stored = (source: TensorSource, name: string) => ({ name, ...source.info(name)!, data: () => source.readStored(name) });
  const shard = (path: string, names: readonly string[]): void =>
    writeSafetensors(
      path,
      names.map((name) => stored(tiny.source, name)),
    );

  function expectSameTensors(source: TensorSource): void {
    expect([...source.names()].sort()).toEqual([...tiny.source.names()].sort());
    for (const name of source.names()) {
      expect(source.info(name)).toMatchObject(tiny.source.info(name)!);
      expect(source.readStored(name)).toEqual(tiny.source.readStored(name));
    }
    const name = "embed.weight";
    const target = new Float32Array(source.read(name).length);
    source.readInto(name, target);
    expect(target).toEqual(tiny.source.read(name));
  }

  test("one file", () => {
    const place = newFolder();
    writeFileSync(join(place, "config.json"), JSON.stringify(tiny.config));
    shard(join(place, "model.safetensors"), tiny.source.names());
    const { config, source } = openCheckpoint(place);
    expect(config).toEqual(tiny.config);
    expectSameTensors(source);
    expect(source.info("nothing")).toBeUndefined();
    expectInputError(() => source.read("nothing"), "checkpoint-tensor", /no tensor "nothing"/);
    source.close();
    source.close();
  });

  test("shards, and everything an index can get wrong", () => {
    const place = newFolder();
    writeFileSync(join(place, "config.json"), JSON.stringify(tiny.config));
    const names = tiny.source.names();
    const [first, second] = [names.filter((_, i) => i % 2 === 0), names.filter((_, i) => i % 2 === 1)];
    shard(join(place, "model-1.safetensors"), first);
    shard(join(place, "model-2.safetensors"), second);
    const map = Object.fromEntries([
      ...first.map((n) => [n, "model-1.safetensors"]),
      ...second.map((n) => [n, "model-2.safetensors"]),
    ]) as Record<string, unknown>;
    const writeIndex = (weightMap: unknown): void =>
      writeFileSync(join(place, "model.safetensors.index.json"), JSON.stringify({ weight_map: weightMap }));
    writeIndex(map);
    const { source } = openCheckpoint(place);
    expectSameTensors(source);
    source.close();

    const descriptors = openDescriptors();
    const name = first[0]!;
    const without = { ...map };
    delete without[name];
    const wrong: [unknown, string, RegExp][] = [
      [without, "checkpoint-index", /is in model-1.safetensors, but not listed/],
      [{ ...map, [name]: "model-2.safetensors" }, "checkpoint-index", /is not in model-2.safetensors/],
      [{ ...map, extra: "model-1.safetensors" }, "checkpoint-index", /"extra" is not in model-1/],
      [{ ...map, extra: "../secret" }, "checkpoint-index", /expected a file name in the same folder/],
      [{ ...map, extra: 3 }, "checkpoint-index", /is in 3/],
      [{ ...map, extra: "model-3.safetensors" }, "file-missing", /model-3.safetensors: it does not exist/],
      [undefined, "checkpoint-index", /no object "weight_map"/],
    ];
    for (const [weightMap, code, message] of wrong) {
      writeIndex(weightMap);
      expectInputError(() => openCheckpoint(place), code, message);
    }
    expect(openDescriptors()).toBe(descriptors);
  });

  test("what is missing or damaged is named", () => {
    const place = newFolder();
    expectInputError(() => openCheckpoint(join(place, "absent")), "checkpoint-folder", /absent: it does not exist/);
    expectInputError(() => openCheckpoint(place), "checkpoint-folder", /has no config.json \(it is empty\)/);
    const config = join(place, "config.json");
    expectInputError(() => (writeFileSync(config, ""), openCheckpoint(config)), "checkpoint-folder", /it is a file, expected a folder/);
    expectInputError(() => openCheckpoint(place), "json", /config.json is not valid JSON/);
    writeFileSync(config, "[]");
    expectInputError(() => openCheckpoint(place), "json", /holds a list, expected an object/);
    writeFileSync(config, '{"a":{"b":1,"b":2}}');
    expectInputError(() => openCheckpoint(place), "json", /key "a.b" occurs twice/);
    writeFileSync(config, "{}");
    writeFileSync(join(place, "pytorch_model.bin"), "");
    expectInputError(() => openCheckpoint(place), "checkpoint-folder", /no model.safetensors or .*found .*pytorch_model.bin/);
  });
});
