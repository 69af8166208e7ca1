// A forecaster inside a worker thread; the process has one pool of threads that all workers share.  node examples/worker-thread.mjs
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { Forecaster } from "tempograph";

if (isMainThread) {
  const values = Array.from({ length: 200 }, (_, step) => Math.sin(step / 5));
  const worker = new Worker(new URL(import.meta.url), { workerData: { values } });
  const mean = await new Promise((resolve, reject) => {
    worker.once("message", resolve);
    worker.once("error", reject);
  });
  console.log(`from the worker: ${Array.from(/** @type {Float32Array} */ (mean), (value) => value.toFixed(3)).join(" ")}`);
} else {
  const forecaster = await Forecaster.load("bundled:toto1-formula");
  const forecast = await forecaster.predict({ values: workerData.values }, { horizon: 5, samples: 16 });
  forecaster.dispose();
  parentPort?.postMessage(forecast.mean);
}
