// Writes docs/api/*.md from the comments in the code: npm run docs
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { apiReference, referenceFolder } from "./api-reference.mjs";

mkdirSync(referenceFolder, { recursive: true });
for (const [name, text] of apiReference()) writeFileSync(join(referenceFolder, name), text);
