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

/** `lockkeeper keygen` */
export const keygen: Verb = {
  name: "keygen",
  about:
    "Makes a key pair to sign releases with: FILE, private, for its owner only, and FILE.pub. Never overwrites a file.",
  parameters: [],
  flags: [out, type, passphraseFile],
  examples: [
    { line: "lockkeeper keygen --out orders", means: "orders and orders.pub" },
    { line: "lockkeeper keygen --out alice --passphrase-file pass.txt", means: "the private key encrypted" },
  ],
  exits: [0, 2],
  async run({ output, get }) {
    const [{ writeKeyFiles }, { readSecretFile }] = await Promise.all([
      import("../../release/key-file.ts"),
      import("../secret-file.ts"),
    ]);
    const file = get(passphraseFile);
    const passphrase = file === undefined ? undefined : await readSecretFile(file, "--passphrase-file");
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
