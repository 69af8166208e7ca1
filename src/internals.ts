/**
 * Undocumented second entry for the project's own commands and diagnostics: what users should not build on.
 */
export {};
