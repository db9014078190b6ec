import { spawnSync } from "node:child_process";
import { createHash, generateKeyPairSync } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";

import * as v from "valibot";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { readEnvelopes } from "../../src/release/envelope.ts";
import { loadKeyless } from "../../src/release/trust/keyless.ts";
import { signersOf } from "../../src/release/trust/signers.ts";
import { writeStatement } from "../../src/release/statement.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { verifyStatement } from "../../src/release/verify.ts";
import { needs } from "../support/parts.ts";
import { altered, memberOf } from "../support/bundle-line.ts";
import { makeKey, signedLine, tempFolder } from "../support/release.ts";
import type { TestKey } from "../support/release.ts";
import { authorityOf, createSigstore, githubIssuer } from "../support/sigstore.ts";
import type { TestCertificate } from "../support/sigstore.ts";

const payload = writeStatement({
  stream: "orders",
  epoch: 1,
  version: 1,
  previous: null,
  manifestSha256: "0".repeat(64),
  manifestSize: 100,
  chain: { length: 1, head: "1".repeat(64) },
  environments: ["default"],
  issued: new Date("2026-11-20T10:00:00Z"),
  expires: new Date("2027-02-18T10:00:00Z"),
});

/** What Fulcio writes for a workflow of acme/orders. */
const release: TestCertificate = {
  san: "https://github.com/acme/orders/.github/workflows/release.yml@refs/heads/main",
  issuer: githubIssuer,
  oids: { 5: "acme/orders", 11: "github-hosted", 15: "456789", 17: "123456" },
};

/** The identity that is trusted throughout. */
const identity = {
  type: "sigstore",
  trustDomain: "here",
  issuer: release.issuer,
  san: release.san,
  oids: {
    "1.3.6.1.4.1.57264.1.15": "456789",
    "1.3.6.1.4.1.57264.1.17": "123456",
    "1.3.6.1.4.1.57264.1.5": "acme/orders",
  },
} as const;

const [publicOne, privateOne, other] = await Promise.all([
  createSigstore(),
  createSigstore({ kind: "private" }),
  createSigstore(),
]);
const line = await publicOne.sign(payload, release);

/** A trust in one or more identities, and in keys. */
async function trust(
  identities: Readonly<Record<string, object>> = { "oidc:release": identity },
  {
    keys = [],
    roots = { here: publicOne.trustedRoot },
    threshold = 1,
  }: {
    readonly keys?: readonly TestKey[];
    readonly roots?: Readonly<Record<string, unknown>>;
    readonly threshold?: number;
  } = {},
): Promise<Trust> {
  return makeTrust(
    { keys: keys.map(({ id }) => id), identities, threshold },
    keys.map((key) => key.public),
    "the trust",
    { keyless: await loadKeyless(new Map(Object.entries(roots))) },
  );
}

/** Ids of those that counted, or the code of the refusal, with what its hint says of a certificate. */
function judge(lines: readonly string[], by: Trust): readonly string[] | string {
  try {
    return verifyStatement(Buffer.from(lines.join("\n")), {
      stream: "orders",
      environment: "default",
      engine: "postgres",
      trust: by,
      highWaterMark: undefined,
      expected: undefined,
      now: new Date("2026-11-20T12:00:00Z"),
    }).signers;
  } catch (error) {
    if (!(error instanceof RunnerError)) throw error;
    const why = error.hint?.split("a line signed by a certificate counts nothing: ")[1];
    return why === undefined ? error.code : `${error.code}: ${why}`;
  }
}

const paths = {
  payload: "dsseEnvelope.payload",
  signature: "dsseEnvelope.signatures.0.sig",
  certificate: "verificationMaterial.certificate.rawBytes",
  entries: "verificationMaterial.tlogEntries",
  entry: "verificationMaterial.tlogEntries.0",
  times: "verificationMaterial.timestampVerificationData.rfc3161Timestamps",
} as const;

