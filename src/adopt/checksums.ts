import { flywayChecksum } from "../migration/format/flyway-checksum.ts";
import type { Body, Migration } from "../migration/migration.ts";
import type { Release } from "../release/release.ts";
import type { Claim, Misfit } from "./claim.ts";
import type { AppliedFinding, Finding } from "./finding.ts";

/** The bodies of which the record has a checksum. */
export function bodiesToCompare(
  { applied }: Finding<Migration>,
  { repeatable }: Claim,
  release: Release,
): readonly Body[] {
  return [
    ...applied
      .filter(({ claimed }) => (claimed?.checksum ?? null) !== null)
      .map(({ migration }) => migration),
    ...release.repeatable.filter(({ path }) => repeatable.has(path)),
  ];
}

/**
 * Compares the checksums of the record with the files of the release.
 *
 * @param bodies - by sha256
 * @param isTrusted - a difference is taken for an assumption, and not for a misfit
 */
export function compareChecksums(
  finding: Finding<Migration>,
  bodies: ReadonlyMap<string, Buffer>,
  isTrusted: boolean,
): Finding<Migration> {
  const misfits: Misfit[] = [];
  const applied = finding.applied.map((one): AppliedFinding<Migration> => {
    const { migration, claimed } = one;
    const bytes = bodies.get(migration.sha256);
    const was = claimed?.checksum?.value;
    if (was === undefined || bytes === undefined) return one;
    const now = checksumOf(migration, bytes);
    if (now === was) return one;
    const difference = `Flyway noted checksum ${was}, the file has ${now}`;
    if (isTrusted) return { ...one, assumed: difference };
    misfits.push({
      reason: `"${migration.path}" is not what was applied: ${difference}`,
      hint: "restore the file; or, if the change does not matter, say --ignore-checksums",
    });
    return one;
  });
  return { ...finding, applied, misfits: [...finding.misfits, ...misfits] };
}

/** The repeatable migrations whose text of now was applied: they need not run again. */
export function sameRepeatables(
  { repeatable }: Claim,
  release: Release,
  bodies: ReadonlyMap<string, Buffer>,
): readonly Body[] {
  return release.repeatable.filter((body) => {
    const bytes = bodies.get(body.sha256);
    return bytes !== undefined && repeatable.get(body.path)?.value === checksumOf(body, bytes);
  });
}

/** Where the folder is Flyway's the release knows it; a body may have its placeholders filled in. */
function checksumOf({ crc32 }: Body, bytes: Buffer): number {
  return crc32 === undefined ? flywayChecksum(bytes) : crc32 | 0;
}
