import type { SignedEntity, Signer, Verifier } from "@sigstore/verify";

import { RunnerError } from "../../error.ts";
import { differences } from "./certificate-identity.ts";
import type { CertificateExtension } from "./certificate-identity.ts";
import { mediaType, payloadType, preAuthEncoding } from "../envelope.ts";
import type { Envelope, KeylessProof } from "../envelope.ts";
import type { Identity, KeylessVerifier } from "./identity.ts";
import { isSignedBy, parsePublicKey } from "./key.ts";
import { demandsOf, readTrustedRoot, trustedRootHint } from "./keyless-root.ts";
import type { TrustedRoot } from "./keyless-root.ts";

/**
 * A verifier for the Sigstore instances that a trust pins, with Sigstore's own library, which is loaded here and nowhere else.
 *
 * What an instance has is what its signatures must bring: where its trusted root names transparency logs, an entry in
 * one; where it names certificate logs, the receipt of one; always a signed time within the certificate's validity. So
 * GitHub's instance for private repositories, which keeps no log, needs no name or setting of its own.
 *
 * @param trustedRoots - by the name that identities call their trust domain: the parsed text of its `trusted_root.json`
 * @throws RunnerError `TRUST_INVALID` — a trusted root is malformed, or has a log without a beginning of its validity;
 *   `CONFIG` — this Node is older than the library's oldest
 */
export async function loadKeyless(trustedRoots: ReadonlyMap<string, unknown>): Promise<KeylessVerifier> {
  assertRuntime(process.versions.node);
  const roots = [...trustedRoots].map(
    ([name, root]) => [name, readTrustedRoot(root, `the trusted root of "${name}"`)] as const,
  );
  const library = await loadLibrary();
  const instances = new Map(roots.map(([name, root]) => [name, openInstance(library, name, root)]));
  const judge = (envelope: Envelope, identities: readonly Identity[]): Verdict => {
    const { keyless } = envelope;
    if (keyless === undefined) return { reason: "it is signed by a key" };
    let reason = "no identity is trusted";
    for (const domain of new Set(identities.map(({ trustDomain }) => trustDomain))) {
      const here = identities.filter(({ trustDomain }) => trustDomain === domain);
      const verdict = judgeBy(instances.get(domain), envelope, keyless, here);
      if ("identity" in verdict) return verdict;
      reason = `${verdict.reason} (trust domain "${domain}")`;
    }
    return { reason };
  };
  return {
    signerOf: (envelope, identities) => {
      const verdict = judge(envelope, identities);
      return "identity" in verdict ? verdict.identity : undefined;
    },
    whyNot: (envelope, identities) => {
      const verdict = judge(envelope, identities);
      return "reason" in verdict ? verdict.reason : undefined;
    },
  };
}

type Verdict = { readonly identity: Identity } | { readonly reason: string };

type Library = Awaited<ReturnType<typeof loadLibrary>>;

interface Instance {
  readonly verifier: Verifier;
  read(envelope: Envelope, proof: KeylessProof): SignedEntity;
}

/** Older ones fail what Rekor's present log writes, and package managers install them silently on an older Node. */
function assertRuntime(version: string): void {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major > 24 || (major === 24 && minor >= 15)) return;
  throw new RunnerError("CONFIG", `keyless identities need Node 24.15 or newer, and this is ${version}`);
}

async function loadLibrary() {
  const [verify, bundle] = await Promise.all([import("@sigstore/verify"), import("@sigstore/bundle")]);
  return { ...verify, bundleFromJSON: bundle.bundleFromJSON };
}

function openInstance(library: Library, name: string, root: TrustedRoot): Instance {
  try {
    return {
      verifier: new library.Verifier(library.toTrustMaterial(root), demandsOf(root)),
      read: (envelope, proof) => library.toSignedEntity(library.bundleFromJSON(toBundle(envelope, proof))),
    };
  } catch (error) {
    throw new RunnerError("TRUST_INVALID", `the trusted root of "${name}" holds a key that cannot be read`, {
      hint: trustedRootHint,
      cause: error,
    });
  }
}

