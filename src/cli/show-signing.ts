import type { SignResult } from "../release/review/sign.ts";
import type { WaitingRelease } from "../release/review/waiting.ts";
import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** What signing came to, as programs read it. */
export function describeSigned(result: SignResult): Record<string, unknown> {
  return { outcome: result.published ? "published" : "waiting", ...result };
}

/** What signing came to, as a person reads it. */
export function formatSigned(result: SignResult, paint: Paint): string {
  return formatPairs([
    ["release", result.digest],
    ["outcome", result.published ? paint.good("published") : paint.warn("signed, and not the newest yet")],
    ["version", `${result.version} (epoch ${result.epoch}) of ${result.stream}`],
    ["signed by", result.signers.length === 0 ? "nobody who counts" : result.signers.join("\n")],
    ...result.environments.map(
      ({ environment, counted, threshold }) =>
        [
          `for ${environment}`,
          counted >= threshold
            ? paint.good(`${counted} of ${threshold}`)
            : paint.warn(`${counted} of ${threshold}: ${threshold - counted} more must sign`),
        ] as const,
    ),
  ]);
}

/** What whoever signs should hear besides the result. */
export function notesOn({ threshold, uncounted }: SignResult): readonly string[] {
  return [
    ...(threshold === null
      ? [
          "the head stays where it is: say with --trust what runners trust, and the release is published once enough have signed",
        ]
      : []),
    ...(uncounted > 0
      ? [
          `${uncounted === 1 ? "one signature is of a signer" : `${uncounted} signatures are of signers`} that the trust does not name: it counts nothing until that changes`,
        ]
      : []),
  ];
}

/** A release that waits, as programs read it. */
export function describeWaiting({ digest, statement, signatures }: WaitingRelease): Record<string, unknown> {
  return {
    digest,
    stream: statement.stream,
    epoch: statement.epoch,
    version: statement.version,
    previous: statement.previous,
    environments: statement.environments,
    issued: statement.issued.toISOString(),
    expires: statement.expires.toISOString(),
    signatures,
  };
}

/** Releases that wait, as a person reads them. */
export function formatWaiting(releases: readonly WaitingRelease[], paint: Paint): string {
  const rows = releases.map(({ digest, statement, signatures }) => [
    `${statement.version} (epoch ${statement.epoch})`,
    statement.environments.join(", "),
    statement.issued.toISOString().slice(0, 16).replace("T", " "),
    String(signatures),
    digest,
  ]);
  return formatTable(["version", "for", "issued", "signatures", "release"], rows, paint);
}
