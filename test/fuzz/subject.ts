/** One parser of bytes from outside, and what is true of whatever it accepts. */
export interface Subject {
  /** `release-line`; one is enough for `npm run fuzz -- --for` */
  readonly name: string;
  /** right inputs, which the mutations begin with */
  readonly corpus: readonly Buffer[];
  /** of one case, in ordinary ones: it gets so many fewer; absent: 1 */
  readonly cost?: number;
  /** where the parser's own ceiling lies below that of all inputs here */
  readonly maxBytes?: number;
  /** milliseconds of the processor for one input, where that is more than for others */
  readonly maxMs?: number;
  /** pieces of this format that a mutation may put in */
  readonly words?: readonly string[];
  /**
   * Reads the input as the program does.
   *
   * @returns what is wrong with having accepted it, or nothing
   * @throws RunnerError the parser's own refusal
   */
  read(input: Buffer): string | undefined | Promise<string | undefined>;
}

/** What a parser may not do with any input. */
export type Fault = "accepted" | "crashed" | "slow" | "told too much" | "hung" | "kept memory";

/** One input that a parser did not get right, as small as it could be made. */
export interface Finding {
  readonly subject: string;
  readonly fault: Fault;
  readonly what: string;
  readonly seed: number;
  readonly index: number;
  readonly input: Buffer;
}