/** Written anew from what was read strictly, so that the library, which reads leniently, cannot see another payload. */
function toBundle({ payload, signature }: Envelope, { certificate, tlogEntries, timestamps }: KeylessProof) {
  return {
    mediaType,
    verificationMaterial: {
      certificate: { rawBytes: certificate.toString("base64") },
      tlogEntries,
      timestampVerificationData: { rfc3161Timestamps: timestamps },
    },
    dsseEnvelope: {
      payload: payload.toString("base64"),
      payloadType,
      signatures: [{ sig: signature.toString("base64") }],
    },
  };
}

function judgeBy(
  instance: Instance | undefined,
  envelope: Envelope,
  proof: KeylessProof,
  identities: readonly Identity[],
): Verdict {
  if (instance === undefined) return { reason: "its trusted root is not known" };
  try {
    const extensions = verify(instance, envelope, proof);
    if (typeof extensions === "string") return { reason: extensions };
    const identity = identities.find((one) => differences(one, extensions).length === 0);
    return identity === undefined ? { reason: whoInstead(extensions, identities) } : { identity };
  } catch (error) {
    return { reason: reasonOf(error) };
  }
}

/**
 * Everything that a certificate line must prove, but whose it is; what its certificate says, or why it counts nothing.
 * The library is given no policy: its own takes the name for a pattern, and an absent one for anybody.
 */
function verify(
  { verifier, read }: Instance,
  envelope: Envelope,
  proof: KeylessProof,
): readonly CertificateExtension[] | string {
  const signer = verifier.verify(read(envelope, proof));
  if (!isSignedByCertificate(envelope, signer)) return "its signature is wrong";
  const oids = signer.identity?.oids;
  if (oids === undefined) return "its certificate names nobody";
  return oids.map(({ oid, value }) => ({ oid: (oid?.id ?? []).join("."), value }));
}

/** Once more by our own code, and by its two algorithms: the payload that is parsed later is what the certificate's key signed. */
function isSignedByCertificate({ payload, signature }: Envelope, { key }: Signer): boolean {
  const pem = String(key.export({ type: "spki", format: "pem" }));
  return isSignedBy(
    preAuthEncoding(payloadType, payload),
    signature,
    parsePublicKey(pem, "the certificate's key"),
  );
}

/** For whoever set up the wrong identity: the one that comes closest, and what the certificate says in its place. */
function whoInstead(extensions: readonly CertificateExtension[], identities: readonly Identity[]): string {
  const [closest] = identities
    .map((identity) => ({ id: identity.id, differs: differences(identity, extensions) }))
    .toSorted((one, other) => one.differs.length - other.differs.length);
  const differs = closest?.differs.map(({ what, actual }) => `${what} ${JSON.stringify(actual)}`).join(", ");
  return `its certificate is not ${closest?.id}'s, it has the ${differs}`;
}

/** The library's codes in our words; its messages may quote what the bucket holds. */
const reasons = new Map([
  ["TIMESTAMP_ERROR", "no time of its signature is signed by an authority of this trust domain"],
  ["CERTIFICATE_ERROR", "its certificate is not of this trust domain, or was not valid when it signed"],
  ["TLOG_ERROR", "it brings no entry of a transparency log"],
  ["TLOG_MISSING_INCLUSION_ERROR", "it brings no proof that its log entry is in the log"],
  ["TLOG_INCLUSION_PROOF_ERROR", "its log entry is not proven"],
  ["TLOG_INCLUSION_PROMISE_ERROR", "its log entry is not signed by a log of this trust domain"],
  ["TLOG_BODY_ERROR", "its log entry is of another signature"],
  ["SIGNATURE_ERROR", "its signature is wrong"],
  // ours
  ["KEY_ALG", "its certificate is for a key that is neither P-256 nor Ed25519"],
]);

function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return reasons.get(code) ?? "it is malformed";
}
