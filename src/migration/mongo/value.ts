/**
 * A value of a MongoDB command as its file wrote it: keys in order and as often as they stand there, numbers with the
 * type that they have on the wire. Nothing of the `bson` package: the driver turns it into what is sent.
 */
export type Value =
  | { readonly kind: "document"; readonly entries: readonly Entry[] }
  | { readonly kind: "array"; readonly items: readonly Value[] }
  | { readonly kind: "string" | "symbol"; readonly text: string }
  | { readonly kind: "boolean"; readonly value: boolean }
  | { readonly kind: "null" | "undefined" | "minKey" | "maxKey" }
  | { readonly kind: "int32" | "double"; readonly value: number }
  | { readonly kind: "int64"; readonly value: bigint }
  /** as written: `1.10`, `NaN`, `-Infinity` */
  | { readonly kind: "decimal128"; readonly text: string }
  /** 24 lower-case hex digits */
  | { readonly kind: "objectId"; readonly hex: string }
  /** milliseconds since 1970 */
  | { readonly kind: "date"; readonly ms: bigint }
  | { readonly kind: "binary"; readonly bytes: Buffer; readonly subType: number }
  | { readonly kind: "regex"; readonly pattern: string; readonly options: string }
  | { readonly kind: "timestamp"; readonly seconds: number; readonly increment: number }
  | { readonly kind: "code"; readonly text: string; readonly scope: DocumentValue | undefined };

/** One field of a document. */
export type Entry = readonly [key: string, value: Value];

/** A document: a command, or a part of one. */
export type DocumentValue = Extract<Value, { kind: "document" }>;

/** One command of a body. */
export interface Command {
  /** its first key: `createIndexes` */
  readonly name: string;
  readonly document: DocumentValue;
  /** first byte in the body */
  readonly offset: number;
  /** bytes */
  readonly length: number;
  /** of the file, from 1 */
  readonly line: number;
}
