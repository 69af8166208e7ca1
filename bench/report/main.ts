/** `npm run bench:report`: docs/performance.md and its pictures from bench/results. Measures nothing. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { modes } from "../../src/trace/entry.js";
import { workloads } from "../workloads.js";
import { performancePage } from "./page.js";
import { plotSvg } from "./plot.js";
import { readResults } from "./results.js";

const [results = "bench/results", docs = "docs"] = process.argv.slice(2);
const current = readResults(results);
/** Folders of results from other machines. */
const elsewhere = [
  ["avx2", "On two cores of a shared AMD server with AVX2, before whole turns of the inner axis and tiles that keep their sums in place"],
] as const;
const others = elsewhere
  .map(([folder, title]) => ({ folder: join(results, folder), title }))
  .filter(({ folder }) => existsSync(folder))
  .map(({ folder, title }) => ({ title, results: readResults(folder) }));
mkdirSync(join(docs, "performance"), { recursive: true });
for (const curve of current.curves) writeFileSync(join(docs, "performance", `${curve.name}.svg`), plotSvg(curve));
writeFileSync(join(docs, "performance.md"), performancePage(current, others, workloads, modes));
console.log(`wrote ${join(docs, "performance.md")} and ${current.curves.length} pictures`);
