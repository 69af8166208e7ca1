/**
 * Lint rules: what types cannot say. Formatting is prettier's business, import layers are .dependency-cruiser.cjs's.
 */
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/**", "node_modules/**", "bench/peers/node_modules/**", "dist-*/**"] },
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.recommended],
    languageOptions: { parserOptions: { project: "./tsconfig.json", tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/no-misused-promises": "error",
      "@typescript-eslint/await-thenable": "error",
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
      // `void` marks a value as deliberately unused; a leading underscore does the same for parameters.
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      eqeqeq: "error",
      "no-console": "error",
    },
  },
  // The one place where foreign functions arrive untyped.
  { files: ["src/runtime/native/ffi.ts"], rules: { "@typescript-eslint/no-explicit-any": "off" } },
  // Benches and tests talk to a person directly.
  { files: ["bench/**/*.ts", "test/**/*.ts"], rules: { "no-console": "off" } },
);
