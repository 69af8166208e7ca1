/**
 * Import rules of the layers. One line per folder says what it may import; everything else is an error.
 * `types` lists folders of which only types may be imported; `words` adds the constants of ir.
 */
const layers = {
  ir: {},
  passes: { allow: ["ir"] },
  codegen: { allow: ["ir"] },
  runtime: { types: ["ir", "codegen"], words: true },
  // The reference device is the interpreter of ir.
  "runtime/reference": { allow: ["ir"] },
  trace: { allow: ["ir", "passes", "codegen", "runtime"] },
  // Of trace, tensor sees the eager entry; the rule "tensor sees trace's entry only" below narrows it.
  tensor: { allow: ["ir", "trace"], types: ["runtime"] },
  nn: { allow: ["tensor", "trace"], types: ["ir", "runtime"], words: true },
  models: { allow: ["tensor", "trace", "nn"], types: ["ir", "runtime"], words: true },
  // A table of references to model families: it opens checkpoints and picks a device.
  "models/registry": { allow: ["tensor", "trace", "nn", "io", "runtime"], types: ["ir"] },
  io: { types: ["models"] },
  forecast: { allow: ["models", "io"] },
  // Golden cases name weights by formula, so the formulas are part of what diagnostics compare.
  diagnostics: { allow: ["io", "models/formula"], files: ["index", "internals"] },
  cli: { allow: ["forecast", "io", "diagnostics"], files: ["index", "internals"] },
};

/** Files any layer may import: they hold names, not behaviour. */
const SHARED = "^src/models/(input-error|tensor-source)[.]ts$";

/** Sizes, element types and how they are stored, and the constants that op tables publish (block width, moments per row): words, not machinery. */
const WORDS = "^src/ir/(dim|dtype|bf16|ops/(state|routines))[.]ts$";

function own(layer) {
  return layer.includes("registry") ? "models" : layer.split("/")[0];
}

function folders(names) {
  return names.map((name) => `^src/${name}/`);
}

function files(names) {
  return names.map((name) => `^src/${name}[.]ts$`);
}

const narrower = Object.keys(layers).filter((layer) => layer.includes("/"));

const layerRules = Object.entries(layers).flatMap(([layer, { allow = [], types = [], files: single = [], words = false }]) => {
  const from = {
    path: layer === "models/registry" ? "^src/models/registry[.]ts$" : `^src/${layer}/`,
    ...(layer.includes("/")
      ? {}
      : {
          pathNot: narrower
            .filter((name) => name.startsWith(`${layer}/`))
            .map((name) => (name.endsWith("registry") ? "^src/models/registry[.]ts$" : `^src/${name}/`)),
        }),
  };
  const values = [`^src/${own(layer)}/`, SHARED, ...folders(allow), ...files(single), ...(words ? [WORDS] : [])];
  const rules = [
    {
      name: `${layer}-layer`,
      comment: `src/${layer} may import: ${[...allow, ...types.map((name) => `${name} (types)`), ...single, "itself"].join(", ")}`,
      severity: "error",
      from,
      to: { path: "^src/", pathNot: [...values, ...folders(types)] },
    },
  ];
  if (types.length > 0) {
    rules.push({
      name: `${layer}-types-only`,
      comment: `of ${types.join(", ")}, src/${layer} may import types only`,
      severity: "error",
      from,
      to: { path: folders(types), pathNot: values, dependencyTypesNot: ["type-only"] },
    });
  }
  return rules;
});

module.exports = {
  forbidden: [
    ...layerRules,
    {
      name: "tensor-sees-traces-entry",
      comment: "of src/trace, src/tensor may import the eager entry and types",
      severity: "error",
      from: { path: "^src/tensor/" },
      to: { path: "^src/trace/", pathNot: "^src/trace/(index|eager|entry)[.]ts$", dependencyTypesNot: ["type-only"] },
    },
    {
      name: "core-needs-koffi-only",
      comment: "ir, passes, codegen, runtime, trace, tensor, nn and models use no package but koffi",
      severity: "error",
      from: { path: "^src/(ir|passes|codegen|runtime|trace|tensor|nn|models)/" },
      to: { dependencyTypes: ["npm", "npm-dev", "npm-optional", "npm-peer", "npm-no-pkg"], pathNot: "node_modules/koffi/" },
    },
    {
      name: "no-cycles",
      comment: "files that need each other are one file or need a third; types may refer back",
      severity: "error",
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: "specify",
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { extensions: [".ts", ".js"], exportsFields: ["exports"], conditionNames: ["import", "node", "default"] },
  },
};
