/**
 * The error class of bad input, named once for the forecast layer and everything above it, which may not look inside models.
 */
export { InputError } from "../models/input-error.js";
