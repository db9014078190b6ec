import type { Variables } from "../cli/context.ts";
import { RunnerError } from "../error.ts";
import { detectedFormat, isFormatName, namedFormat } from "../migration/format/choose-format.ts";
import type { ChooseFormat } from "../migration/format/choose-format.ts";
import { formatNames } from "../migration/format/format.ts";
import type { Engine } from "../migration/migration.ts";
import type { TrustAnchor } from "../release/trust/anchor.ts";
import type { ReleaseProvider } from "../release/release.ts";
import { isProduction } from "../run/production.ts";
import { parseLocation } from "../source/location.ts";
import { openSource } from "../source/open.ts";
import { engineOfAccess, readAccess } from "./open-database.ts";
import { defaultEnvironment } from "./settings.ts";
import type { TargetSettings, TrustSettings } from "./settings.ts";
import { storageOf } from "./storage.ts";

/** milliseconds, for the names of a folder's files */
const listingMs = 120_000;

/** Of files that no database is named for: what the configuration says, or what they look like. */
export async function engineToShow(settings: TargetSettings, variables: Variables): Promise<Engine> {
  if (settings.engine !== undefined) return settings.engine;
  if (settings.database !== undefined)
    return engineOfAccess(await readAccess(settings.database, undefined, variables));
  const { engineOfFolder } = await import("../release/folder/folder-engine.ts");
  const source = await openSource(sourceOf(settings), storageOf(settings.storage, variables));
  return engineOfFolder(source, AbortSignal.timeout(listingMs));
}

/**
 * Where a target's releases are, and why to believe them.
 *
 * @throws RunnerError `USAGE`, `UNSIGNED_REFUSED`, and what the trust's files are refused for
 */
export async function openReleases(
  settings: TargetSettings,
  engine: Engine,
  {
    stream,
    directions,
    variables,
  }: { readonly stream: string; readonly directions: "up" | "both"; readonly variables: Variables },
): Promise<ReleaseProvider> {
  const { environment = defaultEnvironment, trust } = settings;
  const url = sourceOf(settings);
  if (trust === undefined) {
    throw new RunnerError("USAGE", "no key is trusted: --trust <file> (or LOCKKEEPER_TRUST) is missing", {
      hint: "name the public key that signs the releases; for plain files without a signature say --unsigned",
    });
  }
  if (trust.kind === "unsigned" && isProduction(environment)) {
    throw new RunnerError("UNSIGNED_REFUSED", `environment "${environment}" takes signed releases only`, {
      hint: 'publish the folder as a signed release with "lockkeeper publish" and name its key with --trust',
    });
  }
  const source = await openSource(url, storageOf(settings.storage, variables));
  if (trust.kind === "unsigned") {
    const { plainReleases } = await import("../release/folder/plain.ts");
    return plainReleases({
      source,
      stream,
      environment,
      engine,
      allowLate: settings.allowsLate,
      directions,
      // Who may write a bucket is not who runs this.
      format: chooseFormat(settings, engine, parseLocation(url).kind === "folder" ? variables : undefined),
    });
  }
  const { signedReleases } = await import("../release/signed.ts");
  return signedReleases({ source, stream, environment, engine, trust: await readTrustOf(trust) });
}

/** Whose signatures count, from files. */
export async function readTrustOf(
  settings: Exclude<TrustSettings, { kind: "unsigned" }>,
): Promise<TrustAnchor> {
  const { readTrust, readTrustFiles } = await import("../release/trust/trust-file.ts");
  if (settings.kind === "section") return readTrust(settings.value, settings.folder, settings.what);
  const [first, ...rest] = settings.paths;
  if (first === undefined) throw new RunnerError("USAGE", "--trust names no file");
  return readTrustFiles([first, ...rest]);
}

/** The named format, or the one that the files look like. */
export function chooseFormat(
  { format, placeholders }: Pick<TargetSettings, "format" | "placeholders">,
  engine: Engine,
  variables: Variables | undefined,
): ChooseFormat {
  const settings = { engine, variables, placeholders };
  if (format === undefined) return detectedFormat(settings);
  if (isFormatName(format)) return namedFormat(format, settings);
  throw new RunnerError("USAGE", `--format: "${format}" is no tool whose files are known`, {
    hint: `known are ${formatNames.join(", ")}`,
  });
}

/** Where its releases are. */
export function sourceOf({ source }: TargetSettings): string {
  if (source !== undefined) return source;
  throw new RunnerError("USAGE", "--source <url> (or LOCKKEEPER_SOURCE) is missing", {
    hint: "name a bucket prefix or a folder, or a target of the configuration with --target",
  });
}
