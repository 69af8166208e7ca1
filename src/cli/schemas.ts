/**
 * The JSON Schemas that the package publishes under schemas/, by file name. `npm run schemas` writes them; a test compares.
 */
import { z } from "zod";
import { logAnalysisSchema } from "../diagnostics/logs/answer.js";
import { evaluationSchema, forecastSchema } from "../forecast/schema.js";

const published: Readonly<Record<string, { readonly title: string; readonly schema: z.ZodType }>> = {
  "analyze.schema.json": { title: "Answer of tempograph analyze --json", schema: logAnalysisSchema },
  "evaluate.schema.json": { title: "Answer of tempograph evaluate --json", schema: evaluationSchema },
  "forecast.schema.json": { title: "Answer of tempograph forecast --format json, and of Forecast.toJSON()", schema: forecastSchema },
};

/** Text of every schema file, with a closing newline. */
export function schemaFiles(): Map<string, string> {
  return new Map(
    Object.entries(published).map(([name, { title, schema }]) => {
      const { $schema, ...rest } = z.toJSONSchema(schema);
      return [name, `${JSON.stringify({ $schema, title, ...rest }, null, 2)}\n`];
    }),
  );
}
