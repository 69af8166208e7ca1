/**
 * Every kind of damage that a user's file or model folder can have, on the command line and in code: the sentence names file, row and field, what was
 * found and what is expected; exit code 2; nothing written; no stack trace; nothing left open. What works although it looks odd is here too.
 */
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Forecaster, InputError, type SeriesInput } from "../src/index.js";
import { readSeriesTable } from "../src/io/table.js";
import { FakeModel } from "./forecast-fake-model.js";
import { runCli, temporaryFolder, type CliRun } from "./cli-harness.js";

const model = fileURLToPath(new URL("../models/toto2-nano", import.meta.url));

function expectRefusal(run: CliRun, message: RegExp): void {
  expect(run.error).toMatch(message);
  expect(run.error).toMatch(/^tempograph: [^\n]+\n$/);
  expect(run.error).not.toMatch(/\n\s+at |internal error/);
  expect(run).toMatchObject({ code: 2, out: "" });
  for (const loaded of run.models) expect(loaded.disposed).toBe(1);
}

const hourly = (stamps: readonly string[]): string => `time,x\n${stamps.map((stamp, row) => `${stamp},${row}`).join("\n")}\n`;

/** Files this process has open; 0 where the system does not say. */
function openFiles(): number {
  return existsSync("/proc/self/fd") ? readdirSync("/proc/self/fd").length : 0;
}

