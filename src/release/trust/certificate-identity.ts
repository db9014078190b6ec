import type { Identity } from "./identity.ts";

/** One extension of a certificate. */
export interface CertificateExtension {
  /** dotted */
  readonly oid: string;
  /** exact bytes */
  readonly value: Buffer;
}

/** Where a certificate is not an identity's. */
export interface Difference {
  /** for people */
  readonly what: string;
  /** text that the certificate has there, safe on a terminal; empty where it has none */
  readonly actual: string;
}

/**
 * Where the extensions of a verified certificate are not those that an identity must have; none: it is the identity's.
 *
 * Each is compared as bytes with the one DER encoding of the identity's text, so nothing has to be decoded, cut, or told
 * apart: not a second name beside the right one, not a letter of another alphabet. One that is there twice is not there.
 */
export function differences(
  identity: Identity,
  extensions: readonly CertificateExtension[],
): readonly Difference[] {
  return expectedExtensions(identity).flatMap(({ oid, value, what, depth }) => {
    const [found, ...more] = extensions.filter((one) => one.oid === oid);
    if (found !== undefined && more.length === 0 && found.value.equals(value)) return [];
    return [{ what, actual: found === undefined ? "" : printable(unwrapped(found.value, depth)) }];
  });
}

// RFC 5280 4.2.1.6 and 4.2.1.12
const subjectAltName = "2.5.29.17";
const extendedKeyUsage = "2.5.29.37";
/** Fulcio's own, as its docs/oid-info.md lists them. */
const fulcio = "1.3.6.1.4.1.57264.1";
const issuerOid = `${fulcio}.8`;
/** The first six are bare text; those from the eighth on are a DER UTF8String. */
const bareText: ReadonlySet<string> = new Set([1, 2, 3, 4, 5, 6].map((number) => `${fulcio}.${number}`));

const tag = { oid: 0x06, utf8String: 0x0c, sequence: 0x30, email: 0x81, uri: 0x86 } as const;

const codeSigning = der(tag.sequence, der(tag.oid, Buffer.from("2b06010505070303", "hex")));

/** An extension that an identity must have. */
interface ExpectedExtension extends CertificateExtension {
  readonly what: string;
  /** how many elements its text is wrapped into */
  readonly depth: number;
}

function expectedExtensions({ san, issuer, oids }: Identity): readonly ExpectedExtension[] {
  // Fulcio writes an e-mail address as such and everything else as a URI, and a URI has a colon
  const name = der(san.includes(":") ? tag.uri : tag.email, Buffer.from(san));
  return [
    { oid: subjectAltName, value: der(tag.sequence, name), what: "name", depth: 2 },
    { ...textExtension(issuerOid, issuer), what: "issuer" },
    ...[...oids].map(([oid, text]) => textExtension(oid, text)),
    { oid: extendedKeyUsage, value: codeSigning, what: "key usage", depth: 0 },
  ];
}

function textExtension(oid: string, text: string): ExpectedExtension {
  const bytes = Buffer.from(text);
  return bareText.has(oid)
    ? { oid, value: bytes, what: oid, depth: 0 }
    : { oid, value: der(tag.utf8String, bytes), what: oid, depth: 1 };
}

/** One DER element; its length in the fewest bytes, X.690 10.1. */
function der(identifier: number, content: Buffer): Buffer {
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.of(identifier, ...size), content]);
}

/** What is left of bytes without the heads of so many elements around it; only to be shown. */
function unwrapped(bytes: Buffer, depth: number): Buffer {
  if (depth === 0) return bytes;
  const size = bytes[1] ?? 0;
  return unwrapped(bytes.subarray(size < 0x80 ? 2 : 2 + (size & 0x7f)), depth - 1);
}

function printable(bytes: Buffer): string {
  return bytes
    .toString("latin1")
    .replaceAll(/[^\x20-\x7e]+/g, "?")
    .slice(0, 200);
}
