import { readFileSync } from "node:fs";
import path from "node:path";

import { RunnerError } from "../../src/error.ts";
import { readEnvelopes } from "../../src/release/envelope.ts";
import { readTrustedRoot } from "../../src/release/trust/keyless-root.ts";
import { loadKeyless } from "../../src/release/trust/keyless.ts";
import type { Subject } from "./subject.ts";

const folder = path.join(import.meta.dirname, "../vectors/sigstore-conformance");
const trustedRoot = readFileSync(path.join(folder, "public-good.json"));
const bundle = readFileSync(
  path.join(folder, "cases/happy-path-intoto-in-dsse-v3/bundle.sigstore.json"),
  "utf8",
);
const line = Buffer.from(JSON.stringify(JSON.parse(bundle)));
const [signed] = readEnvelopes(line);

const keyless = await loadKeyless(new Map([["public", JSON.parse(trustedRoot.toString())]]));
const identity = {
  id: "oidc:conformance",
  trustDomain: "public",
  issuer: "https://token.actions.githubusercontent.com",
  san: "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main",
  oids: new Map<string, string>(),
};

/** What reads lines that are signed by a certificate, and the trusted roots that they are judged by. */
export const keylessSubjects: readonly Subject[] = [
  {
    name: "keyless-line",
    cost: 20,
    corpus: [line],
    words: ["messageSignature", "tlogEntries", "certificate", "rawBytes", "inclusionProof", "integratedTime"],
    read(input) {
      const proven = readEnvelopes(input).filter(
        (envelope) => keyless.signerOf(envelope, [identity]) !== undefined,
      );
      if (proven.length === 0) throw new RunnerError("THRESHOLD", "nobody who is trusted");
      return proven.every(({ payload }) => signed?.payload.equals(payload))
        ? undefined
        : "a statement that nobody signed";
    },
  },
  {
    name: "trusted-root",
    corpus: [trustedRoot],
    words: ["validFor", "start", "tlogs", "ctlogs", "timestampAuthorities", "rawBytes"],
    read(input) {
      let value: unknown;
      try {
        value = JSON.parse(input.toString());
      } catch {
        return undefined; // the file's reader says so, with its name
      }
      const { tlogs, timestampAuthorities } = readTrustedRoot(value, "the trusted root");
      return tlogs.length + timestampAuthorities.length > 0 ? undefined : "nobody who signs the time";
    },
  },
];