describe("series files", () => {
  test.each<[string, string, string | Uint8Array, RegExp]>([
    ["a zero byte", "a.csv", "time,x\n2024-01-01,1\n2024-01-02,2\0\n", /a\.csv, row 3: a zero byte; .*expected CSV or JSON text/],
    [
      "invalid UTF-8",
      "a.csv",
      Buffer.concat([Buffer.from("time,x\n2024-01-01,1\n2024-01-02,"), Buffer.of(0xc3, 0x28, 0x0a)]),
      /a\.csv, row 3: it is not UTF-8 text; save the file as UTF-8/,
    ],
    ["UTF-16", "a.csv", Buffer.from("\uFEFFtime,x\n2024-01-01,1\n", "utf16le"), /a\.csv is UTF-16 text, not UTF-8/],
    ["a byte order mark alone", "a.csv", "\uFEFF", /a\.csv is empty/],
    [
      "an infinite value",
      "a.csv",
      "x\n1\n-inf\n2\n3\n",
      /a\.csv, row 3, column "x": "-inf" is infinite; expected a finite number, or an empty cell/,
    ],
    ["a value beyond float32", "a.csv", "x\n1\n4e38\n2\n", /a\.csv, row 3, column "x": "4e38" is beyond the range of float32/],
    [
      "decimal commas",
      "a.csv",
      "zeit;last\n2024-01-01;1,5\n2024-01-02;2,5\n",
      /no numeric column.*the numbers of "last" have a decimal comma: give --decimal-comma/,
    ],
    [
      "an offset that begins in mid-file",
      "a.csv",
      hourly(["2024-01-01T00:00:00", "2024-01-01T01:00:00", "2024-01-01T02:00:00+01:00"]),
      /a\.csv, row 4, column "time": timestamp 2024-01-01T02:00:00\+01:00 has an offset from UTC, the one before has none; give every/,
    ],
    [
      "an offset that ends in mid-file",
      "a.csv",
      hourly(["2024-01-01T00:00:00Z", "2024-01-01T01:00:00"]),
      /a\.csv, row 3, .*has no offset from UTC, the one before has one/,
    ],
    [
      "zones that run backwards",
      "a.csv",
      hourly(["2024-01-01T00:00:00+01:00", "2024-01-01T00:30:00+02:00"]),
      /a\.csv, row 3, column "time": timestamp 2024-01-01T00:30:00\+02:00 comes after 2024-01-01T00:00:00\+01:00; sort/,
    ],
    [
      "the hour that summer time repeats, without offsets",
      "a.csv",
      hourly(["2024-10-27T01:00:00", "2024-10-27T02:00:00", "2024-10-27T02:00:00", "2024-10-27T03:00:00"]),
      /a\.csv, row 4, column "time": timestamp 2024-10-27T02:00:00 occurs twice/,
    ],
    ["several series without --id", "a.csv", "id,time,x\na,2024-01-01,1\nb,2024-01-01,2\n", /row 3, column "time": .*occurs twice.*--id/],
    [
      "an impossible date",
      "a.csv",
      "time,x\n2024-01-31,1\n2024-02-30,2\n",
      /row 3, column "time": "2024-02-30" is no timestamp; expected ISO/,
    ],
    ["a quote that never closes", "a.csv", 'time,x\n2024-01-01,"1\n2024-01-02,2\n', /a\.csv: .*[Qq]uote.*line 3/],
    ["a row too long", "a.csv", "time,x\n2024-01-01,1,2\n", /a\.csv, row 2: 3 cells, the header has 2/],
    ["a repeated column", "a.csv", "x,x\n1,2\n", /a\.csv: column "x" occurs twice/],
    ["a repeated key in JSON", "a.json", '{"values":[1,2],"id":"a","values":[3,4]}', /a\.json: key "values" occurs twice in one object/],
    [
      "a repeated key in JSON Lines",
      "a.jsonl",
      '{"load":1}\n{"load":2,"load":3}\n',
      /a\.jsonl, line 2: key "load" occurs twice in one object/,
    ],
    ["JSON nested beyond reason", "a.json", `${"[".repeat(50_000)}${"]".repeat(50_000)}`, /a\.json/],
    ["JSON beyond float32", "a.json", "[1, 1e39]", /a\.json, index 1: 1e\+39 is beyond the range of float32/],
    ["a list among numbers", "a.json", "[1, [2], 3]", /a\.json, index 1: \[2\] is not a number/],
    ["JSON that ends early", "a.json", '{"values":[1,2', /a\.json is not valid JSON/],
    ["an empty list", "a.json", "[]", /a\.json holds an empty list/],
    ["damaged Parquet", "a.parquet", "PAR1 nothing PAR1", /a\.parquet cannot be read as Parquet/],
  ])("%s", async (_, name, content, message) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, name), content);
    expectRefusal(await runCli(["forecast", join(folder, name), "--horizon", "2", "--output", join(folder, "out.csv")]), message);
    expect(readdirSync(folder)).toEqual([name]);
    const refusal: unknown = await readSeriesTable(join(folder, name)).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(InputError);
    expect((refusal as InputError).message).toMatch(message);
  });

  test.each<[string, string]>([
    ["one value", "x\n5\n"],
    ["a constant series", `x\n${"5\n".repeat(40)}`],
    ["a series shorter than a patch", "x\n1\n2\n3\n"],
    ["values of 1e30", `x\n${Array.from({ length: 40 }, (_, row) => `${1 + Math.sin(row)}e30`).join("\n")}\n`],
    ["values of 1e-30", `x\n${Array.from({ length: 40 }, (_, row) => `${1 + Math.sin(row)}e-30`).join("\n")}\n`],
    ["both at once", `x\n${"1e30\n1e-30\n".repeat(20)}`],
    [
      "summer time with offsets",
      hourly(["2024-03-31T00:00:00+01:00", "2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"]),
    ],
    ["quotes, a byte order mark and Windows line ends", '\uFEFF"time","x, y"\r\n"2024-01-01","1"\r\n"2024-01-02","2"\r\n'],
  ])("%s works on each trained Toto, with finite answers", async (_, text) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "a.csv"), text);
    for (const name of ["toto2-nano", "toto1-nano"]) {
      const words = [
        "forecast",
        join(folder, "a.csv"),
        "--horizon",
        "3",
        "--samples",
        name === "toto1-nano" ? "8" : "0",
        "--format",
        "csv",
      ];
      const run = await runCli([...words, "--model", `bundled:${name}`], {
        load: (reference, options) => Forecaster.load(reference, { ...options, device: "reference" }),
      });
      expect(run.code, run.error).toBe(0);
      const cells = run.out
        .trim()
        .split("\n")
        .slice(1)
        .flatMap((line) => line.split(",").slice(-4));
      expect(cells.length).toBe(12);
      expect(cells.every((cell) => cell !== "" && Number.isFinite(Number(cell)))).toBe(true);
    }
  });
});

