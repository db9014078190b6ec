import type { Random } from "../crash/random.ts";

/** No input is larger: what every bound of time is said for. */
const maxInputBytes = 65_536;

/**
 * Another input, near to one of the corpus: flipped and cut like a broken line, and spliced, nested, doubled and
 * re-encoded like one that somebody made on purpose.
 */
export function mutate(random: Random, corpus: readonly Buffer[], words: readonly string[]): Buffer {
  let input = random.pick(corpus);
  const count = random.weighted({ one: 5, two: 3, five: 1 });
  for (let left = { one: 1, two: 2, five: 5 }[count]; left > 0; left--) {
    input = mutations[random.weighted(weights)](random, input, corpus, words).subarray(0, maxInputBytes);
  }
  return input;
}

const weights = {
  flip: 6,
  replaceByte: 4,
  cut: 3,
  remove: 4,
  double: 3,
  insert: 6,
  splice: 3,
  number: 5,
  string: 4,
  member: 4,
  nest: 2,
  base64: 5,
  line: 3,
  fill: 0.25,
};

type Mutation = (
  random: Random,
  input: Buffer,
  corpus: readonly Buffer[],
  words: readonly string[],
) => Buffer;

const bytes = [
  0, 9, 10, 13, 32, 34, 35, 36, 39, 45, 46, 47, 48, 58, 59, 61, 91, 92, 93, 123, 125, 127, 128, 192, 237, 255,
];
const numbers = [
  "0",
  "-0",
  "-1",
  "1.0",
  "1e2",
  "1E400",
  "0x10",
  "00",
  "9007199254740991",
  "9007199254740992",
  "2147483648",
  "4294967296",
  "99999999999999999999999999",
  "1_0",
  "NaN",
  '"1"',
];
const texts = [
  "\ufeff",
  "\u0000",
  "\u202e",
  "\u2028",
  "e\u0301",
  "\u0435",
  "\ud83d\ude00",
  "\\ud800",
  "\\u0000",
  "__proto__",
  "constructor",
  "../",
  "..\\",
  "/etc/passwd",
  "CON",
  "%2e%2e",
  "${x}",
  "{{x}}",
  "$1",
  "--",
  "/*",
  "*/",
  "//",
  "'",
  "''",
  '"',
  "`",
  "\\",
  "\r\n",
  "\n",
  "\r",
  "\t",
  " ",
  "  ",
  "null",
  "true",
  "{}",
  "[]",
  "=",
  "==",
  "-----BEGIN ",
  "&a",
  "*a",
  "<<: ",
  "!!",
  "|",
  ">",
  "$$",
  "$a$",
  "BEGIN;",
  "COMMIT",
  "https://169.254.169.254/",
  "a".repeat(300),
  "\u{10ffff}",
];
const base64Run = /[A-Za-z0-9+/_-]{16,}={0,2}/g;

