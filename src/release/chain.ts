import { hash } from "node:crypto";

import type { Migration } from "../migration/migration.ts";

/** What one link of the chain binds: a migration's place, label and exact bytes. */
export type ChainLink = Pick<Migration, "seq" | "path" | "sha256" | "size">;

/**
 * The digest before the first migration of a stream, lower-case hex.
 *
 * Chain format v1: `sha256("lockkeeper/chain/v1\n" stream "\n")`.
 */
export function emptyChain(stream: string): string {
  return hash("sha256", `lockkeeper/chain/v1\n${stream}\n`);
}

/**
 * The digest after one more migration: `sha256(previous " " seq " " path " " sha256 " " size "\n")`.
 *
 * No token can hold a space or a newline (labels, digests and numbers are checked where they come in),
 * so two different sequences never feed the same text, and a shell can recompute it.
 */
export function nextChain(previous: string, link: ChainLink): string {
  return hash("sha256", `${previous} ${link.seq} ${link.path} ${link.sha256} ${link.size}\n`);
}

/** Where a sequence ends: so many migrations, and the chain over all of them. One text for everything that may wait for it. */
export interface ChainEnd {
  readonly length: number;
  /** {@link nextChain} of the last, {@link emptyChain} of none; lower-case hex */
  readonly head: string;
}

/** `3:60f4…`, as `wait --expect-chain` takes it. */
export function formatChainEnd({ length, head }: ChainEnd): string {
  return `${length}:${head}`;
}

/** What {@link formatChainEnd} wrote; undefined for any other text. */
export function parseChainEnd(text: string): ChainEnd | undefined {
  const [, length, head] = /^(0|[1-9][0-9]{0,8}):([0-9a-f]{64})$/.exec(text) ?? [];
  return length === undefined || head === undefined ? undefined : { length: Number(length), head };
}
