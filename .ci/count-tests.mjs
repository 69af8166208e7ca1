// Prints `N passed, N failed` from vitest's JSON report. A file that could not even be loaded counts as one failure.
import { readFileSync } from "node:fs";

const report = JSON.parse(readFileSync(process.argv[2], "utf8"));
const broken = report.testResults.filter((file) => file.status === "failed" && file.assertionResults.length === 0).length;
const failed = report.numFailedTests + broken;
console.log(`${report.numPassedTests} passed, ${failed} failed`);
// A run without a single passed test measured nothing.
process.exitCode = failed > 0 ? 1 : report.numPassedTests > 0 ? 0 : 2;