describe("a line signed by a certificate", () => {
  test("counts for the identity that it names, from an instance with logs and from one without", async () => {
    expect(judge([line], await trust())).toEqual(["oidc:release"]);
    const privately = await privateOne.sign(payload, release);
    expect(judge([privately], await trust(undefined, { roots: { here: privateOne.trustedRoot } }))).toEqual([
      "oidc:release",
    ]);
  });

  test("counts towards a threshold together with a key, and neither alone", async () => {
    const key = makeKey();
    const both = await trust(undefined, { keys: [key], threshold: 2 });
    expect(judge([line, signedLine(payload, key)], both)).toEqual(["oidc:release", key.id]);
    expect(judge([signedLine(payload, key), line], both)).toEqual([key.id, "oidc:release"]);
    expect(judge([line], both)).toBe("THRESHOLD");
    expect(judge([signedLine(payload, key)], both)).toBe("THRESHOLD");
  });

  test("counts once, whatever number of certificates its identity was given", async () => {
    const again = await publicOne.sign(payload, release);
    expect(again).not.toBe(line);
    const two = await trust(
      { "oidc:release": identity, "oidc:review": { ...identity, san: `${release.san}-review` } },
      { threshold: 2 },
    );
    expect(judge([line, again], two)).toBe("THRESHOLD");
    const review = await publicOne.sign(payload, { ...release, san: `${release.san}-review` });
    expect(judge([line, again, review], two)).toEqual(["oidc:release", "oidc:review"]);
  });

  test("is passed over where nobody trusts an identity, or a stranger signed it", async () => {
    const key = makeKey();
    const keyOnly = makeTrust({ keys: [key.id] }, [key.public], "the trust");
    expect(judge([line, signedLine(payload, key)], keyOnly)).toEqual([key.id]);
    expect(judge([line], keyOnly)).toBe("THRESHOLD: no identity is trusted");
    const stranger = await publicOne.sign(payload, { san: "eve@example.com", issuer: "https://mail.test" });
    expect(judge([stranger, line], await trust())).toEqual(["oidc:release"]);
  });

  test("counts for a workflow of an instance that the trust calls by another name", async () => {
    const elsewhere = { ...identity, trustDomain: "there" };
    const roots = { here: other.trustedRoot, there: publicOne.trustedRoot };
    const wrong = { ...identity, san: `${identity.san}-v2` };
    expect(judge([line], await trust({ "oidc:a": wrong, "oidc:b": elsewhere }, { roots }))).toEqual([
      "oidc:b",
    ]);
    expect(judge([line], await trust({ "oidc:a": elsewhere }, { roots: {} }))).toMatch(
      /^THRESHOLD: its trusted root/,
    );
  });
});

describe("an identity", () => {
  test.for([
    ["a suffix to the name", { san: `${release.san}-evil` }],
    [
      "a prefix to the name",
      { san: release.san.replace("https://github.com", "https://evil.test/https://github.com") },
    ],
    ["a name that its pattern would match", { san: release.san.replace("github.com", "githubXcom") }],
    ["another letter case", { san: release.san.replace("acme", "Acme") }],
    ["another issuer", { issuer: "https://gitlab.com" }],
    ["a suffix to the issuer", { issuer: `${githubIssuer}/acme` }],
    ["no issuer", { issuer: "" }],
    ["another repository id", { oids: { ...release.oids, 15: "456780" } }],
    ["a repository id that begins alike", { oids: { ...release.oids, 15: "4567891" } }],
    ["another value of a bare extension", { oids: { ...release.oids, 5: "acme/order" } }],
    ["no such extension", { oids: {} }],
  ] as const)("attack 31: a certificate with %s is THRESHOLD", async ([, wrong]) => {
    const signed = await publicOne.sign(payload, { ...release, ...wrong });
    expect(judge([signed], await trust())).toMatch(
      /^THRESHOLD: its certificate is not oidc:release's, it has the /,
    );
  });

  test.for([
    ".*",
    "https://github.com/acme/orders/.*",
    "^https://github.com/",
    "release.yml|.*",
    release.san.replace("github.com", "github.co."),
  ])("attack 31: the name %j of an identity is no pattern", async (san) => {
    const pattern = san.includes(":") ? san : `${san}:`;
    expect(judge([line], await trust({ "oidc:release": { ...identity, san: pattern } }))).toMatch(
      /^THRESHOLD: /,
    );
  });

  test("attack 31: an identity that asks for two issuers has none", async () => {
    const two = { ...identity, oids: { "1.3.6.1.4.1.57264.1.8": "https://gitlab.com" } };
    expect(judge([line], await trust({ "oidc:release": two }))).toMatch(
      /^THRESHOLD: .*(?:issuer|57264\.1\.8)/,
    );
    const gitlab = await publicOne.sign(payload, { ...release, issuer: "https://gitlab.com" });
    expect(judge([gitlab], await trust({ "oidc:release": two }))).toMatch(
      /^THRESHOLD: .*(?:issuer|57264\.1\.8)/,
    );
  });

  test("that was set up wrongly is answered with what the certificate has", async () => {
    const answer = judge([line], await trust({ "oidc:release": { ...identity, san: "ci@acme.test" } }));
    expect(answer).toBe(
      `THRESHOLD: its certificate is not oidc:release's, it has the name "${release.san}" (trust domain "here")`,
    );
  });
});

