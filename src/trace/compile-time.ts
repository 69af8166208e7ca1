/** The clock of everything that compiles a function. Holds nothing else. */
import { SharedTime } from "../runtime/shared-time.js";

/** All compiling of this process: programs that are compiled at once divide the time between them. */
export const compileTime = new SharedTime();
