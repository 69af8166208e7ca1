// One series: values in, mean and quantiles out.  node examples/one-series.mjs
import { Forecaster } from "tempograph";

const history = Array.from({ length: 240 }, (_, hour) => 100 + 20 * Math.sin((hour / 24) * 2 * Math.PI) + (hour % 7));

const forecaster = await Forecaster.load("bundled:toto1-formula");
const forecast = await forecaster.predict({ values: history, id: "web-7" }, { horizon: 24, samples: 64, seed: 7 });
const [low, high] = [forecast.quantile(0.1), forecast.quantile(0.9)];
forecast.mean.forEach((value, hour) =>
  console.log(`+${hour + 1} h  ${value.toFixed(1)}  (${low[hour]?.toFixed(1)} to ${high[hour]?.toFixed(1)})`),
);
console.log(`recompiles: ${forecast.report.recompiles}`);
forecaster.dispose();
