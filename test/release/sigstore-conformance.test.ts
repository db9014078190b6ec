import { createHash, createPublicKey } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";
import type { KeyFinderFunc } from "@sigstore/verify";
import * as v from "valibot";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { readEnvelopes } from "../../src/release/envelope.ts";
import type { Identity } from "../../src/release/trust/identity.ts";
import { demandsOf, readTrustedRoot } from "../../src/release/trust/keyless-root.ts";
import { loadKeyless } from "../../src/release/trust/keyless.ts";

const folder = join(import.meta.dirname, "../vectors/sigstore-conformance");

/** One folder of the suite; what it does not hold is the suite's default. */
interface Case {
  readonly name: string;
  /** exact text of its bundle */
  readonly bundle: string;
  readonly artifact: Buffer;
  readonly identity: string;
  readonly issuer: string;
  readonly publicKey: string | undefined;
  readonly trustedRoot: unknown;
}

const cases = readdirSync(join(folder, "cases"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => readCase(entry.name))
  .toSorted((one, other) => (one.name < other.name ? -1 : 1));

describe("the bundles of sigstore-conformance", () => {
  test("are all here", () => {
    expect(cases).toHaveLength(70);
    expect(cases.filter(({ name }) => name.endsWith("_fail"))).toHaveLength(49);
  });

  test.for(cases)("$name is answered as the suite wants it", async (one) => {
    const { library, ours, converted } = await judge(one);
    const wanted = one.name.endsWith("_fail") ? "refused" : "accepted";
    expect(library.startsWith(wanted), library).toBe(true);
    // what is no DSSE envelope with a certificate in a bundle v0.3 is no line of a release, however good it is
    expect(ours === "counts", ours).toBe(wanted === "accepted" && isOurs(one));
    if (converted !== undefined) expect(converted === "counts", converted).toBe(wanted === "accepted");
  });

  test("are answered as the table beside them says", async () => {
    const rows = await Promise.all(cases.map(async (one) => rowOf(one.name, await judge(one))));
    const readme = readFileSync(join(folder, "README.md"), "utf8").split("\n");
    expect(readme.filter((line) => line.startsWith("| `"))).toEqual(rows);
  });
});

interface Answer {
  /** Sigstore's library, as we configure it */
  readonly library: string;
  /** a release with this line */
  readonly ours: string;
  /** the same where the leaf of an older bundle's chain is written as v0.3 has it; undefined where that cannot be */
  readonly converted: string | undefined;
}

function rowOf(name: string, { library, ours, converted }: Answer): string {
  return `| \`${name}\` | ${library} | ${ours} | ${converted ?? ""} |`;
}

const answers = new Map<Case, Promise<Answer>>();

function judge(one: Case): Promise<Answer> {
  const answer = answers.get(one) ?? judgeOnce(one);
  answers.set(one, answer);
  return answer;
}

async function judgeOnce(one: Case): Promise<Answer> {
  const converted = convert(one.bundle);
  return {
    library: askLibrary(one),
    ours: await askUs(one, one.bundle),
    converted: converted === undefined ? undefined : await askUs(one, converted),
  };
}

function askLibrary(one: Case): string {
  try {
    const root = readTrustedRoot(one.trustedRoot, "the trusted root");
    const keys = keysOf(one.publicKey);
    const bundle = bundleFromJSON(JSON.parse(one.bundle));
    const verifier = new Verifier(toTrustMaterial(root, keys), demandsOf(root));
    const { identity } = verifier.verify(toSignedEntity(bundle, one.artifact));
    if (one.publicKey !== undefined) return "accepted";
    if (identity?.subjectAlternativeName !== one.identity) return "refused: another name";
    if (identity.extensions?.issuer !== one.issuer) return "refused: another issuer";
    return isAbout(one) ? "accepted" : "refused: another subject";
  } catch (error) {
    if (error instanceof RunnerError) return `refused: ${error.code}`;
    const code = error instanceof Error && "code" in error ? String(error.code) : "malformed";
    return `refused: ${code}`;
  }
}

async function askUs(one: Case, bundle: string): Promise<string> {
  try {
    const identity: Identity = {
      id: "oidc:conformance",
      trustDomain: "here",
      issuer: one.issuer,
      san: one.identity,
      oids: new Map(),
    };
    // a line has no line ends in it; between the tokens of JSON a space says the same
    const [envelope] = readEnvelopes(Buffer.from(bundle.trimEnd().replaceAll(/\r?\n/g, " ")));
    if (envelope === undefined) return "no line";
    const keyless = await loadKeyless(new Map([["here", one.trustedRoot]]));
    return keyless.signerOf(envelope, [identity]) === identity
      ? "counts"
      : `counts nothing: ${keyless.whyNot(envelope, [identity])}`;
  } catch (error) {
    if (error instanceof RunnerError) return error.code;
    throw error;
  }
}

function isOurs({ bundle }: Case): boolean {
  return v.is(
    v.looseObject({
      mediaType: v.literal("application/vnd.dev.sigstore.bundle.v0.3+json"),
      dsseEnvelope: v.unknown(),
      verificationMaterial: v.looseObject({ certificate: v.unknown() }),
    }),
    parsed(bundle),
  );
}

const olderBundle = v.looseObject({
  mediaType: v.literal("application/vnd.dev.sigstore.bundle+json;version=0.2"),
  dsseEnvelope: v.unknown(),
  verificationMaterial: v.looseObject({
    x509CertificateChain: v.object({ certificates: v.tuple([v.unknown()]) }),
  }),
});

function convert(bundle: string): string | undefined {
  const older = v.safeParse(olderBundle, parsed(bundle));
  if (!older.success) return undefined;
  const { x509CertificateChain, ...rest } = older.output.verificationMaterial;
  return JSON.stringify({
    ...older.output,
    mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
    verificationMaterial: { ...rest, certificate: x509CertificateChain.certificates[0] },
  });
}

/** Whether a statement is about the artifact, which the library leaves to whoever calls it. */
function isAbout({ bundle, artifact }: Case): boolean {
  const { dsseEnvelope } = v.parse(
    v.looseObject({ dsseEnvelope: v.optional(v.looseObject({ payload: v.string() })) }),
    parsed(bundle),
  );
  if (dsseEnvelope === undefined) return true;
  const { subject } = v.parse(
    v.looseObject({ subject: v.array(v.looseObject({ digest: v.looseObject({ sha256: v.string() }) })) }),
    parsed(Buffer.from(dsseEnvelope.payload, "base64").toString()),
  );
  const digest = createHash("sha256").update(artifact).digest("hex");
  return subject.some((file) => file.digest.sha256 === digest);
}

/** As the suite has it: the key that is given is the one that a bundle's hint means. */
function keysOf(publicKey: string | undefined): KeyFinderFunc | undefined {
  if (publicKey === undefined) return undefined;
  return () => ({ publicKey: createPublicKey(publicKey), validFor: () => true });
}

function readCase(name: string): Case {
  const read = (file: string, otherwise: string) =>
    existsSync(join(folder, "cases", name, file))
      ? readFileSync(join(folder, "cases", name, file))
      : Buffer.from(otherwise);
  const repository = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon";
  const publicGood = readFileSync(join(folder, "public-good.json"), "utf8");
  const publicKey = read("key.pub", "").toString();
  return {
    name,
    bundle: read("bundle.sigstore.json", "").toString(),
    artifact: read("artifact", readFileSync(join(folder, "cases/a.txt"), "utf8")),
    identity: read(
      "identity",
      `${repository}/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main`,
    )
      .toString()
      .trim(),
    issuer: read("issuer", "https://token.actions.githubusercontent.com").toString().trim(),
    publicKey: publicKey === "" ? undefined : publicKey,
    trustedRoot: parsed(read("trusted_root.json", publicGood).toString()),
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
