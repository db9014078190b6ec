/** Ceilings and patience of the HTTP room; bytes, counts and milliseconds. */
export interface HttpLimits {
  /** of a request's body */
  readonly bodyBytes: number;
  /** of a webhook's body, whose sender decides what is in it; most of them are only authenticated */
  readonly hookBodyBytes: number;
  /** of all webhooks' bodies whose senders are not known yet */
  readonly strangersBytes: number;
  /** nesting of a JSON document from outside */
  readonly jsonDepth: number;
  /** characters of a bearer token */
  readonly tokenChars: number;
  /** how long `POST /v1/runs` waits for the end without a `Prefer: wait` */
  readonly defaultWaitMs: number;
  /** longest wait a caller may ask for; more is lowered to it */
  readonly maxWaitMs: number;
  /** between two looks at a run that another process executes */
  readonly pollMs: number;
  /** between two looks at a run of this process, at the least */
  readonly localPollMs: number;
  /** between two signs of life on an event stream */
  readonly heartbeatMs: number;
  /** an event stream is closed after this long, so that a watcher shows a fresh token now and then */
  readonly streamMs: number;
  /** event streams and long polls open at once in this process */
  readonly watchers: number;
  /** of them, of one caller */
  readonly watchersPerCaller: number;
  /** plans, states and gates worked on at once in this process */
  readonly looks: number;
  /** verifications at once: each holds the pending bodies in memory, up to 64 MiB */
  readonly verifications: number;
  /** of either, how many more may wait for their turn */
  readonly waiting: number;
  /** runs of one target open at once in this process; all but one of them wait for the lease */
  readonly runsPerTarget: number;
  /**
   * records of refusals and repetitions on one target in an hour, by this process: a caller that a rule knows may have as
   * many names as its platform gives it
   */
  readonly refusalRecords: number;
  /** between two looks for runs that another server left; a third of what a claim lasts */
  readonly pickUpMs: number;
  /** for a plan, a status or a verification, which nobody can cancel */
  readonly readMs: number;
}

/** What the server uses unless told otherwise. */
export const httpLimits: HttpLimits = {
  bodyBytes: 16 * 1024,
  hookBodyBytes: 256 * 1024,
  strangersBytes: 32 * 1024 * 1024,
  jsonDepth: 16,
  tokenChars: 8 * 1024,
  // every common gateway gives up after 29 or 30 s
  defaultWaitMs: 25_000,
  maxWaitMs: 55_000,
  pollMs: 1_000,
  localPollMs: 100,
  // content networks close a connection after 30 s of silence
  heartbeatMs: 15_000,
  streamMs: 15 * 60_000,
  watchers: 256,
  watchersPerCaller: 128,
  looks: 16,
  verifications: 2,
  waiting: 64,
  runsPerTarget: 8,
  refusalRecords: 600,
  pickUpMs: 15_000,
  readMs: 28_000,
};
