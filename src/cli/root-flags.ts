import { basename } from "node:path";

import { RunnerError } from "../error.ts";
import type { NamedKey } from "../release/root/root-draft.ts";
import type { RootOnDisk } from "../release/root/root-file.ts";
import type { Root } from "../release/root/root.ts";
import { countFlag, listFlag, parseCount, required, textFlag } from "./flag.ts";
import type { Flag } from "./flag.ts";
import { expires as releaseExpires } from "./issue.ts";

// What the verbs that write and sign a root share.

export const rootKeys = listFlag("root-key", {
  placeholder: "<file>",
  text: "public key whose owner may sign the next root; can be repeated",
});
export const releaseKeys = listFlag("release-key", {
  placeholder: "<file>",
  text: "public key whose owner signs releases; can be repeated",
});
export const timestampKeys = listFlag("timestamp-key", {
  placeholder: "<file>",
  text: "public key that vouches that a release is the newest; can be repeated",
});
export const rootThreshold = countFlag("root-threshold", {
  placeholder: "<n>",
  text: "how many root keys must sign the next root",
  least: 1,
});
export const releaseThreshold = countFlag("release-threshold", {
  placeholder: "<n>",
  text: "how many release keys must sign a release",
  least: 1,
});
export const rootExpires: Flag<number> = {
  ...releaseExpires,
  text: "after how long the next root has to be there",
  fallback: "365d",
  from: (texts, origin) => releaseExpires.from(texts.length === 0 ? ["365d"] : texts, origin),
};
export const pinnedRoot = required(
  textFlag("trust", {
    placeholder: "<file>",
    text: "the root that runners pin, or the trust file that names it",
  }),
);

const dayMs = 86_400_000;

/** When a root that is made now ends. */
export function expiryAfter(days: number): Date {
  return new Date(Date.now() + days * dayMs);
}

/** Public keys from files, each called as its file is. */
export async function readNamedKeys(paths: readonly string[]): Promise<readonly NamedKey[]> {
  const [{ parsePublicKey }, { readSmallFile }] = await Promise.all([
    import("../release/trust/key.ts"),
    import("../release/trust/small-file.ts"),
  ]);
  return Promise.all(
    paths.map(async (path) => {
      const key = parsePublicKey(String(await readSmallFile(path, "KEY_INVALID")), `"${path}"`);
      const name = basename(path).replace(/\.(pub|pem)$/, "");
      return { key, name: /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name) ? name : undefined };
    }),
  );
}

/** Ids as they are; a file stands for the id of the public key in it. */
export async function readIds(words: readonly string[]): Promise<readonly string[]> {
  return Promise.all(
    words.map(async (word) => {
      if (/^(sha256|oidc):/.test(word)) return word;
      const [named] = await readNamedKeys([word]);
      return named?.key.id ?? "";
    }),
  );
}

/** Numbers by name, of a flag like `--epoch orders=2`. */
export function readCounts(
  texts: Readonly<Record<string, string>>,
  flag: string,
): ReadonlyMap<string, number> {
  return new Map(
    Object.entries(texts).map(([name, text]) => {
      const number = parseCount(text, 1);
      if (number !== undefined) return [name, number];
      throw new RunnerError("USAGE", `--${flag}: expected ${name}=<number>, got ${JSON.stringify(text)}`);
    }),
  );
}

/** The root before a file's own: of the file that is named, or else the one beside it by its name; undefined where there is none. */
export async function readPrevious(
  { path, root }: RootOnDisk,
  named: string | undefined,
): Promise<Root | undefined> {
  const [{ pathBeside, readRootFile }, { existsSync }] = await Promise.all([
    import("../release/root/root-file.ts"),
    import("node:fs"),
  ]);
  const beside = pathBeside(path, root.version - 1);
  const found = named ?? (beside !== undefined && existsSync(beside) ? beside : undefined);
  return found === undefined ? undefined : (await readRootFile(found)).root;
}
