// A plain HTTP handler: POST a JSON series, get the forecast as JSON; a client that goes away stops its run.  node examples/http-handler.mjs
import { createServer } from "node:http";
import { Forecaster, InputError } from "tempograph";

const forecaster = await Forecaster.load("bundled:toto1-formula");

const server = createServer(async (request, response) => {
  const controller = new AbortController();
  response.on("close", () => controller.abort());
  try {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { series, options } = JSON.parse(text);
    const forecast = await forecaster.predict(series, { ...options, signal: controller.signal });
    response.setHeader("content-type", "application/json").end(JSON.stringify(forecast));
  } catch (error) {
    // Mistakes of the caller are InputErrors, with a code and a sentence; JSON.parse throws SyntaxError.
    const isMistake = error instanceof InputError || error instanceof SyntaxError;
    if (!response.destroyed)
      response.writeHead(isMistake ? 400 : 500).end(JSON.stringify({ error: error instanceof Error ? error.message : String(error) }));
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
const address = server.address();
const port = typeof address === "object" && address !== null ? address.port : 0;

// What a client would do.
const body = JSON.stringify({ series: { id: "x", values: [1, 2, 3, 4, 5, 6] }, options: { horizon: 3, samples: 16 } });
const answer = /** @type {import("tempograph").ForecastJson} */ (
  await (await fetch(`http://127.0.0.1:${port}`, { method: "POST", body })).json()
);
console.log(answer.series[0]?.mean.length, "steps by HTTP");
const wrong = await fetch(`http://127.0.0.1:${port}`, { method: "POST", body: JSON.stringify({ series: { values: [] } }) });
console.log(wrong.status, await wrong.text());

server.close();
forecaster.dispose();
