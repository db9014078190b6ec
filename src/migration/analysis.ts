import type { Body } from "./migration.ts";

/** How a body may run: what a release says of it besides its name and checksum. */
export interface Analysis extends Pick<Body, "tx" | "alone" | "locks" | "statements" | "code"> {
  /** nothing but white space: a file somebody forgot to fill */
  readonly isEmpty: boolean;
}
