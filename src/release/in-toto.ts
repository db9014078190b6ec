import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { releaseLimits } from "./limits.ts";
import { check, sha256Text } from "./schema.ts";
import { parseStrictJson } from "./strict-json.ts";

const statementType = "https://in-toto.io/Statement/v1";

/** An in-toto Statement about one file: what every signature here is over. */
export interface InToto<P> {
  /** name of the file, for people */
  readonly subject: string;
  /** of the file's bytes, hex */
  readonly sha256: string;
  /** what kind of thing is said, so that nothing signed as one kind passes for another */
  readonly predicateType: string;
  readonly predicate: P;
}

/** The bytes to sign. One line; equal statements give equal bytes. */
export function writeInToto({ subject, sha256, predicateType, predicate }: InToto<object>): Buffer {
  const file = { name: subject, digest: { sha256 } };
  return Buffer.from(JSON.stringify({ _type: statementType, subject: [file], predicateType, predicate }));
}

/**
 * A payload whose signatures were counted → what it says, if it is of the kind that is asked for.
 *
 * @param asked.what - names the text in messages: `the signed statement`
 * @param asked.kind - what was wanted, as messages say it: `a release`
 * @throws RunnerError `JSON_…`, `PREDICATE_TYPE` — signed by a trusted key, but to say something else; `SCHEMA`
 */
export function readInToto<S extends v.GenericSchema<unknown, object>>(
  payload: Uint8Array,
  asked: {
    readonly what: string;
    readonly kind: string;
    readonly predicateType: string;
    readonly predicate: S;
  },
): InToto<v.InferOutput<S>> {
  const { what, predicateType } = asked;
  const value = parseStrictJson(payload, what, releaseLimits.bundleBytes);
  const said = check(v.looseObject({ predicateType: v.string() }), value, what);
  if (said.predicateType !== predicateType) {
    throw new RunnerError("PREDICATE_TYPE", `what was signed is not ${asked.kind}`, {
      fields: { expected: predicateType },
    });
  }
  const { subject, predicate } = check(statementSchema, value, what);
  const [{ name, digest }] = subject;
  return {
    subject: name,
    sha256: digest.sha256,
    predicateType,
    predicate: check(asked.predicate, predicate, `the predicate of ${what}`),
  };
}

const statementSchema = v.strictObject({
  // cosign attest-blob --predicate writes v0.1
  _type: v.picklist([statementType, "https://in-toto.io/Statement/v0.1"]),
  subject: v.strictTuple([
    v.strictObject({ name: v.string(), digest: v.strictObject({ sha256: sha256Text }) }),
  ]),
  predicateType: v.string(),
  predicate: v.unknown(),
});
