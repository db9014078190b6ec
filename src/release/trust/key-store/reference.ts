import { RunnerError } from "../../../error.ts";

/** Where a private key is kept, as `--key` names it. */
export type KeyReference = FileReference | AwsReference | GcpReference;

/** A key in a file. */
export interface FileReference {
  readonly kind: "file";
  readonly path: string;
}

/** A key that AWS KMS keeps. */
export interface AwsReference {
  readonly kind: "aws";
  /** id, ARN, `alias/<name>` or an alias's ARN */
  readonly key: string;
  /** of an ARN; else the SDK's own */
  readonly region?: string;
  /** another server than AWS's own, always over TLS */
  readonly endpoint?: string;
}

/** A key that Google's Cloud KMS keeps. */
export interface GcpReference {
  readonly kind: "gcp";
  /** `projects/…/cryptoKeyVersions/<n>` */
  readonly name: string;
}

/**
 * What `--key` says: a file's path, `awskms://[endpoint]/<id, ARN or alias/…>` or `gcpkms://projects/…`, as cosign writes them.
 *
 * @throws RunnerError `USAGE` — a store that is not spoken to, or a key of it that is not named so
 */
export function parseKeyReference(text: string): KeyReference {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  switch (scheme) {
    case undefined:
      return { kind: "file", path: text };
    case "awskms":
      return parseAws(text);
    case "gcpkms":
      return parseGcp(text);
    default:
      throw new RunnerError(
        "USAGE",
        `${JSON.stringify(text)} names a key store that lockkeeper does not speak to`,
        {
          hint: 'write what is to be signed with "lockkeeper sign --statement-out FILE", sign it with cosign attest-blob --statement FILE, and add that with --bundle',
        },
      );
  }
}

const awsKey = new RegExp(
  [
    "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "mrk-[0-9a-f]{32}",
    "alias/[A-Za-z0-9/_-]{1,250}",
    "arn:aws[a-z-]*:kms:(?<region>[a-z0-9-]{1,40}):[0-9]{12}:(?:key/[A-Za-z0-9-]{1,64}|alias/[A-Za-z0-9/_-]{1,250})",
  ].join("|"),
);
const awsReference = new RegExp(
  `^awskms://(?<host>[A-Za-z0-9.-]+(?::[0-9]{1,5})?)?/(?<key>${awsKey.source})$`,
);

function parseAws(text: string): AwsReference {
  const { host, key, region } = awsReference.exec(text)?.groups ?? {};
  if (key === undefined) {
    throw new RunnerError("USAGE", `${JSON.stringify(text)} names no key of AWS KMS`, {
      hint: "write awskms:///<key id>, awskms:///alias/<name> or awskms:///arn:aws:kms:<region>:<account>:key/<key id>",
    });
  }
  return {
    kind: "aws",
    key,
    ...(region === undefined ? {} : { region }),
    ...(host === undefined ? {} : { endpoint: `https://${host}` }),
  };
}

const segment = "[A-Za-z0-9_.:-]{1,100}";
const gcpReference = new RegExp(
  `^gcpkms://(?<key>projects/${segment}/locations/${segment}/keyRings/${segment}/cryptoKeys/${segment})` +
    `(?:/(?:cryptoKeyVersions|versions)/(?<version>[0-9]{1,10}))?$`,
);

function parseGcp(text: string): GcpReference {
  const { key, version } = gcpReference.exec(text)?.groups ?? {};
  // a trust names one key pair, and each version is another one
  if (key === undefined || version === undefined) {
    throw new RunnerError(
      "USAGE",
      `${JSON.stringify(text)} names no ${key === undefined ? "key" : "version of a key"} of Google's Cloud KMS`,
      {
        hint: "write gcpkms://projects/<p>/locations/<l>/keyRings/<r>/cryptoKeys/<k>/cryptoKeyVersions/<n>",
      },
    );
  }
  return { kind: "gcp", name: `${key}/cryptoKeyVersions/${version}` };
}