const mutations: Readonly<Record<keyof typeof weights, Mutation>> = {
  flip: (random, input) => {
    const flipped = Buffer.from(input);
    if (flipped.length === 0) return flipped;
    const at = random.integer(0, flipped.length - 1);
    flipped[at] = (flipped[at] ?? 0) ^ (1 << random.integer(0, 7));
    return flipped;
  },
  replaceByte: (random, input) => {
    const changed = Buffer.from(input);
    if (changed.length > 0) changed[random.integer(0, changed.length - 1)] = random.pick(bytes);
    return changed;
  },
  cut: (random, input) =>
    random.chance(0.5)
      ? input.subarray(0, random.integer(0, input.length))
      : input.subarray(random.integer(0, input.length)),
  remove: (random, input) => {
    const [start, end] = range(random, input);
    return Buffer.concat([input.subarray(0, start), input.subarray(end)]);
  },
  double: (random, input) => {
    const [start, end] = range(random, input);
    return Buffer.concat([input.subarray(0, end), input.subarray(start)]);
  },
  insert: (random, input, _, words) => {
    const at = random.integer(0, input.length);
    const text = words.length > 0 && random.chance(0.5) ? random.pick(words) : random.pick(texts);
    return Buffer.concat([input.subarray(0, at), Buffer.from(text), input.subarray(at)]);
  },
  splice: (random, input, corpus) => {
    const other = random.pick(corpus);
    return Buffer.concat([
      input.subarray(0, random.integer(0, input.length)),
      other.subarray(random.integer(0, other.length)),
    ]);
  },
  number: (random, input) => replaceOne(random, input, /-?\d+/g, () => random.pick(numbers)),
  string: (random, input, _, words) =>
    replaceOne(random, input, /"[^"\n]{0,200}"/g, (_, all) =>
      random.chance(0.4)
        ? random.pick(all)
        : `"${random.pick(random.chance(0.5) && words.length > 0 ? words : texts)}"`,
    ),
  member: (random, input) =>
    replaceOne(random, input, /"[^"\n]{1,60}"\s*:/g, (name) => {
      const escaped = `"\\u${name.charCodeAt(1).toString(16).padStart(4, "0")}${name.slice(2)}`;
      return `${random.chance(0.5) ? name : escaped}${random.pick([...numbers, "null", "[]", "{}"])},${name}`;
    }),
  nest: (random, input) => {
    const [start, end] = range(random, input);
    const depth = random.pick([1, 15, 17, 200, 5_000]);
    const [open, close] = random.pick([
      ["[", "]"],
      ['{"a":', "}"],
      ["(", ")"],
      ["/*", "*/"],
      ["- ", ""],
    ] as const);
    const most = Math.floor((maxInputBytes - input.length) / (open.length + close.length + 1));
    const times = Math.max(0, Math.min(depth, most));
    return Buffer.concat([
      input.subarray(0, start),
      Buffer.from(open.repeat(times)),
      input.subarray(start, end),
      Buffer.from(close.repeat(times)),
      input.subarray(end),
    ]);
  },
  base64: (random, input, corpus, words) =>
    replaceOne(random, input, base64Run, (run) => {
      const alphabet = /[-_]/.test(run) ? "base64url" : "base64";
      if (random.chance(0.3)) return respelled(random, run);
      const inner =
        mutations[random.pick(["flip", "number", "member", "insert", "remove", "string"] as const)];
      return inner(random, Buffer.from(run, alphabet), corpus, words).toString(alphabet);
    }),
  line: (random, input) => {
    const lines = input.toString("latin1").split("\n");
    const [from, to] = [random.integer(0, lines.length - 1), random.integer(0, lines.length - 1)];
    const line = lines[from] ?? "";
    if (random.chance(0.5)) lines.splice(from, 1);
    if (random.chance(0.7)) lines.splice(to, 0, line);
    return Buffer.from(lines.join("\n"), "latin1");
  },
  // the whole of what is allowed, in one piece many times over: what takes more than its share of time shows here
  fill: (random, input) => {
    const [start, end] = range(random, input);
    const piece = end > start ? input.subarray(start, end) : Buffer.from("a");
    const times = Math.floor((maxInputBytes - input.length) / piece.length);
    const filling = Array.from<Buffer>({ length: Math.max(0, times) }).fill(piece);
    return Buffer.concat([input.subarray(0, end), ...filling, input.subarray(end)]);
  },
};

/** The same bytes to a lenient reader, written otherwise. */
function respelled(random: Random, run: string): string {
  const at = random.integer(0, run.length);
  return random.pick([
    `${run.slice(0, at)}\\n${run.slice(at)}`,
    `${run.slice(0, at)} ${run.slice(at)}`,
    run.replace(/=+$/, ""),
    `${run}=`,
    run.replace(/[A-Za-z](=+)$/, "B$1"),
    run.replaceAll("+", "-").replaceAll("/", "_"),
    `${run.slice(0, at)}*${run.slice(at)}`,
  ]);
}

function range(random: Random, input: Buffer): readonly [number, number] {
  const start = random.integer(0, input.length);
  const longest = random.pick([1, 4, 16, 64, input.length]);
  return [start, Math.min(input.length, start + random.integer(0, longest))];
}

/** One match, replaced; bytes that are no UTF-8 stay as they are. */
function replaceOne(
  random: Random,
  input: Buffer,
  pattern: RegExp,
  replacement: (match: string, all: readonly string[]) => string,
): Buffer {
  const text = input.toString("latin1");
  const matches = [...text.matchAll(pattern)];
  if (matches.length === 0) return input;
  const { 0: found, index } = random.pick(matches);
  const written = replacement(
    found,
    matches.map(([match]) => match),
  );
  return Buffer.concat([
    input.subarray(0, index),
    Buffer.from(written, isLatin(written) ? "latin1" : "utf8"),
    input.subarray(index + found.length),
  ]);
}

function isLatin(text: string): boolean {
  for (let at = 0; at < text.length; at++) if (text.charCodeAt(at) > 255) return false;
  return true;
}
