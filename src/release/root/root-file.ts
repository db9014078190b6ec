import { open, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

import { RunnerError } from "../../error.ts";
import { readEnvelopes, signEnvelope } from "../envelope.ts";
import type { Envelope } from "../envelope.ts";
import { assertSigns } from "../review/foreign-bundle.ts";
import type { PublicKey, Signer } from "../trust/key.ts";
import { releaseLimits } from "../limits.ts";
import { readRoot } from "./root.ts";
import type { Root } from "./root.ts";
import { writeRootStatement } from "./root-statement.ts";
import type { RootBytes } from "./root-walk.ts";
import { onlyKeys, signersOf } from "../trust/signers.ts";
import { createFile, readSmallFile } from "../trust/small-file.ts";

/** A root document of somebody's own, and who has signed it so far. */
export interface RootOnDisk extends RootBytes {
  readonly path: string;
  readonly root: Root;
  /** file of the signatures, beside the document; it may not be there yet */
  readonly bundlesPath: string;
  readonly envelopes: readonly Envelope[];
}

/**
 * A root document and its signatures beside it: `2.root.json` and `2.root.sigstore.jsonl`.
 *
 * @throws RunnerError `USAGE` — another name; `ROOT_INVALID` and the codes of a root and an envelope
 * @throws RunnerError `PAYLOAD_DIFFERS` — the signatures are for another document: it was changed after it was signed
 */
export async function readRootFile(path: string): Promise<RootOnDisk> {
  const bundlesPath = bundlesBeside(path);
  const document = await readSmallFile(path, "USAGE");
  const root = readRoot(document, `"${path}"`);
  const bundles = await readBundles(bundlesPath);
  const envelopes = bundles.length === 0 ? [] : readEnvelopes(bundles, `"${bundlesPath}"`);
  if (envelopes.some(({ payload }) => !payload.equals(writeRootStatement(root, document)))) {
    throw new RunnerError("PAYLOAD_DIFFERS", `"${path}" is not what "${bundlesPath}" signs`, {
      hint: `it was changed after it was signed: remove "${bundlesPath}" and let everybody sign again`,
    });
  }
  return { path, root, document, bundlesPath, bundles, envelopes };
}

/** Who signs a root: keys at hand, and lines that another tool made of the same statement. */
export interface RootSignatures {
  readonly keys: readonly Signer[];
  /** bundles as other tools wrote them, each of one line, with the name of its file */
  readonly bundles: readonly { readonly line: string; readonly what: string }[];
}

/**
 * Adds signatures to those beside a root document; a key that has signed it does not sign again. A line that only claims to
 * be of that key keeps nobody's signature away: the file comes from whoever signed before.
 *
 * @param known - the keys of the root role, and of the root before: of these a bundle has to hold a good signature
 * @returns how many lines were added
 * @throws RunnerError `TOO_LARGE` — more signatures than a root may carry; `PAYLOAD_DIFFERS`, `BUNDLE` — a bundle signs something
 * else, or badly; the codes of the keys
 */
export async function signRootFile(
  { root, document, bundles, bundlesPath, envelopes }: RootOnDisk,
  signatures: RootSignatures,
  known: readonly PublicKey[],
  signal: AbortSignal,
): Promise<number> {
  const payload = writeRootStatement(root, document);
  const keys = [...new Map(signatures.keys.map((key) => [key.public.id, key])).values()].filter(
    (key) => signersOf(envelopes, onlyKeys([key.public])).length === 0,
  );
  const made = await Promise.all(keys.map((key) => signEnvelope(payload, key, signal)));
  for (const { line, what } of signatures.bundles) assertSigns(line, payload, onlyKeys(known), what);
  const present = new Set(bundles.toString().split("\n"));
  const signed = new Set(signersOf(envelopes, onlyKeys(known)));
  const foreign = signatures.bundles
    .map(({ line }) => line)
    .filter((line) => {
      const [signer] = signersOf(readEnvelopes(Buffer.from(line)), onlyKeys(known));
      return !present.has(line) && (signer === undefined || !signed.has(signer));
    });
  const lines = [...made, ...foreign];
  if (lines.length === 0) return 0;
  const before = bundles.length === 0 || bundles.at(-1) === 0x0a ? "" : "\n";
  const joined = Buffer.concat([
    bundles,
    Buffer.from(`${before}${lines.map((line) => `${line}\n`).join("")}`),
  ]);
  // a file that nobody could read is not written
  readEnvelopes(joined, `"${bundlesPath}"`);
  await replaceFile(bundlesPath, joined);
  return lines.length;
}

/** Where the root before a document is, by their names: `1.root.json` beside `2.root.json`; undefined where names do not tell. */
export function pathBeside(path: string, version: number): string | undefined {
  const name = /^\d+(\.root\.json)$/.exec(basename(path));
  return name === null ? undefined : join(dirname(path), `${version}${name[1] ?? ""}`);
}

/**
 * Creates a root document; replaces nothing.
 *
 * @throws RunnerError `USAGE` — the file is there already, is not named as a root, or cannot be written
 */
export async function createRootFile(path: string, document: Buffer): Promise<void> {
  bundlesBeside(path);
  await createFile(path, document, {
    code: "USAGE",
    mode: 0o644,
    whyNot:
      "a root is never replaced, it is followed by the next one: choose another name, or remove a draft that nobody needs",
  });
}

const documentEnd = ".json";

/** Signatures are found by the document's name, so it has to be one that says what it is. */
function bundlesBeside(path: string): string {
  if (path.endsWith(documentEnd)) return `${path.slice(0, -documentEnd.length)}.sigstore.jsonl`;
  throw new RunnerError("USAGE", `"${path}" is not named as a root document`, {
    hint: "name it after its version: 1.root.json",
  });
}

async function readBundles(path: string): Promise<Buffer> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size <= releaseLimits.releaseBytes) return await file.readFile();
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return Buffer.alloc(0);
    throw new RunnerError("USAGE", `cannot read "${path}"`, { hint: "check who may read it", cause });
  }
  throw new RunnerError("TOO_LARGE", `"${path}" has more than ${releaseLimits.releaseBytes} bytes`);
}

/** In one step, so that no signature of somebody else is lost half way. */
async function replaceFile(path: string, bytes: Buffer): Promise<void> {
  const beside = join(dirname(path), `.${basename(path)}.${process.pid}`);
  try {
    await using file = await open(beside, "w", 0o644);
    await file.writeFile(bytes);
    await rename(beside, path);
  } catch (cause) {
    throw new RunnerError("USAGE", `cannot write "${path}"`, { hint: "check who may write it", cause });
  }
}
