/**
 * The error class of bad input, named once for the forecast layer and everything above it.
 */
export { InputError } from "../io/errors.js";
