import * as v from "valibot";

import { RunnerError } from "../error.ts";
import type { AuditLink } from "../history/audit.ts";
import { parseJson } from "./read.ts";
import { broken } from "./verify.ts";

const linkSchema = v.object({
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  sha256: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
});

/** A line of a server's log, of `audit show --output json`, or the JSON result of a run. */
const lineSchema = v.union([
  v.object({ ...linkSchema.entries, target: v.optional(v.string()) }),
  v.object({ audit: linkSchema, target: v.optional(v.string()) }),
]);

/** Links that are kept in memory at once. */
const maxLinks = 1_000_000;

/** Links of one audit log that were written down elsewhere, by their numbers. */
export class ExpectedLinks {
  readonly #links = new Map<number, string>();
  readonly #target: string | undefined;

  /** @param target - lines that name another one are of no interest */
  constructor(target: string | undefined) {
    this.#target = target;
  }

  get links(): ReadonlyMap<number, string> {
    return this.#links;
  }

  /**
   * `SEQ:SHA256`
   *
   * @throws RunnerError `USAGE` - it is not one; `AUDIT_BROKEN` - as of {@link addLine}
   */
  add(written: string): void {
    const [, seq = "", sha256 = ""] = /^([1-9][0-9]{0,15}):([0-9a-f]{64})$/.exec(written) ?? [];
    if (sha256 === "") {
      throw new RunnerError("USAGE", `--expect: "${written.slice(0, 100)}" is not an entry and its digest`, {
        hint: "write SEQ:SHA256, for instance 42:9f86d0…, as `lockkeeper audit verify` prints its head",
      });
    }
    this.#put({ seq: Number(seq), sha256 });
  }

  /**
   * A line of a log; one that says nothing of an audit log is passed over.
   *
   * @throws RunnerError `AUDIT_BROKEN` - two lines give the same entry different digests: it was written anew between them
   */
  addLine(line: string): void {
    const parsed = v.safeParse(lineSchema, parseJson(line));
    if (!parsed.success) return;
    const { target } = parsed.output;
    if (this.#target !== undefined && target !== undefined && target !== this.#target) return;
    this.#put("audit" in parsed.output ? parsed.output.audit : parsed.output);
  }

  #put({ seq, sha256 }: AuditLink): void {
    const known = this.#links.get(seq);
    if (known !== undefined && known !== sha256) {
      throw broken("rewritten", seq, `entry ${seq} was written down with two different digests`, {
        expected: known,
        actual: sha256,
      });
    }
    if (known === undefined && this.#links.size >= maxLinks) {
      throw new RunnerError("TOO_LARGE", `more than ${maxLinks} entries of the audit log are expected`, {
        hint: "give the log in parts",
      });
    }
    this.#links.set(seq, sha256);
  }
}
