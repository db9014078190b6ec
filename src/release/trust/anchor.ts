import { RunnerError } from "../../error.ts";
import type { Source } from "../../source/source.ts";
import type { Trust } from "./trust.ts";

/** What a runner's own deployment pins: keys and identities themselves, or a root that names them and its own successors. */
export type TrustAnchor = Trust | ManagedTrust;

/** Trust by a root document (trust.md 2.6), which threshold of its own keys may replace. */
export interface ManagedTrust {
  readonly kind: "managed";
  /**
   * Walks from the newest root that is known to the newest that the bucket has, and says whom it trusts for one stream and environment.
   *
   * @throws RunnerError `ROOT_…`, `SOURCE_…`, `TRUST_INVALID` — the root says nothing of this stream and environment
   */
  resolve(question: TrustQuestion, signal: AbortSignal): Promise<ResolvedTrust>;
}

/** Where and for whom trust is asked. */
export interface TrustQuestion {
  readonly source: Source;
  readonly stream: string;
  readonly environment: string;
  readonly known: KnownRoots;
  /** read once per run */
  readonly now: Date;
}

/** What a database remembers of roots. */
export interface KnownRoots {
  /** the highest that was ever in use; a lower one is refused */
  readonly version: number | null;
  /** those after the pinned one, each proven again before it is believed; asked for only in managed trust */
  files(): Promise<readonly RootFile[]>;
}

/** One version of the root with its signatures, as the bucket has them. */
export interface RootFile {
  readonly version: number;
  /** exact bytes of the document, UTF-8 */
  readonly document: string;
  /** exact bytes of its signatures, one bundle a line */
  readonly bundles: string;
}

/** Trust as of now. */
export interface ResolvedTrust {
  readonly trust: Trust;
  /** null for fixed trust */
  readonly root: RootState | null;
}

/** The root in use, and what a database should remember of it. */
export interface RootState {
  readonly version: number;
  /** every one after the pinned one */
  readonly files: readonly RootFile[];
}

/** Nothing is remembered: for whoever looks at a release without a database. */
export const noKnownRoots: KnownRoots = { version: null, files: () => Promise.resolve([]) };

/**
 * Trust as of now; a fixed one is what it is.
 *
 * @throws RunnerError `ROOT_ROLLBACK` — see {@link assertRootKnown}; for managed trust see {@link ManagedTrust.resolve}
 */
export async function resolveTrust(
  anchor: TrustAnchor,
  question: TrustQuestion,
  signal: AbortSignal,
): Promise<ResolvedTrust> {
  if (anchor.kind === "managed") return anchor.resolve(question, signal);
  assertRootKnown(null, question.known.version);
  return { trust: anchor, root: null };
}

/**
 * A database never goes back behind a root that a release was begun under, also not to keys that its runner pins itself:
 * a deployment that was forgotten could still pin those that the root has withdrawn since.
 *
 * @throws RunnerError `ROOT_ROLLBACK`
 */
export function assertRootKnown(root: Pick<RootState, "version"> | null, known: number | null): void {
  if (known === null || (root !== null && root.version >= known)) return;
  const used = root === null ? "the trust here pins keys, no root" : `root ${root.version} is older`;
  throw new RunnerError("ROOT_ROLLBACK", `${used}, and this database knows root ${known}`, {
    hint: "publish the newest root again, or pin it; lockkeeper trust reset forgets what the database knows",
    fields: { version: root?.version ?? null, known },
  });
}
