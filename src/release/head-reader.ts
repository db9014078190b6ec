import type { Source } from "../source/source.ts";
import { readHead, type Head } from "./head.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";

/** How long `fetch` may go on from what `head` has just been told, instead of asking the bucket again. */
const headReuseMs = 10_000;

/** Remembers the state of `head.json`, so that asking again costs an answer without a body. */
export class HeadReader {
  readonly #source: Source;
  #last: { readonly version: string; readonly head: Head } | undefined;
  /** what `read` found, for the `take` that follows it in the same run */
  #fresh: { readonly head: Head | undefined; readonly at: number } | undefined;

  constructor(source: Source) {
    this.#source = source;
  }

  async read(signal: AbortSignal): Promise<Head | undefined> {
    const last = this.#last;
    const object = await this.#source.readIfChanged(
      layout.head,
      last?.version,
      { maxBytes: releaseLimits.headBytes },
      signal,
    );
    if (object === undefined) this.#last = undefined;
    else if (object !== "unchanged") this.#last = { version: object.version, head: readHead(object.bytes) };
    const head = object === "unchanged" ? last?.head : this.#last?.head;
    this.#fresh = { head, at: performance.now() };
    return head;
  }

  /** As `read`, without a request where one was made just before; each answer is taken once. */
  async take(signal: AbortSignal): Promise<Head | undefined> {
    const fresh = this.#fresh;
    const isRecent = fresh !== undefined && performance.now() - fresh.at < headReuseMs;
    const head = isRecent ? fresh.head : await this.read(signal);
    this.#fresh = undefined;
    return head;
  }
}
