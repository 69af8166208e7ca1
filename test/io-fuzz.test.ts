/** Damaged and random input, 10,000 tables and 10,000 safetensors headers from a fixed seed: every reader answers or refuses with an InputError - no crash, no hang, no other error. */
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writeAtomically } from "../src/io/atomic-write.js";
import { InputError } from "../src/io/errors.js";
import { parseParquet } from "../src/io/parquet.js";
import { openSafetensors } from "../src/io/safetensors.js";
import { readSeriesTable } from "../src/io/table.js";

let folder = "";
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), "tempograph-fuzz-"))));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function isAnswerOrRefusal(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
  }
}

const cell = fc.oneof(
  fc.constantFrom(
    "",
    "1",
    "-2.5",
    "1e400",
    "nan",
    "2024-01-01",
    "2024-01-01T00:00:00+99:00",
    '"',
    ",",
    ";",
    "\t",
    "\r\n",
    "\n",
    "x",
    "time",
    "0x1",
    "1,5",
  ),
  fc.string({ maxLength: 6 }),
  fc.double().map(String),
);

test("random CSV and JSON text", async () => {
  const path = join(folder, "input");
  await fc.assert(
    fc.asyncProperty(
      fc.array(cell, { maxLength: 30 }),
      fc.constantFrom(".csv", ".json", ".jsonl", ""),
      fc.constantFrom(",", "\n", ""),
      fc.boolean(),
      async (cells, ending, separator, decimalComma) => {
        writeFileSync(path + ending, cells.join(separator));
        await readSeriesTable(path + ending, { decimalComma }).then(
          (table) => expect(table.series.length).toBeGreaterThan(0),
          (error: unknown) => expect(error).toBeInstanceOf(InputError),
        );
      },
    ),
    { numRuns: 10_000, seed: 8 },
  );
});

const entry = fc.record(
  {
    dtype: fc.constantFrom("F32", "BF16", "I64", "F99", "", 7),
    shape: fc.array(fc.oneof(fc.integer({ min: -1, max: 9 }), fc.constantFrom(1.5, 2 ** 53, "3")), { maxLength: 3 }),
    data_offsets: fc.array(fc.oneof(fc.integer({ min: -8, max: 64 }), fc.constantFrom(2 ** 53, null)), { maxLength: 3 }),
  },
  { requiredKeys: [] },
);

test("random safetensors headers", () => {
  const path = join(folder, "model.safetensors");
  fc.assert(
    fc.property(
      fc.oneof(
        fc.dictionary(fc.string({ maxLength: 3 }), entry, { maxKeys: 4 }).map((header) => JSON.stringify(header)),
        fc.string({ maxLength: 40 }),
      ),
      fc.option(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), { nil: undefined, freq: 4 }),
      fc.nat({ max: 64 }),
      (header, length, bytes) => {
        const text = Buffer.from(header);
        const start = Buffer.alloc(8);
        start.writeBigUInt64LE(length ?? BigInt(text.length));
        writeFileSync(path, Buffer.concat([start, text, Buffer.alloc(bytes)]));
        isAnswerOrRefusal(() => {
          const file = openSafetensors(path);
          try {
            for (const name of file.tensors.keys()) isAnswerOrRefusal(() => void file.read(name));
          } finally {
            file.close();
          }
        });
      },
    ),
    { numRuns: 10_000, seed: 8 },
  );
});

test("random bytes called Parquet", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 80 }), async (bytes) => {
      const framed = Buffer.concat([Buffer.from("PAR1"), bytes, Buffer.from("PAR1")]);
      await parseParquet(framed, "x.parquet").catch((error: unknown) => expect(error).toBeInstanceOf(InputError));
    }),
    { numRuns: 300, seed: 8 },
  );
});

test.skipIf(!existsSync("/dev/full") || !statSync("/dev/full").isCharacterDevice())(
  "a full disk is named, and a device stays a device",
  () => {
    expect(() => writeAtomically("/dev/full", (write) => write(Buffer.from("x")))).toThrow(/cannot write \/dev\/full/);
    expect(statSync("/dev/full").isCharacterDevice()).toBe(true);
    expect(readdirSync("/dev").filter((name) => name.startsWith("full."))).toEqual([]);
  },
);
