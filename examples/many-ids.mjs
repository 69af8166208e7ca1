// Many series of different lengths in one call. They are separate entries: unrelated series never attend to each other, and each draws the same random
// numbers for its id, whatever else is in the batch.  node examples/many-ids.mjs
import { Forecaster } from "tempograph";

const series = ["web-1", "web-2", "db-1"].map((id, index) => ({
  id,
  values: Array.from({ length: 60 + 50 * index }, (_, step) => 10 * (index + 1) + Math.cos(step / (3 + index))),
  // A missing value is NaN or null.
  timestamps: Array.from({ length: 60 + 50 * index }, (_, step) => new Date(Date.UTC(2024, 0, 1, step))),
}));

const forecaster = await Forecaster.load("bundled:toto1-formula");
const together = await forecaster.predict(series, { horizon: 6, samples: 32 });
for (const entry of together)
  console.log(`${entry.id}  ${entry.timestamps[0]}  ${Array.from(entry.mean, (value) => value.toFixed(2)).join(" ")}`);

const alone = await forecaster.predict(series.slice(2), { horizon: 6, samples: 32 });
const same = alone.mean.every((value, step) => value === together.series[2]?.mean[step]);
console.log(`db-1 alone has the same bits: ${same}`);
forecaster.dispose();
