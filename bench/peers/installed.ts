/** Whether the peers' packages are installed in bench/peers, and how to load them from there. They are no dependency of the package. */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

export type Require = (name: string) => unknown;

/** The folder in the source tree, whether this file runs from there or from the build. */
const folder = ["./", "../../../bench/peers/"]
  .map((path) => new URL(path, import.meta.url))
  .find((url) => existsSync(new URL("package.json", url)));

/** Undefined when the packages are not there. */
export function peerPackages(): Require | undefined {
  if (!folder || !existsSync(new URL("node_modules/onnxruntime-node", folder))) return undefined;
  return createRequire(new URL("package.json", folder)) as Require;
}

export const installHint = `onnxruntime-node is not installed beside the benches${folder ? ` (${fileURLToPath(folder)}node_modules)` : ""}: npm run bench:peers installs it`;