describe("what a certificate line must prove", () => {
  test("attack 31: a certificate of another instance is THRESHOLD", async () => {
    expect(judge([await other.sign(payload, release)], await trust())).toMatch(/^THRESHOLD: /);
    expect(judge([await privateOne.sign(payload, release)], await trust())).toMatch(/^THRESHOLD: /);
    const roots = { here: privateOne.trustedRoot };
    expect(judge([line], await trust(undefined, { roots }))).toMatch(/^THRESHOLD: /);
  });

  test.for([
    ["before", -60_000],
    ["after", 11 * 60_000],
  ] as const)(
    "attack 31: a signature from %s the certificate's validity is THRESHOLD",
    async ([, offsetMs]) => {
      for (const instance of [publicOne, privateOne]) {
        const signedAt = new Date(instance.now.getTime() + offsetMs);
        const signed = await instance.sign(payload, release, { signedAt });
        expect(judge([signed], await trust(undefined, { roots: { here: instance.trustedRoot } }))).toMatch(
          /^THRESHOLD: its certificate is not of this trust domain, or was not valid when it signed/,
        );
      }
    },
  );

  test("attack 31: a bundle with a messageSignature is BUNDLE", async () => {
    const digest = { algorithm: "SHA2_256", digest: createHash("sha256").update(payload).digest("base64") };
    const bundle = JSON.parse(line) as Record<string, unknown>;
    const messageSignature = { messageDigest: digest, signature: "MEUCIQ==" };
    const { dsseEnvelope, ...bare } = bundle;
    expect(judge([JSON.stringify({ ...bare, messageSignature })], await trust())).toBe("BUNDLE");
    expect(judge([JSON.stringify({ ...bare, dsseEnvelope, messageSignature })], await trust())).toBe(
      "BUNDLE",
    );
  });

  test("attack 31: a tampered payload is THRESHOLD, and beside the right one PAYLOAD_DIFFERS", async () => {
    const second = Buffer.from(payload.toString().replace('"version":1', '"version":2'));
    const tampered = altered(line, paths.payload, second.toString("base64"));
    expect(judge([tampered], await trust())).toMatch(/^THRESHOLD: its log entry is of another signature/);
    expect(judge([tampered, line], await trust())).toBe("PAYLOAD_DIFFERS");
  });

  test("attack 31: a line without identity is THRESHOLD: a key is no certificate, nor a certificate a key", async () => {
    const key = makeKey();
    expect(judge([signedLine(payload, key)], await trust())).toBe("THRESHOLD");
    // the certificate's own key, trusted as a key: its line is still judged as a certificate's
    const both = altered(line, "verificationMaterial.publicKey", { hint: key.public.hint });
    expect(judge([both], await trust())).toBe("BUNDLE");
  });

  test("a line without its log entry, its time or its receipt is THRESHOLD", async () => {
    const bare = altered(line, paths.entries, undefined);
    expect(judge([bare], await trust())).toMatch(/^THRESHOLD: no time of its signature is signed/);
    // a time, but by nobody of this trust domain; and one that is only claimed
    const stamped = await privateOne.sign(payload, release);
    const claimed = altered(line, `${paths.entry}.inclusionPromise`, undefined);
    for (const one of [stamped, claimed]) {
      expect(judge([one], await trust())).toMatch(/^THRESHOLD: no time of its signature is signed/);
    }
    const unlogged = {
      ...publicOne.trustedRoot,
      tlogs: [],
      timestampAuthorities: privateOne.trustedRoot.timestampAuthorities,
    };
    expect(judge([line], await trust(undefined, { roots: { here: unlogged } }))).toMatch(/^THRESHOLD: /);
    const otherLog = { ...publicOne.trustedRoot, ctlogs: other.trustedRoot.ctlogs };
    expect(judge([line], await trust(undefined, { roots: { here: otherLog } }))).toMatch(/^THRESHOLD: /);
  });

  test("a log entry of another signature, or one that its log never signed, is THRESHOLD", async () => {
    const elsewhere = await publicOne.sign(Buffer.from("{}"), release);
    const borrowed = altered(line, paths.entries, memberOf(elsewhere, paths.entries));
    expect(judge([borrowed], await trust())).toMatch(/^THRESHOLD: its log entry is of another signature/);
    const time = Number(memberOf(line, `${paths.entry}.integratedTime`));
    const later = altered(line, `${paths.entry}.integratedTime`, String(time + 1));
    expect(judge([later], await trust())).toMatch(/^THRESHOLD: its log entry is not signed by a log/);
  });

  test("a signature by another key than the certificate's is THRESHOLD", async () => {
    const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const signed = await publicOne.sign(payload, release, { keys: { publicKey, privateKey } });
    expect(judge([signed], await trust())).toMatch(/^THRESHOLD: its signature is wrong/);
  });

  test("its payload, its signature and what its certificate says are covered: no flipped bit passes", async () => {
    const by = await trust();
    const counts = (text: string): boolean => signersOf(readEnvelopes(Buffer.from(text)), by).length > 0;
    expect(counts(line)).toBe(true);
    const taken: string[] = [];
    for (const part of [paths.payload, paths.signature, paths.certificate]) {
      const bytes = Buffer.from(String(memberOf(line, part)), "base64");
      // a certificate is a head of four bytes, then what the authority signed, then how and the signature, whose forms are free
      const signed = part === paths.certificate ? bytes.subarray(4, 4 + 4 + bytes.readUInt16BE(6)) : bytes;
      // a bit of every eleventh byte: what is between them is hashed with them
      for (let at = 0; at < signed.length; at += 11) {
        signed[at] = (signed[at] ?? 0) ^ (1 << (at % 8));
        if (counts(altered(line, part, bytes.toString("base64")))) taken.push(`${part} ${at}`);
        signed[at] = (signed[at] ?? 0) ^ (1 << (at % 8));
      }
    }
    expect(taken).toEqual([]);
  });
});