describe("in code", () => {
  test.each<[string, SeriesInput, string, RegExp]>([
    ["all missing", { values: [Number.NaN, null], id: "a" }, "all-missing", /series "a": every value of "value" are missing/],
    ["infinite", { columns: { x: [1, Infinity] }, id: "a" }, "infinite-value", /series "a", "x": value 1 is Infinity/],
    ["beyond float32", { values: [1, 1e39] }, "infinite-value", /series 0, "value": value 1 is 1e\+39/],
    ["text", { values: [1, "2" as unknown as number] }, "not-a-number", /series 0, "value": value 1 is "2"/],
    ["empty", { values: [] }, "empty-series", /series 0 is empty/],
    ["ragged", { columns: { x: [1, 2], y: [1] } }, "ragged-variates", /variate "y" has 1 values, "x" has 2/],
    ["repeated stamps", { values: [1, 2], timestamps: ["2024-01-01", "2024-01-01"] }, "timestamp", /series 0, index 1: .*occurs twice/],
    ["unsorted stamps", { values: [1, 2], timestamps: ["2024-01-02", "2024-01-01"] }, "timestamp", /index 1: .*comes after/],
    ["mixed zones", { values: [1, 2], timestamps: ["2024-01-01T00:00Z", "2024-01-01T01:00"] }, "timestamp", /index 1: .*has no offset/],
    ["too few stamps", { values: [1, 2], timestamps: ["2024-01-01"] }, "bad-timestamps", /2 values and 1 timestamps/],
    ["an invalid Date", { values: [1], timestamps: [new Date(Number.NaN)] }, "timestamp", /index 0: an invalid Date/],
    ["an unknown field", { values: [1], horizon: 3 } as SeriesInput, "bad-series", /unknown field "horizon"/],
  ])("%s: a typed error before any work", async (_, series, code, message) => {
    const fake = new FakeModel();
    using forecaster = Forecaster.fromModel(fake);
    const refusal: unknown = await forecaster.predict(series, { horizon: 2 }).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(InputError);
    expect(refusal).toMatchObject({ code, message: expect.stringMatching(message) as string });
    expect(fake.requests).toEqual([]);
  });
});

