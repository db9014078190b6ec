import { RunnerError } from "../error.ts";
import type { Signer } from "../release/trust/key.ts";
import { listFlag, textFlag } from "./flag.ts";
import type { Invocation } from "./verb.ts";

/** Of every verb that signs. */
export const key = listFlag("key", {
  placeholder: "<key>",
  text: "private key to sign with: a file, awskms:///<key id, ARN or alias/…> or gcpkms://projects/…/cryptoKeyVersions/<n>; can be repeated, each signs",
});

/** Of every verb that signs. */
export const passphraseFile = textFlag("passphrase-file", {
  placeholder: "<file>",
  text: "file with the passphrase of the private keys",
});

/**
 * Whoever `--key` names, in that order.
 *
 * @throws RunnerError `USAGE` — nobody; the codes of `openSigner`
 */
export async function openSigners(invocation: Invocation): Promise<readonly [Signer, ...Signer[]]> {
  const [first, ...rest] = await openOptionalSigners(invocation);
  if (first !== undefined) return [first, ...rest];
  throw new RunnerError("USAGE", "--key <key> (or LOCKKEEPER_KEY) is missing", {
    hint: 'make a key pair with "lockkeeper keygen --out FILE"',
  });
}

/** As {@link openSigners}, for verbs that can do something without a key, too. */
export async function openOptionalSigners({
  get,
  signal,
}: Pick<Invocation, "get" | "signal">): Promise<readonly Signer[]> {
  const [{ openSigner }, { readSecretFile }] = await Promise.all([
    import("../release/trust/key-store/open-signer.ts"),
    import("./secret-file.ts"),
  ]);
  const file = get(passphraseFile);
  const passphrase = file === undefined ? undefined : await readSecretFile(file, "--passphrase-file");
  return Promise.all(
    get(key).map((reference) =>
      openSigner(reference, { passphrase }, signal).catch((error: unknown) => tellPassphrase(error, file)),
    ),
  );
}

function tellPassphrase(error: unknown, file: string | undefined): never {
  if (!(error instanceof RunnerError) || error.code !== "KEY_PASSPHRASE") throw error;
  const hint =
    file === undefined
      ? "name a file with the passphrase: --passphrase-file"
      : "check what --passphrase-file holds";
  throw new RunnerError(error.code, error.message, { hint, cause: error });
}
