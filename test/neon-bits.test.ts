/** NEON against the pinned bits of AVX-512, under an emulator: needs a cross compiler and qemu, and skips with the reason where they are missing. */
import { describe, expect, it } from "vitest";
import { hashesOn, pinned } from "./pinned-cases.js";
import { QemuDevice, qemuMissing } from "./qemu-device.js";

describe("pinned bits", () => {
  it.skipIf(qemuMissing)(
    `neon under qemu${qemuMissing ? ` (skipped: ${qemuMissing})` : ""}`,
    () => {
      const device = new QemuDevice();
      try {
        expect(hashesOn(device)).toEqual(pinned);
      } finally {
        device.dispose();
      }
    },
    120_000,
  );
});
