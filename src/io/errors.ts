/** Where file readers and their callers find the error for bad input; the class itself is shared with the models. */

export { InputError } from "../models/input-error.js";
