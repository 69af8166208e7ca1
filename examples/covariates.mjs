// Covariates: what is known ahead (a price list, holidays) and what was measured so far (temperature).  node examples/covariates.mjs
import { Forecaster } from "tempograph";

const horizon = 14;
const days = Array.from({ length: 180 }, (_, day) => day);
const sales = days.map((day) => 200 + (day % 7 === 6 ? 80 : 0) + 10 * Math.sin(day / 20));
const holiday = Array.from({ length: days.length + horizon }, (_, day) => (day % 7 === 6 ? 1 : 0));
const temperature = days.map((day) => 15 + 10 * Math.sin(day / 58));

const forecaster = await Forecaster.load("bundled:toto1-formula");
const forecast = await forecaster.predict(
  { id: "shop", values: sales, knownCovariates: { holiday }, pastCovariates: { temperature } },
  { horizon, samples: 32 },
);
console.log(Array.from(forecast.mean, (value) => value.toFixed(0)).join(" "));
forecaster.dispose();
