import type { Engine, TxMode } from "../migration.ts";

/** Tools whose folders are read as they are. */
export const formatNames = ["golang-migrate", "goose", "dbmate", "flyway", "atlas"] as const;

/** A tool whose folders are read as they are. */
export type FormatName = (typeof formatNames)[number];

/**
 * How a tool lays migrations out as files, and what it sends of each. Pure: opens nothing.
 *
 * Implementations pass the vectors of `test/vectors/format/<name>`.
 */
export interface Format {
  readonly name: FormatName;
  /** the tool also reads the folders within; we do not, and say so */
  readonly isDeep?: boolean;

  /**
   * Pairs up the files of one folder.
   *
   * Every name is accounted for: it belongs to a migration, or is in `companions` or `ignored`, or is an error.
   *
   * @param names - file names without a folder, in any order
   * @throws RunnerError `UNKNOWN_FILE`, `DUPLICATE_VERSION`, `NO_UP`, `NAME`, `NO_MIGRATIONS`, `FORMAT` — all problems of the folder in
   * one message, the first ten in full; the code is that of the first
   */
  read(names: readonly string[]): FolderLayout;

  /**
   * What the tool would send of one file. A body that is a part of its file begins with as many empty lines as stand
   * before it there, so that the line of an error is the file's; one that is all of it has the file's own bytes.
   *
   * @throws RunnerError `FORMAT` — the tool would not take the file, or we do not; with the line
   */
  parse(file: FormatFile, companions: Companions): ParsedFile | Promise<ParsedFile>;

  /**
   * The layout as the files themselves have it, where names do not tell all: Atlas says inside a file that it is a
   * checkpoint. Also the place to judge what the folder says of itself as a whole: `atlas.sum`.
   *
   * Asked once, with every file of every migration, before any is taken apart.
   *
   * @throws RunnerError `FOLDER_SUM` — the files are not those that it lists
   */
  settle?(layout: FolderLayout, files: readonly FormatFile[], companions: Companions): FolderLayout;
}

/** What a format reads a folder for, and what its files may refer to. */
export interface FormatSettings {
  readonly engine: Engine;
  /** what goose's ENVSUB may put in: the publisher's environment */
  /** undefined: this folder's writers are not to see it, and ENVSUB is refused */
  readonly variables: Readonly<Record<string, string | undefined>> | undefined;
  /** Flyway's `${name}` by name */
  readonly placeholders: Readonly<Record<string, string>>;
}

/** What a format made of a folder. */
export interface FolderLayout {
  /** in order of their versions */
  readonly migrations: readonly MigrationNames[];
  /** run again whenever what they say changes, in the order in which they run */
  readonly repeatable: readonly RepeatableName[];
  /** read before all others, because they say something of them: `atlas.sum`, `V1__a.sql.conf` */
  readonly companions: readonly string[];
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
  /** absent too where the up file itself may hold the way down */
  readonly down?: string;
  /** brings an empty database to this version in one step, in place of this migration and all before it */
  readonly checkpoint?: string;
}

/** A migration without a version. */
export interface RepeatableName {
  readonly title: string;
  readonly path: string;
}

/** A file that is no migration, and why. */
export interface IgnoredFile {
  readonly name: string;
  readonly reason: string;
}

/** A file's exact bytes. */
export interface FormatFile {
  readonly name: string;
  readonly bytes: Buffer;
}

/** Bytes of a layout's companions, by name. */
export type Companions = ReadonlyMap<string, Buffer>;

/** What a file holds. */
export interface ParsedFile {
  /** absent in a file that is only a way down */
  readonly up?: BodyPart;
  readonly down?: BodyPart;
  /** what a person should hear of; each names the file */
  readonly warnings: readonly string[];
}

/** A body as it is sent. */
export interface BodyPart {
  readonly bytes: Buffer;
  /** what the tool's own directives ask for; absent: its statements decide, as everywhere */
  readonly tx?: TxMode;
  /** the checksum that Flyway notes of the file, unsigned: of a script as it is, before its placeholders are filled in */
  readonly crc32?: number;
  /** source text of a program: what it becomes, and what is signed, is its bundle */
  readonly code?: true;
}