describe("a certificate by an authority that is trusted, but made otherwise than Fulcio's", () => {
  needs("openssl");

  const fulcio = "1.3.6.1.4.1.57264.1";
  const name = `subjectAltName=URI:${release.san}`;
  const lines = {
    name,
    use: "extendedKeyUsage=codeSigning",
    issuer: `${fulcio}.8=ASN1:UTF8String:${release.issuer}`,
    id: `${fulcio}.15=ASN1:UTF8String:456789`,
    owner: `${fulcio}.17=ASN1:UTF8String:123456`,
    bare: `${fulcio}.5=DER:${Buffer.from("acme/orders").toString("hex")}`,
  };

  const openssl = (folder: string, text: string): void => {
    const { status, stderr } = spawnSync("openssl", text.split(" "), { cwd: folder, encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  };

  /** What becomes of a line whose certificate openssl made: these extensions, for a key on this curve. */
  async function judgeMade(extensions: Readonly<Record<string, string>>, curve = "P-256") {
    const keys = generateKeyPairSync("ec", { namedCurve: curve });
    await using folder = await tempFolder({
      "leaf.key": keys.privateKey.export({ type: "pkcs8", format: "pem" }),
      "ca.key": authorityKeys.privateKey.export({ type: "pkcs8", format: "pem" }),
      extensions: Object.values(extensions).join("\n"),
    });
    openssl(
      folder.path,
      "req -x509 -new -key ca.key -sha256 -days 2 -subj /CN=test -out ca.der -outform DER",
    );
    openssl(folder.path, "req -new -key leaf.key -subj /CN=leaf -out leaf.csr");
    openssl(
      folder.path,
      "x509 -req -in leaf.csr -CA ca.der -CAkey ca.key -set_serial 1 -sha256 -days 1 -extfile extensions -out leaf.der -outform DER",
    );
    const certificate = await readFile(join(folder.path, "leaf.der"));
    const made = await publicOne.sign(payload, release, { keys, certificate });
    const authorities = [authorityOf([await readFile(join(folder.path, "ca.der"))])];
    const here = { ...publicOne.trustedRoot, ctlogs: [], certificateAuthorities: authorities };
    return judge([made], await trust(undefined, { roots: { here } }));
  }

  const authorityKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });

  test("counts where it is the same in all that is asked", async () => {
    expect(await judgeMade(lines)).toEqual(["oidc:release"]);
    expect(await judgeMade({ ...lines, more: `${fulcio}.20=ASN1:UTF8String:push` })).toEqual([
      "oidc:release",
    ]);
  });

  test.for([
    ["of a key on P-384", {}, "P-384", "its certificate is for a key that is neither P-256 nor Ed25519"],
    ["with a second name", { name: `${name},email:eve@evil.test` }, "P-256", "it has the name "],
    ["for a server", { use: "extendedKeyUsage=serverAuth" }, "P-256", "it has the key usage "],
    [
      "for code and a server",
      { use: "extendedKeyUsage=codeSigning,serverAuth" },
      "P-256",
      "it has the key usage ",
    ],
    [
      "with an issuer in another type of text",
      { issuer: `${fulcio}.8=ASN1:IA5String:${release.issuer}` },
      "P-256",
      "it has the issuer ",
    ],
  ] as const)("attack 31: one %s is THRESHOLD", async ([, wrong, curve, why]) => {
    const answer = await judgeMade({ ...lines, ...wrong }, curve);
    expect(answer).toMatch(/^THRESHOLD: /);
    expect(answer).toContain(why);
  });
});

