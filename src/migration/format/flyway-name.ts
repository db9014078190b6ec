import { isVersion } from "../version.ts";
import { isLabel, notALabel, quote, unknownFile } from "./folder-problem.ts";
import type { FolderProblem } from "./folder-problem.ts";
import { isPutAside } from "./overlooked-name.ts";

/** What one name of a Flyway folder is. */
export type FlywayName =
  | VersionedName
  | { readonly kind: "repeatable"; readonly name: string; readonly title: string }
  /** settings of one script: `V1__a.sql.conf` of `V1__a.sql` */
  | { readonly kind: "config"; readonly name: string; readonly script: string }
  | { readonly kind: "ignored"; readonly name: string; readonly reason: string }
  | { readonly kind: "problem"; readonly problem: FolderProblem };

/** A script with a version: the way up, the way down, or all up to there in one. */
export interface VersionedName {
  readonly kind: "versioned" | "undo" | "baseline";
  readonly name: string;
  /** with dots, whatever the name has between its parts */
  readonly version: string;
  /** with blanks, as Flyway's history has it */
  readonly title: string;
}

/**
 * Reads a name as Flyway does with its default prefixes, separator and suffix (ResourceNameParser.java), and says what
 * is wrong with those that it would pass over although somebody will have meant a migration.
 */
export function readFlywayName(name: string): FlywayName {
  if (name.startsWith(".")) return { kind: "ignored", name, reason: "hidden file" };
  if (/\.conf$/i.test(name)) return readConfigName(name);
  if (/\.sql$/i.test(name)) return readScriptName(name);
  return readOtherName(name);
}

const SEPARATOR = "__";
const KINDS = { V: "versioned", U: "undo", B: "baseline" } as const;
/** Callbacks are named by the event that they wait for (Event.java, and those that later versions added). */
const CALLBACK = /^(?:(?:before|after)[A-Z]|createSchema)/;
/** Events of what lockkeeper does not do at all, so that nothing is missed. */
const IDLE_CALLBACK = /^(?:before|after)(?:Clean|Info|Repair|Baseline)(?:[A-Z][A-Za-z]*)?(?:__.*)?\.[^.]*$/;
/** Begins as a migration does, or nearly so. */
const NEAR_MISS = /^(?:[VUBR][0-9_.-]|[0-9]|.*__)/i;
const CODE = /\.(?:java|class|kt|kts|groovy|scala)$/i;
/** Flyway runs these as well; a name without an ending is one of a shell script. */
const PROGRAM = /(?:\.(?:sh|bash|ps1|py|cmd|bat|exe)|__[^.]*)$/i;
/** BigInteger and MigrationVersion take these for versions. */
const ODD_VERSION = /^[VUB](?:[+-][0-9]|latest__|current__|next__)/i;

function readScriptName(name: string): FlywayName {
  if (CALLBACK.test(name)) return readCallback(name);
  const [, prefix = "", rest = ""] = /^([VUBR]?)(.*)\.sql$/is.exec(name) ?? [];
  const at = rest.indexOf(SEPARATOR);
  const before = at < 0 ? rest : rest.slice(0, at);
  const title = at < 0 ? "" : rest.slice(at + SEPARATOR.length).replaceAll("_", " ");
  const isRepeatable = prefix === "R" && at === 0;
  const version = before.replaceAll("_", ".");
  const isVersioned = (prefix === "V" || prefix === "U" || prefix === "B") && isVersion(version);
  if (!isRepeatable && !isVersioned) return readOddScript(name);
  if (!isLabel(name)) return { kind: "problem", problem: notALabel(name) };
  return isVersioned ? { kind: KINDS[prefix], name, version, title } : { kind: "repeatable", name, title };
}

/** A script that Flyway never runs: told where it looks like one that somebody is waiting for. */
function readOddScript(name: string): FlywayName {
  if (ODD_VERSION.test(name))
    return problem(name, "would be run by Flyway under a version that is no number", renameHint(name));
  if (!NEAR_MISS.test(name)) return { kind: "ignored", name, reason: "Flyway overlooks it too" };
  return problem(
    name,
    "looks like a migration, but Flyway would overlook it",
    `${renameHint(name)}; other prefixes, separators and suffixes than Flyway's own are not read`,
  );
}

function renameHint(name: string): string {
  const [, prefix = "", version = "", title = ""] =
    /^([VUBR]?)([0-9]+(?:[._][0-9]+)*)[ _.-]*(.*)\.sql$/i.exec(name) ?? [];
  const wanted = `${prefix === "" ? "V" : prefix.toUpperCase()}${version}${SEPARATOR}${title}.sql`;
  return version !== "" && prefix.toUpperCase() !== "R" && isLabel(wanted)
    ? `rename it to ${quote(wanted)}, or move it away`
    : "rename it to V<version>__<description>.sql or R__<description>.sql, or move it away";
}

function readCallback(name: string): FlywayName {
  if (IDLE_CALLBACK.test(name))
    return { kind: "ignored", name, reason: "callback of something that lockkeeper does not do" };
  return problem(
    name,
    "is a callback, and lockkeeper runs none",
    /^afterMigrate|^afterVersioned|^beforeRepeatables/.test(name)
      ? "write what is to run after each change as a repeatable migration (R__…), and move this file away"
      : "write it into the migrations that need it, or into the job that starts lockkeeper, and move this file away",
  );
}

function readConfigName(name: string): FlywayName {
  const script = name.slice(0, -".conf".length);
  if (/\.sql$/i.test(script)) return { kind: "config", name, script };
  return { kind: "ignored", name, reason: "settings of Flyway itself, which are not read" };
}

function readOtherName(name: string): FlywayName {
  if (isPutAside(name)) return { kind: "ignored", name, reason: "put aside" };
  const isNamedLikeOne = /^[VUBR][0-9][^ ]*__/.test(name) || name.startsWith("R__");
  if (/\.jar$/i.test(name) || (CODE.test(name) && isNamedLikeOne)) {
    return problem(
      name,
      "is, or may hold, a migration in Java, which lockkeeper cannot run",
      "write it as SQL, or apply it with Flyway and adopt the database afterwards; move it away",
    );
  }
  if (PROGRAM.test(name) && (isNamedLikeOne || CALLBACK.test(name)))
    return problem(
      name,
      "would be run by Flyway as a program, and lockkeeper runs none",
      "write it as SQL, or move it away",
    );
  if (isNamedLikeOne)
    return problem(
      name,
      "looks like a migration, but Flyway would overlook it",
      "let its name end in .sql, or move it away",
    );
  return { kind: "ignored", name, reason: "not named like a migration" };
}

function problem(name: string, what: string, hint: string): FlywayName {
  return { kind: "problem", problem: unknownFile(name, what, hint) };
}
