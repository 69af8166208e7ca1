// Variates of one joint series attend to each other: load and temperature of the same machine.  node examples/multivariate.mjs
import { Forecaster } from "tempograph";

const steps = Array.from({ length: 300 }, (_, step) => step);
const load = steps.map((step) => 50 + 30 * Math.sin(step / 8));
const temperature = steps.map((step) => 40 + 10 * Math.sin((step - 3) / 8));

const forecaster = await Forecaster.load("bundled:toto1-formula");
const forecast = await forecaster.predict({ id: "machine", columns: { load, temperature } }, { horizon: 12, samples: 32 });
for (const { variate, mean } of forecast) console.log(`${variate}  ${Array.from(mean, (value) => value.toFixed(1)).join(" ")}`);
forecaster.dispose();
