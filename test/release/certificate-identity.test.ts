import { describe, expect, test } from "vitest";

import { differences } from "../../src/release/trust/certificate-identity.ts";
import type { CertificateExtension } from "../../src/release/trust/certificate-identity.ts";
import { identitySchema, makeIdentity } from "../../src/release/trust/identity.ts";
import type { IdentityText } from "../../src/release/trust/identity.ts";
import * as v from "valibot";

const fulcio = "1.3.6.1.4.1.57264.1";
const text: IdentityText = {
  type: "sigstore",
  trustDomain: "public-good",
  issuer: "https://issuer.test",
  san: "https://host/w.yml@refs/heads/main",
  oids: { [`${fulcio}.5`]: "acme/orders", [`${fulcio}.15`]: "456789" },
};
const identity = makeIdentity("oidc:release", text);

/** A DER element with a short length. */
function der(tag: number, ...contents: readonly (string | Buffer)[]): Buffer {
  const content = Buffer.concat(contents.map((one) => Buffer.from(one)));
  return Buffer.concat([Buffer.of(tag, content.length), content]);
}

const right: Readonly<Record<"san" | "issuer" | "repository" | "id" | "usage", Buffer>> = {
  san: der(0x30, der(0x86, text.san)),
  issuer: der(0x0c, text.issuer),
  repository: Buffer.from("acme/orders"),
  id: der(0x0c, "456789"),
  usage: Buffer.from("300a06082b06010505070303", "hex"),
};

/** The extensions of a right certificate, some of them replaced. */
function certificate(replaced: Partial<typeof right> = {}): readonly CertificateExtension[] {
  const all = { ...right, ...replaced };
  return [
    { oid: "2.5.29.17", value: all.san },
    { oid: `${fulcio}.8`, value: all.issuer },
    { oid: `${fulcio}.5`, value: all.repository },
    { oid: `${fulcio}.15`, value: all.id },
    { oid: "2.5.29.37", value: all.usage },
    { oid: `${fulcio}.22`, value: der(0x0c, "private") },
  ];
}

function differing(extensions: readonly CertificateExtension[]): readonly string[] {
  return differences(identity, extensions).map(({ what }) => what);
}

describe("a certificate", () => {
  test("is an identity's where all that is asked is there, whatever else it says", () => {
    expect(differing(certificate())).toEqual([]);
    expect(differing(certificate().toReversed())).toEqual([]);
  });

  test.for([
    ["a second name after the right one", { san: der(0x30, der(0x86, text.san), der(0x86, "x:")) }, "name"],
    ["a second name before the right one", { san: der(0x30, der(0x81, "a@b"), der(0x86, text.san)) }, "name"],
    ["its name as an e-mail address", { san: der(0x30, der(0x81, text.san)) }, "name"],
    ["its name as a DNS name", { san: der(0x30, der(0x82, text.san)) }, "name"],
    ["a zero byte after its name", { san: der(0x30, der(0x86, `${text.san}\0`)) }, "name"],
    ["no name at all", { san: der(0x30) }, "name"],
    [
      "an issuer that is the same in seven bits",
      { issuer: der(0x0c, Buffer.from(Buffer.from(text.issuer).map((byte) => byte | 0x80))) },
      "issuer",
    ],
    ["its issuer as bare text", { issuer: Buffer.from(text.issuer) }, "issuer"],
    ["its issuer as a printable string", { issuer: der(0x13, text.issuer) }, "issuer"],
    ["its issuer and more", { issuer: Buffer.concat([right.issuer, der(0x0c, "x")]) }, "issuer"],
    ["a bare extension as DER", { repository: der(0x0c, "acme/orders") }, `${fulcio}.5`],
    ["a number for text", { id: der(0x02, "456789") }, `${fulcio}.15`],
    [
      "a use other than signing code",
      { usage: der(0x30, der(0x06, Buffer.from("2b06010505070302", "hex"))) },
      "key usage",
    ],
  ] as const)("with %s is not the identity's", ([, replaced, what]) => {
    expect(differing(certificate(replaced))).toEqual([what]);
  });

  test("with an extension twice, right or wrong, does not have it", () => {
    const [san, issuer] = certificate();
    expect(differing([...certificate(), san ?? []].flat())).toEqual(["name"]);
    expect(differing([{ oid: `${fulcio}.8`, value: der(0x0c, "other") }, ...certificate()])).toEqual([
      "issuer",
    ]);
    expect(differing([...certificate(), { ...issuer, oid: "2.5.29.37", value: right.usage }])).toEqual([
      "key usage",
    ]);
    expect(differing([])).toEqual(["name", "issuer", `${fulcio}.5`, `${fulcio}.15`, "key usage"]);
  });

  test("of a person is named by the address, and by no URI that looks like one", () => {
    const person = makeIdentity("oidc:alice", { ...text, san: "alice@acme.test", oids: {} });
    const of = (tag: number) => certificate({ san: der(0x30, der(tag, "alice@acme.test")) });
    expect(differences(person, of(0x81))).toEqual([]);
    expect(differences(person, of(0x86))).toHaveLength(1);
  });

  test("with long names is compared just so", () => {
    for (const length of [100, 127, 128, 200, 255, 256, 2_000]) {
      const san = `https://host/${"a".repeat(length - 13)}`;
      const size = (bytes: number) =>
        bytes < 128 ? [bytes] : bytes < 256 ? [0x81, bytes] : [0x82, bytes >> 8, bytes & 255];
      const name = Buffer.concat([Buffer.of(0x86, ...size(length)), Buffer.from(san)]);
      const value = Buffer.concat([Buffer.of(0x30, ...size(name.length)), name]);
      const long = makeIdentity("oidc:long", { ...text, san });
      expect(differences(long, certificate({ san: value }))).toEqual([]);
      expect(differences(long, certificate({ san: value.subarray(0, -1) }))).toHaveLength(1);
    }
  });

  test("that says something else is shown without what could act on a terminal", () => {
    const evil = certificate({ san: der(0x30, der(0x86, "https://evil\u001B[2J\u202E\n".repeat(3))) });
    const [difference] = differences(identity, evil);
    expect(difference?.actual).toMatch(/^[\x20-\x7e]{10,200}$/);
    expect(differences(identity, certificate({ san: Buffer.alloc(0) }))[0]?.actual).toBe("");
  });
});

describe("an identity's text", () => {
  test.for([
    ["another type", { type: "oidc" }],
    ["an empty name", { san: "" }],
    ["a name that is neither URI nor address", { san: "release.yml" }],
    ["letters of another alphabet", { san: "https://h\u043Est/w.yml" }],
    ["a line end", { issuer: "https://issuer.test\n" }],
    ["white space at an end", { issuer: "https://issuer.test " }],
    ["no issuer", { issuer: undefined }],
    ["an extension that is not Fulcio's", { oids: { "2.5.29.17": "x" } }],
    ["an extension that is no text", { oids: { [`${fulcio}.7`]: "x" } }],
    ["a number for text", { oids: { [`${fulcio}.15`]: 456_789 } }],
    ["an unknown field", { subject: "x" }],
  ] as const)("with %s is refused", ([, wrong]) => {
    expect(v.is(identitySchema, text)).toBe(true);
    expect(v.is(identitySchema, { ...text, ...wrong })).toBe(false);
  });
});
