import { readSigningKey } from "../key-file.ts";
import type { Signer } from "../key.ts";
import type { AwsKmsOptions } from "./aws.ts";
import type { GcpKmsOptions } from "./gcp.ts";
import { parseKeyReference } from "./reference.ts";

/** What the kinds of stores can be told; those of other kinds than the reference's are not looked at. */
export interface KeyStoreOptions {
  /** opens an encrypted key file */
  readonly passphrase?: string | undefined;
  readonly aws?: AwsKmsOptions;
  readonly gcp?: GcpKmsOptions;
}

/**
 * Whoever signs with the key that `--key` names: a file's key, or a key store's, which never leaves it.
 *
 * The cloud's SDK is loaded here, and only the one that is needed. Of a store's key the public half is fetched at once.
 *
 * @throws RunnerError `USAGE` — see {@link parseKeyReference}; `CONFIG` — the store's SDK is not installed, or no region is known
 * @throws RunnerError `KEY_PASSPHRASE`, `KEY_INVALID`; `KEY_ALG` — neither P-256 nor Ed25519; `KEY_STORE` — the store is out of reach or refuses
 */
export async function openSigner(
  reference: string,
  options: KeyStoreOptions,
  signal: AbortSignal,
): Promise<Signer> {
  const parsed = parseKeyReference(reference);
  switch (parsed.kind) {
    case "file":
      return readSigningKey(parsed.path, options.passphrase);
    case "aws": {
      const { openAwsSigner } = await import("./aws.ts");
      return openAwsSigner(parsed, options.aws, signal);
    }
    case "gcp": {
      const { openGcpSigner } = await import("./gcp.ts");
      return openGcpSigner(parsed, options.gcp, signal);
    }
  }
}
