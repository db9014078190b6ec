import { RunnerError } from "../error.ts";
import { compareVersions } from "../migration/version.ts";

/** Digits of a sequence number: what golang-migrate's `-seq` writes. */
const sequenceDigits = 6;

/** Extensions of files that hold migrations; anything else in the folder (a README, a sum file) is not looked at. */
const migrationFile = /\.(?:sql|json)$/;

/**
 * The version after the highest one among a folder's file names: `000001` in an empty folder.
 *
 * @throws RunnerError `NAME` for a .sql or .json file without a version; `USAGE` where six digits are not enough
 */
export function nextSequence(names: readonly string[]): string {
  const highest = highestVersion(names);
  const next = (BigInt(highest ?? "0") + 1n).toString();
  if (next.length <= sequenceDigits) return next.padStart(sequenceDigits, "0");
  throw new RunnerError(
    "USAGE",
    `the version after ${highest ?? "0"} has more than ${sequenceDigits} digits`,
    {
      hint: "versions of this folder look like timestamps: add --timestamp",
    },
  );
}

/**
 * The UTC time as `20060102150405`; the second after the folder's newest timestamp where the clock is not past it yet,
 * so that two migrations made within a second keep their order.
 *
 * @throws RunnerError `NAME` for a .sql or .json file without a version; `USAGE` where the highest version is above any timestamp
 */
export function nextTimestamp(names: readonly string[], now: Date): string {
  const highest = highestVersion(names);
  const stamp = formatTimestamp(now);
  if (highest === undefined || compareVersions(stamp, highest) > 0) return stamp;
  const after = timeOf(highest);
  if (after === undefined) {
    throw new RunnerError("USAGE", `the highest version ${highest} is no timestamp and is above ${stamp}`, {
      hint: "a migration made now would be out of order; rename that file or pass its successor by hand",
    });
  }
  return formatTimestamp(new Date(after.getTime() + 1_000));
}

function highestVersion(names: readonly string[]): string | undefined {
  let highest: string | undefined;
  for (const name of names.filter((candidate) => migrationFile.test(candidate))) {
    const version = /^(\d{1,100})_/.exec(name)?.[1];
    if (version === undefined) {
      throw new RunnerError("NAME", `"${name}" does not begin with a version and an underscore`, {
        hint: 'migration files are called like "000001_users.up.sql"; move other files out of the folder',
        fields: { migration: name },
      });
    }
    if (highest === undefined || compareVersions(version, highest) > 0) highest = version;
  }
  return highest;
}

function formatTimestamp(time: Date): string {
  return time.toISOString().replace(/\D/g, "").slice(0, 14);
}

function timeOf(version: string): Date | undefined {
  const parts = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(version);
  if (parts === null) return undefined;
  const [year, month, day, hour, minute, second] = parts.slice(1);
  const time = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(time.getTime()) ? undefined : time;
}
