/** Makes a backup before the first step of a run; implemented by `command.ts` and `webhook.ts`, chosen in `bin/`. */
export interface Backup {
  /** `command pg_dump`, `webhook https://backup.example`: without arguments, path and query, which may hold a secret */
  readonly by: string;
  /** milliseconds until it counts as failed; 0: never */
  readonly timeoutMs: number;

  /**
   * Resolves when the backup is made. Leaves nothing running behind when it throws.
   *
   * @param onLine - told what the command writes, a bounded number of lines without control characters
   * @throws RunnerError `BACKUP_FAILED`; whatever `signal` aborts with, soon after it has
   */
  make(facts: BackupFacts, signal: AbortSignal, onLine: (line: string) => void): Promise<void>;
}

/** What a backup is told of the run that it is for; no secret among it. */
export interface BackupFacts {
  readonly run: string;
  readonly target: string;
  readonly stream: string;
  readonly environment: string;
  /** digest of the release */
  readonly release: string;
  /** version before the run's first step; null before the first migration */
  readonly from: string | null;
  /** version that the run leads to */
  readonly to: string | null;
}
