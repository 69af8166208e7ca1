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
const earlierFolder = join(results, "avx512");
const earlier = existsSync(earlierFolder)
  ? {
      title: "Earlier, on a machine with AVX-512",
      results: readResults(earlierFolder),
    }
  : undefined;
mkdirSync(join(docs, "performance"), { recursive: true });
for (const curve of current.curves) writeFileSync(join(docs, "performance", `${curve.name}.svg`), plotSvg(curve));
writeFileSync(join(docs, "performance.md"), performancePage(current, earlier, workloads, modes));
console.log(`wrote ${join(docs, "performance.md")} and ${current.curves.length} pictures`);
