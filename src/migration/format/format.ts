/**
 * How a tool lays migrations out as files. Decides by names alone; opens nothing.
 *
 * Implementations pass the vectors of `test/vectors/format/<name>`.
 */
export interface Format {
  /** the tool: `golang-migrate` */
  readonly name: string;

  /**
   * Pairs up the files of one folder.
   *
   * Every name is accounted for: it belongs to a migration, or is in `ignored`, or is an error.
   *
   * @param names - file names without a folder, in any order
   * @throws RunnerError `UNKNOWN_FILE`, `DUPLICATE_VERSION`, `NO_UP`, `NAME`, `NO_MIGRATIONS` — all problems of the folder in
   * one message, the first ten in full; the code is that of the first
   */
  read(names: readonly string[]): FolderLayout;
}

/** What a format made of a folder. */
export interface FolderLayout {
  /** in order of their versions */
  readonly migrations: readonly MigrationNames[];
  /** files that are no migrations, nor look like any */
  readonly ignored: readonly IgnoredFile[];
  /** what a person should hear of */
  readonly warnings: readonly string[];
}

/** One version's files. */
export interface MigrationNames {
  /** as the file name wrote it, leading zeros and all */
  readonly version: string;
  /** `users` of `000001_users.up.sql` */
  readonly title: string;
  readonly up: string;
  readonly down?: string;
}

/** A file that is no migration, and why. */
export interface IgnoredFile {
  readonly name: string;
  readonly reason: string;
}
