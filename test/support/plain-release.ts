import { analyzeUnsigned } from "../../src/migration/analyze.ts";
import { analyzeCommands } from "../../src/migration/mongo/analyze-commands.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import type { Body, Migration } from "../../src/migration/migration.ts";
import { emptyChain, nextChain } from "../../src/release/chain.ts";
import type { Release, ReleaseProvider } from "../../src/release/release.ts";

/** One migration of a release made in memory. */
export interface MigrationText {
  /** `1_users.up.sql`; `.json` for a body of MongoDB's commands */
  readonly path: string;
  readonly up: string | Buffer;
  readonly down?: string | Buffer;
  readonly checkpoint?: string;
}

/** A release whose bodies are at hand. */
export interface MadeRelease {
  readonly release: Release;
  readonly bodies: ReadonlyMap<string, Buffer>;
}

/** Migrations as a release, analysed by the product's own analysis; nothing of a bucket takes part. */
export async function makeRelease(
  texts: readonly MigrationText[],
  repeatableTexts: readonly Pick<MigrationText, "path" | "up">[] = [],
): Promise<MadeRelease> {
  const stream = "orders";
  const bodies = new Map<string, Buffer>();
  const body = async (path: string, text: string | Buffer): Promise<Body> => {
    const bytes = Buffer.from(text);
    const sha256 = sha256Hex(bytes);
    bodies.set(sha256, bytes);
    const { tx, alone, locks, statements } = path.endsWith(".json")
      ? analyzeCommands(bytes, path)
      : await analyzeUnsigned(bytes, path);
    return {
      path,
      sha256,
      size: bytes.length,
      tx,
      alone,
      locks,
      ...(statements === undefined ? {} : { statements }),
    };
  };
  const migrations: Migration[] = [];
  let chain = emptyChain(stream);
  for (const [index, { path, up, down, checkpoint }] of texts.entries()) {
    const seq = index + 1;
    const upBody = await body(path, up);
    chain = nextChain(chain, { seq, path, sha256: upBody.sha256, size: upBody.size });
    const downBody = down === undefined ? {} : { down: await body(path.replace(".up.", ".down."), down) };
    const startBody =
      checkpoint === undefined
        ? {}
        : { checkpoint: await body(path.replace(".up.", ".checkpoint."), checkpoint) };
    migrations.push({
      ...upBody,
      seq,
      version: path.split("_")[0] ?? path,
      chain,
      ...downBody,
      ...startBody,
    });
  }
  const repeatable = await Promise.all(repeatableTexts.map(({ path, up }) => body(path, up)));
  const release: Release = {
    kind: "plain",
    stream,
    engine: texts.some(({ path }) => path.endsWith(".json")) ? "mongodb" : "postgres",
    digest: `plain:${sha256Hex([chain, ...repeatable.map(({ sha256 }) => sha256)].join())}`,
    migrations,
    repeatable,
    signers: [],
    warnings: [],
  };
  return { release, bodies };
}

/** A provider of releases that a test can exchange while it is in use, and that counts what it is asked. */
export interface HeldReleases extends ReleaseProvider {
  current: MadeRelease;
  readonly asked: { head: number; fetch: number; bodies: number };
}

/** Provides `made`, until `current` is given another. */
export function provide(made: MadeRelease): HeldReleases {
  const asked = { head: 0, fetch: 0, bodies: 0 };
  return {
    kind: made.release.kind,
    stream: made.release.stream,
    url: "memory",
    current: made,
    asked,
    head() {
      asked.head += 1;
      return Promise.resolve(undefined);
    },
    fetch() {
      asked.fetch += 1;
      return Promise.resolve(this.current.release);
    },
    bodies() {
      asked.bodies += 1;
      return Promise.resolve(this.current.bodies);
    },
  };
}
