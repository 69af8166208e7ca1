/**
 * Models worth knowing by name: what the package carries and what the hub has. A table for people; loading does not depend on it, except that
 * a published Kronos model finds its tokenizer here.
 */

export interface CatalogueEntry {
  readonly reference: string;
  readonly family: "Toto 1.0" | "Toto 2.0" | "Kronos";
  readonly parameters: string;
  /** Steps. */
  readonly context: number;
  readonly licence: string;
  readonly goodAt: string;
  /** Kronos only. */
  readonly tokenizer?: string;
}

export const CATALOGUE: readonly CatalogueEntry[] = [
  {
    reference: "bundled:toto2-nano",
    family: "Toto 2.0",
    parameters: "1.3 M",
    context: 2048,
    licence: "Apache-2.0",
    goodAt: "quick forecasts of any series, quantiles in one pass",
  },
  {
    reference: "bundled:toto1-nano",
    family: "Toto 1.0",
    parameters: "about 1 M",
    context: 2048,
    licence: "Apache-2.0",
    goodAt: "sample paths of any series",
  },
  {
    reference: "bundled:kronos-nano",
    family: "Kronos",
    parameters: "about 1 M",
    context: 512,
    licence: "Apache-2.0",
    goodAt: "candles: paths of open, high, low, close and volume",
  },
  {
    reference: "bundled:toto1-formula",
    family: "Toto 1.0",
    parameters: "tiny",
    context: 4096,
    licence: "Apache-2.0",
    goodAt: "nothing: weights from a formula, they show the engine",
  },
  {
    reference: "bundled:kronos-formula",
    family: "Kronos",
    parameters: "tiny",
    context: 512,
    licence: "Apache-2.0",
    goodAt: "nothing: weights from a formula, they show the engine",
  },
  {
    reference: "Datadog/Toto-Open-Base-1.0",
    family: "Toto 1.0",
    parameters: "151 M",
    context: 4096,
    licence: "Apache-2.0",
    goodAt: "observability metrics, many variates, sample paths",
  },
  {
    reference: "NeoQuasar/Kronos-mini",
    family: "Kronos",
    parameters: "4.1 M",
    context: 2048,
    licence: "MIT",
    goodAt: "candles, long windows",
    tokenizer: "NeoQuasar/Kronos-Tokenizer-2k",
  },
  {
    reference: "NeoQuasar/Kronos-small",
    family: "Kronos",
    parameters: "24.7 M",
    context: 512,
    licence: "MIT",
    goodAt: "candles",
    tokenizer: "NeoQuasar/Kronos-Tokenizer-base",
  },
  {
    reference: "NeoQuasar/Kronos-base",
    family: "Kronos",
    parameters: "102 M",
    context: 512,
    licence: "MIT",
    goodAt: "candles, the most skilful of the open sizes",
    tokenizer: "NeoQuasar/Kronos-Tokenizer-base",
  },
];