describe("a certificate or proof of rubbish", () => {
  const der = (tag: number, content: Buffer): Buffer => {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(content.length);
    return Buffer.concat([Buffer.of(tag, 0x84), size, content]);
  };

  test.for([
    ["nothing", Buffer.alloc(0)],
    ["zeros", Buffer.alloc(8_192)],
    [
      "a length without end",
      Buffer.concat([Buffer.of(0x30, 0x84, 0xff, 0xff, 0xff, 0xff), Buffer.alloc(1_000)]),
    ],
    ["one octet string in another", Buffer.from("30808080".repeat(2_000), "hex")],
    ["an identifier of eight thousand bytes", der(0x30, der(0x06, Buffer.alloc(8_000, 0xff)))],
    ["a number of eight thousand bytes", der(0x30, der(0x02, Buffer.alloc(8_000, 0x7f)))],
  ] as const)("made of %s is THRESHOLD at once", async ([, bytes]) => {
    const by = await trust();
    const signed = altered(line, paths.certificate, bytes.toString("base64"));
    expect(judge([signed], by)).toMatch(/^THRESHOLD: /);
    const privately = await privateOne.sign(payload, release);
    const stamped = altered(privately, paths.times, [{ signedTimestamp: bytes.toString("base64") }]);
    expect(judge([stamped], await trust(undefined, { roots: { here: privateOne.trustedRoot } }))).toMatch(
      /^THRESHOLD: /,
    );
  });

  test.for([null, 1, "x", [], {}, { logId: null }, { inclusionPromise: {}, logId: { keyId: 7 } }])(
    "among its log entries, %j, is THRESHOLD",
    async (entry) => {
      const signed = altered(line, paths.entries, [entry]);
      expect(judge([signed], await trust())).toMatch(/^THRESHOLD: /);
    },
  );

  test("above its ceilings is refused before anything is verified", async () => {
    const long = altered(line, paths.certificate, Buffer.alloc(8_193).toString("base64"));
    expect(judge([long], await trust())).toBe("TOO_LARGE");
    const many = altered(
      line,
      paths.entries,
      Array.from({ length: 9 }, () => ({})),
    );
    expect(judge([many], await trust())).toBe("BUNDLE");
    const spaced = altered(line, paths.certificate, ` ${String(memberOf(line, paths.certificate))}`);
    expect(judge([spaced], await trust())).toBe("B64");
  });
});

