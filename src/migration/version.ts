/**
 * Orders two versions: negative when `a` comes first, positive when `b` does, 0 when they are the same version.
 *
 * The one comparator of this program. Versions are decimal digit strings of any length, with dots between them in
 * Flyway's folders, and are compared part by part as non-negative integers: `2` before `10`, `1.9` before `1.10`, and `1`,
 * `001` and `1.0` are the same version written three ways.
 */
export function compareVersions(a: string, b: string): number {
  let startA = 0;
  let startB = 0;
  // past its end a version has parts without digits, which count as 0
  while (startA < a.length || startB < b.length) {
    const endA = partEnd(a, startA);
    const endB = partEnd(b, startB);
    const order = compareParts(a, startA, endA, b, startB, endB);
    if (order !== 0) return order;
    startA = endA + 1;
    startB = endB + 1;
  }
  return 0;
}

/** Whether `text` is a version: ASCII digits, or several groups of them with a dot between two. */
export function isVersion(text: string): boolean {
  return /^[0-9]+(\.[0-9]+)*$/.test(text);
}

/** The shortest way to write a version: two of them are equal as texts exactly when `compareVersions` gives 0. */
export function versionKey(version: string): string {
  if (!version.includes(".")) return withoutZeros(version);
  const parts = version.split(".").map(withoutZeros);
  const last = parts.findLastIndex((part) => part !== "0");
  return parts.slice(0, Math.max(last, 0) + 1).join(".");
}

function withoutZeros(digits: string): string {
  return digits.startsWith("0") ? digits.replace(/^0+(?=.)/, "") : digits;
}

function partEnd(version: string, start: number): number {
  const dot = version.indexOf(".", start);
  return dot < 0 ? Math.max(version.length, start) : dot;
}

function compareParts(
  a: string,
  startA: number,
  endA: number,
  b: string,
  startB: number,
  endB: number,
): number {
  const digitsA = firstSignificant(a, startA, endA);
  const digitsB = firstSignificant(b, startB, endB);
  const byLength = endA - digitsA - (endB - digitsB);
  if (byLength !== 0) return byLength;
  for (let i = 0; digitsA + i < endA; i++) {
    const byDigit = a.charCodeAt(digitsA + i) - b.charCodeAt(digitsB + i);
    if (byDigit !== 0) return byDigit;
  }
  return 0;
}

function firstSignificant(version: string, start: number, end: number): number {
  let index = start;
  while (index < end && version.charCodeAt(index) === 0x30) index++;
  return index;
}
