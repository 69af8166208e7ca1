// A run can be watched and stopped: it ends within a decode step, and the forecaster stays usable.  node examples/abort.mjs
import { Forecaster } from "tempograph";

const values = Array.from({ length: 500 }, (_, step) => Math.sin(step / 10));
const forecaster = await Forecaster.load("bundled:toto1-formula");
const controller = new AbortController();
try {
  await forecaster.predict(
    { values },
    {
      horizon: 1000,
      samples: 16,
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        console.log(`step ${done} of ${total}`);
        if (done === 2) controller.abort(new Error("enough"));
      },
    },
  );
} catch (error) {
  console.log(`stopped: ${error instanceof Error ? error.message : error}`);
}
const after = await forecaster.predict({ values }, { horizon: 3, samples: 16 });
console.log(`still works: ${after.mean.length} steps`);
forecaster.dispose();