describe("model folders", () => {
  let folder = "";
  const bytes = readFileSync(join(model, "model.safetensors"));
  const headerLength = Number(bytes.readBigUInt64LE(0));
  type Header = Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + headerLength)) as Header;
  const [first = "", second = ""] = Object.keys(header).filter((name) => name !== "__metadata__");
  const config = JSON.parse(readFileSync(join(model, "config.json"), "utf8")) as Record<string, unknown>;

  const packed = (text: string): Buffer => {
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(Buffer.byteLength(text)));
    return Buffer.concat([length, Buffer.from(text), bytes.subarray(8 + headerLength)]);
  };
  const changed = (change: (copy: Header) => void): Buffer => {
    const copy = structuredClone(header);
    change(copy);
    return packed(JSON.stringify(copy));
  };
  const announced = (length: bigint): Buffer => {
    const copy = Buffer.from(bytes);
    copy.writeBigUInt64LE(length);
    return copy;
  };

  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "tempograph-bad-model-"))));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const weights: [string, () => Buffer, RegExp][] = [
    [
      "truncated",
      () => bytes.subarray(0, bytes.length - 1000),
      /model\.safetensors: tensor ".*" ends at data byte \d+, but the file holds only/,
    ],
    ["cut in the header", () => bytes.subarray(0, 200), /model\.safetensors: the header/],
    ["empty", () => Buffer.alloc(0), /model\.safetensors: the file has 0 bytes, too few/],
    ["a header longer than the file", () => announced(50_000_000n), /model\.safetensors: the header/],
    ["a header of 4 EiB", () => announced(2n ** 62n), /the header length is 4611686018427387904 bytes, more than the limit/],
    [
      "a pointer file of git",
      () => Buffer.from("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
      /is this a safetensors file/,
    ],
    ["overlapping offsets", () => changed((copy) => (copy[second] = copy[first] as Header[string])), /tensors ".*" and ".*" overlap/],
    ["an integer tensor", () => changed((copy) => ((copy[first] as Header[string]).dtype = "I32")), /has dtype I32, expected a float type/],
    ["an unknown dtype", () => changed((copy) => ((copy[first] as Header[string]).dtype = "F99")), /has dtype "F99", expected one of/],
    [
      "a missing tensor",
      () =>
        changed((copy) => {
          copy["other"] = copy[first] as Header[string];
          Reflect.deleteProperty(copy, first);
        }),
      new RegExp(`missing ${first.replaceAll(".", "\\.")} .*unknown other`),
    ],
    [
      "a repeated key",
      () => packed(JSON.stringify(header).replace("{", `{${JSON.stringify(first)}:${JSON.stringify(header[first])},`)),
      /key ".*" occurs twice in the header/,
    ],
    [
      "weights that are not numbers",
      () => Buffer.from(bytes).fill(0xff, 8 + headerLength),
      /series "a", ".*": .*answered NaN for step 0, not a finite number; are its weights damaged/,
    ],
  ];
  const configs: [string, string, RegExp][] = [
    ["that is no JSON", "{", /config\.json is not valid JSON/],
    ["of another model", '{"model_type":"bert"}', /fits none of the known models.*Found the fields model_type/],
    [
      "with a width of 0",
      JSON.stringify({ ...config, d_model: 0 }),
      /model .*bad-model.*: config\.json .*"d_model" is 0, expected a whole number from 1 to/,
    ],
    [
      "with a billion layers",
      JSON.stringify({ ...config, num_layers: 1e9 }),
      /"num_layers" is 1000000000, expected a whole number from 1 to/,
    ],
    ["with text for a number", JSON.stringify({ ...config, patch_size: "32" }), /"patch_size" is "32"/],
    ["with a key twice", '{"d_model":128,"d_model":64}', /key "d_model" occurs twice/],
  ];
  const damaged = (change: (place: string) => void): string => {
    const place = mkdtempSync(join(folder, "bad-model-"));
    cpSync(join(model, "config.json"), join(place, "config.json"));
    cpSync(join(model, "model.safetensors"), join(place, "model.safetensors"));
    change(place);
    return place;
  };

  async function expectBothRefuse(place: string, message: RegExp): Promise<void> {
    const file = join(folder, "a.csv");
    writeFileSync(file, "x\n1\n2\n3\n");
    const before = openFiles();
    const load = (reference: string): Promise<Forecaster> => Forecaster.load(reference, { device: "reference" });
    expectRefusal(await runCli(["forecast", file, "--model", place, "--horizon", "2"], { load }), message);
    const refusal: unknown = await load(place)
      .then((forecaster) => forecaster.predict({ values: [1, 2, 3], id: "a" }, { horizon: 2 }).finally(() => forecaster.dispose()))
      .catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(InputError);
    expect(openFiles()).toBeLessThanOrEqual(before);
  }

  test.each(weights)("weights: %s", async (_, content, message) => {
    await expectBothRefuse(
      damaged((place) => writeFileSync(join(place, "model.safetensors"), content())),
      message,
    );
  });

  test.each(configs)("config.json %s", async (_, text, message) => {
    await expectBothRefuse(
      damaged((place) => writeFileSync(join(place, "config.json"), text)),
      message,
    );
  });

  test("wrong folders", async () => {
    await expectBothRefuse(
      damaged((place) => rmSync(join(place, "config.json"))),
      /has no config\.json \(found model\.safetensors\)/,
    );
    await expectBothRefuse(
      damaged((place) => rmSync(join(place, "model.safetensors"))),
      /has no model\.safetensors or model\.safetensors\.index\.json/,
    );
    await expectBothRefuse(join(folder, "absent"), /The model folder ".*absent" does not exist\. Give a folder with/);
    await expectBothRefuse(join(model, "config.json"), /config\.json is a file; a model is a folder/);
    const place = join(folder, "weights-folder");
    mkdirSync(join(place, "model.safetensors"), { recursive: true });
    writeFileSync(join(place, "config.json"), JSON.stringify(config));
    await expectBothRefuse(place, /model\.safetensors: it is a folder, expected a regular file/);
  });
});
