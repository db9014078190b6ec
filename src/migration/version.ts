/**
 * Orders two versions: negative when `a` comes first, positive when `b` does, 0 when they are the same version.
 *
 * The one comparator of this program. Versions are decimal digit strings of any length, compared as non-negative
 * integers: `2` before `10`, and `1`, `01` and `001` are the same version written three ways.
 */
export function compareVersions(a: string, b: string): number {
  const startA = firstSignificant(a);
  const startB = firstSignificant(b);
  const byLength = a.length - startA - (b.length - startB);
  if (byLength !== 0) return byLength;
  for (let i = 0; startA + i < a.length; i++) {
    const byDigit = a.charCodeAt(startA + i) - b.charCodeAt(startB + i);
    if (byDigit !== 0) return byDigit;
  }
  return 0;
}

/** Whether `text` is a version: one or more ASCII digits, nothing else. */
export function isVersion(text: string): boolean {
  return /^[0-9]+$/.test(text);
}

function firstSignificant(version: string): number {
  let index = 0;
  while (index < version.length && version.charCodeAt(index) === 0x30) index++;
  return index;
}
