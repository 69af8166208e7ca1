/** Conformance: every op of the table, on every device and in every mode, against its reference meaning; native instruction sets bit for bit. */
import { describe, expect, it } from "vitest";
import { opTable } from "../src/ir/ops.js";
import { openDevice } from "../src/trace/devices.js";
import { attentionForms, cacheCases } from "./conformance-caches.js";
import { tokenCases } from "./conformance-tokens.js";
import { rowCases, type ConformanceCase } from "./conformance-cases.js";
import { kernelCases } from "./conformance-kernels.js";
import { groupedVariates, quantileCases } from "./conformance-quantiles.js";
import {
  compileTogether,
  differenceOf,
  nativeTargets,
  onAbsoluteValues,
  outsideBound,
  runCase,
  runModes,
  type Outcome,
} from "./graph-harness.js";

const cases: typeof kernelCases = {
  ...rowCases,
  ...kernelCases,
  ...cacheCases,
  ...quantileCases,
  ...tokenCases,
  attention: () => [...(kernelCases["attention"]?.() ?? []), ...attentionForms()],
  groupAttention: () => [...(kernelCases["groupAttention"]?.() ?? []), ...groupedVariates()],
};
const reference = openDevice("reference").device;
const targets = nativeTargets();
/** Ops whose kernels are built as one C file. */
const groupSize = 6;

describe("conformance", () => {
  it("has cases for exactly the ops of the table", () => {
    expect(Object.keys(cases).sort()).toEqual(Object.keys(opTable).sort());
  });
});

function referenceOutcomes(conformance: ConformanceCase): { want: Outcome[]; magnitudes: Outcome[] | undefined } {
  const run = (one: typeof conformance): Outcome[] => {
    const compiled = compileTogether("reference", reference, [one], ["eager"]).get("eager");
    return runCase(reference, one, (compiled as NonNullable<typeof compiled>)[0] as never, "per-kernel");
  };
  return {
    want: run(conformance),
    magnitudes: conformance.bound.ofMagnitude ? run({ ...onAbsoluteValues(conformance), bound: conformance.bound }) : undefined,
  };
}

const names = Object.keys(cases);
for (let start = 0; start < names.length; start += groupSize) {
  const group = names.slice(start, start + groupSize);
  describe(`ops ${group.join(", ")}`, () => {
    const all = group.flatMap((op) => (cases[op] as () => ConformanceCase[])());
    const wanted = all.map(referenceOutcomes);
    let first: { target: string; outcomes: Outcome[][] } | undefined;
    for (const { target, device, reason } of targets) {
      it.skipIf(!device)(`${target}: all modes alike, reference within bounds${device ? "" : ` (skipped: ${reason})`}`, () => {
        if (!device) return;
        const compiled = compileTogether(`conformance_${start / groupSize}`, device, all, ["eager", "default"]);
        const problems: string[] = [];
        const outcomes = all.map((one, index) => {
          const run = (mode: "eager" | "default", replay: "per-kernel" | "one-call"): Outcome[] =>
            runCase(device, one, compiled.get(mode)?.[index] as never, replay);
          const eager = run("eager", runModes.eager.replay);
          const { want, magnitudes } = wanted[index] as (typeof wanted)[0];
          const note = (what: string, binding: number, problem: string | undefined): void => {
            if (problem) problems.push(`${one.name} ${JSON.stringify(one.bindings[binding]?.sizes)}, ${what}: ${problem}`);
          };
          for (const [what, other] of [
            ["default", run("default", "per-kernel")],
            ["reduce-overhead", run("default", "one-call")],
          ] as const) {
            other.forEach((outcome, binding) => note(`${what} against eager`, binding, differenceOf(outcome, eager[binding] as Outcome)));
          }
          eager.forEach((outcome, binding) => {
            note("against reference", binding, outsideBound(outcome, want[binding] as Outcome, one.bound, magnitudes?.[binding]));
            const earlier = first?.outcomes[index]?.[binding];
            if (earlier) note(`against ${first?.target}`, binding, differenceOf(outcome, earlier));
          });
          return eager;
        });
        first ??= { target, outcomes };
        expect(problems).toEqual([]);
      });
    }
  });
}
