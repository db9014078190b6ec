import { choiceFlag, required, textFlag } from "../flag.ts";
import type { Verb } from "../verb.ts";

const out = required(
  textFlag("out", {
    placeholder: "<file>",
    text: "where the private key goes; the public one goes to <file>.pub",
  }),
);
const type = choiceFlag("type", {
  text: "p256 can be used by every tool and key store",
  choices: ["p256", "ed25519"],
  fallback: "p256",
});
const passphraseFile = textFlag("passphrase-file", {
  placeholder: "<file>",
  text: "file with a passphrase to encrypt the private key with",
  explained: "not encrypted",
});

const publicOf = textFlag("public-of", {
  placeholder: "<key>",
  text: "a key that there is already, as --key of publish names it: only its public half is written",
});

/** `lockkeeper keygen` */
export const keygen: Verb = {
  name: "keygen",
  about:
    "Makes a key pair to sign releases with: FILE, private, for its owner only, and FILE.pub. Never overwrites a file. " +
    "Of a key that AWS or Google keeps it writes FILE.pub alone.",
  parameters: [],
  flags: [out, type, passphraseFile, publicOf],
  examples: [
    { line: "lockkeeper keygen --out orders", means: "orders and orders.pub" },
    { line: "lockkeeper keygen --out alice --passphrase-file pass.txt", means: "the private key encrypted" },
    {
      line: "lockkeeper keygen --out orders --public-of awskms:///alias/orders",
      means: "orders.pub of a key in AWS KMS",
    },
  ],
  exits: [0, 2, 31],
  async run({ output, get, signal }) {
    const [{ writeKeyFiles }, { readSecretFile }] = await Promise.all([
      import("../../release/trust/key-file.ts"),
      import("../secret-file.ts"),
    ]);
    const file = get(passphraseFile);
    const passphrase = file === undefined ? undefined : await readSecretFile(file, "--passphrase-file");
    const existing = get(publicOf);
    if (existing !== undefined) {
      const [{ openSigner }, { writePublicKeyFile }] = await Promise.all([
        import("../../release/trust/key-store/open-signer.ts"),
        import("../../release/trust/key-file.ts"),
      ]);
      const { public: key } = await openSigner(existing, { passphrase }, signal);
      const publicFile = await writePublicKeyFile(get(out), key);
      output.result(
        { id: key.id, type: key.kind === "ed25519" ? "ed25519" : "p256", publicFile },
        () => `${publicFile}  the public key: give it to --trust\nid ${key.id}`,
      );
      return 0;
    }
    const made = await writeKeyFiles(get(out), get(type) === "p256" ? "ecdsa-p256" : "ed25519", passphrase);
    const isEncrypted = passphrase !== undefined;
    output.result(
      {
        id: made.id,
        type: get(type),
        privateFile: made.privatePath,
        publicFile: made.publicPath,
        isEncrypted,
      },
      () =>
        [
          `${made.privatePath}  the private key${isEncrypted ? ", encrypted" : ""}: keep it secret, sign with it`,
          `${made.publicPath}  the public key: give it to --trust`,
          `id ${made.id}`,
        ].join("\n"),
    );
    return 0;
  },
};
