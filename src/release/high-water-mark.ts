import { RunnerError } from "../error.ts";
import type { HighWaterMark } from "./release.ts";

/**
 * Step 8 of trust.md 2.5: a database never goes back to an older release, nor sideways to another of the same version.
 *
 * @throws RunnerError `ROLLBACK`; `EQUIVOCATION` — two releases with one version, or one that does not follow the known one
 */
export function assertNotBelow(
  release: HighWaterMark & { readonly previous: string | null },
  mark: HighWaterMark | undefined,
): void {
  if (mark === undefined) return;
  const fields = {
    epoch: release.epoch,
    version: release.version,
    digest: release.digest,
    known: mark.digest,
  };
  const ahead = release.epoch - mark.epoch || release.version - mark.version;
  if (ahead < 0) {
    throw new RunnerError(
      "ROLLBACK",
      `release ${release.version} is older than release ${mark.version}, which this database knows`,
      {
        hint: "to go back, run down or goto with the newest release",
        fields,
      },
    );
  }
  if (ahead === 0 && release.digest !== mark.digest) {
    throw new RunnerError(
      "EQUIVOCATION",
      `there are two releases with version ${release.version}, and this database knows the other`,
      {
        hint: "find out who signed both; then publish a newer release",
        fields,
      },
    );
  }
  const isNext = release.epoch === mark.epoch && release.version === mark.version + 1;
  if (isNext && release.previous !== mark.digest) {
    throw new RunnerError(
      "EQUIVOCATION",
      `release ${release.version} follows another release ${mark.version} than this database knows`,
      {
        hint: "find out who signed both; then publish a newer release",
        fields,
      },
    );
  }
}