describe("a trusted root", () => {
  const { trustedRoot } = publicOne;
  const [log] = trustedRoot.tlogs;

  test.for([
    ["that is no object", []],
    ["without a certificate authority", { ...trustedRoot, certificateAuthorities: [] }],
    ["with a misspelt list", { ...trustedRoot, tlog: trustedRoot.tlogs, tlogs: undefined }],
    ["without log and timestamp authority", { ...trustedRoot, tlogs: [] }],
    ["of an unknown format", { ...trustedRoot, mediaType: "application/json" }],
    ["whose log has no beginning", { ...trustedRoot, tlogs: [withValidity(log, {})] }],
    ["whose log has an empty beginning", { ...trustedRoot, tlogs: [withValidity(log, { start: "" })] }],
    ["whose log has a key of rubbish", { ...trustedRoot, tlogs: [withKey(log, "AAAA")] }],
    [
      "with a certificate of rubbish",
      {
        ...trustedRoot,
        certificateAuthorities: [
          {
            certChain: { certificates: [{ rawBytes: "MAA=" }] },
            validFor: { start: "2020-01-01T00:00:00Z" },
          },
        ],
      },
    ],
  ] as const)("%s is TRUST_INVALID, and says what and where", async ([, root]) => {
    const error = await loadKeyless(new Map([["here", root]])).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "TRUST_INVALID",
      message: expect.stringMatching(/^the trusted root of "here"/),
    });
  });

  test("may leave out what it has none of, and say null for what is not there", async () => {
    const { ctlogs: _none, timestampAuthorities: _neither, ...rest } = trustedRoot;
    const noReceipts = { ...rest, tlogs: [{ ...log, checkpointKeyId: null, operator: "test" }] };
    expect(judge([line], await trust(undefined, { roots: { here: noReceipts } }))).toMatch(/^THRESHOLD: /);
    const { tlogs: _logs, ctlogs: _receipts, ...github } = privateOne.trustedRoot;
    const privately = await privateOne.sign(payload, release);
    expect(judge([privately], await trust(undefined, { roots: { here: github } }))).toEqual(["oidc:release"]);
  });
});

describe("Sigstore's library", () => {
  test("is loaded where an identity is trusted, and nothing of it for keys alone", async () => {
    const key = makeKey();
    await using folder = await tempFolder({
      "key.pub": key.publicPem,
      "root.json": JSON.stringify(publicOne.trustedRoot),
      "keys.json": JSON.stringify({ keys: ["key.pub"] }),
      "identity.json": JSON.stringify({
        keys: ["key.pub"],
        identities: { "oidc:release": identity },
        trustDomains: { here: "root.json" },
      }),
      "by-key": signedLine(payload, key),
      "by-identity": line,
      "by-both": `${line}\n${signedLine(payload, key)}\n`,
    });
    const run = (trustFile: string, release: string) =>
      verifyElsewhere(join(folder.path, trustFile), join(folder.path, release));
    expect(run("key.pub", "by-key")).toEqual({ answer: [key.id], loaded: [] });
    expect(run("keys.json", "by-both")).toEqual({ answer: [key.id], loaded: [] });
    expect(run("keys.json", "by-identity")).toEqual({ answer: "THRESHOLD", loaded: [] });
    const both = run("identity.json", "by-both");
    expect(both.answer).toEqual(["oidc:release", key.id]);
    expect(both.loaded.length).toBeGreaterThan(10);
  });
});

/** Reads a trust and judges a release in a process of its own, which tells what it loaded of Sigstore's packages. */
function verifyElsewhere(trustFile: string, release: string): { answer: unknown; loaded: readonly string[] } {
  const source = join(import.meta.dirname, "../../src/release");
  const script = `
    import { readFileSync } from "node:fs";
    import { registerHooks } from "node:module";
    const loaded = [];
    registerHooks({
      load(url, context, next) {
        if (url.includes("@sigstore")) loaded.push(url);
        return next(url, context);
      },
    });
    const [source, trustFile, release] = process.argv.slice(1);
    const { readTrustFiles } = await import(source + "/trust/trust-file.ts");
    const { verifyStatement } = await import(source + "/verify.ts");
    const trust = await readTrustFiles([trustFile]);
    let answer;
    try {
      answer = verifyStatement(readFileSync(release), {
        stream: "orders", environment: "default", engine: "postgres", trust, now: new Date("2026-11-20T12:00:00Z"),
      }).signers;
    } catch (error) {
      answer = error.code;
    }
    console.log(JSON.stringify({ answer, loaded }));`;
  const options = ["--input-type=module", "--eval", script, source, trustFile, release];
  const { stdout, stderr } = spawnSync(process.execPath, options, { encoding: "utf8" });
  return v.parse(
    v.object({ answer: v.unknown(), loaded: v.array(v.string()) }),
    JSON.parse(stdout || stderr),
  );
}

function withValidity(log: object | undefined, validFor: object): object {
  const { publicKey } = log as { publicKey: object };
  return { ...log, publicKey: { ...publicKey, validFor } };
}

function withKey(log: object | undefined, rawBytes: string): object {
  const { publicKey } = log as { publicKey: object };
  return { ...log, publicKey: { ...publicKey, rawBytes } };
}
