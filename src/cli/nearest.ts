/**
 * The one of `names` that `written` was most likely meant to be; `undefined` when none is near.
 *
 * Near is at most two slips (a letter more, less, other, or two swapped), fewer in a short word, case aside.
 */
export function nearest(written: string, names: readonly string[]): string | undefined {
  const word = written.toLowerCase().slice(0, 64);
  let best: string | undefined;
  let bestSlips = Math.max(1, Math.min(2, Math.floor(word.length / 3))) + 1;
  for (const name of names) {
    const slips = countSlips(word, name.toLowerCase());
    if (slips < bestSlips) {
      best = name;
      bestSlips = slips;
    }
  }
  return best;
}

/** Optimal string alignment distance of two words. */
function countSlips(a: string, b: string): number {
  const width = b.length + 1;
  const table = new Uint16Array((a.length + 1) * width);
  const at = (row: number, column: number): number => table[row * width + column] ?? 0;
  for (let row = 0; row <= a.length; row++) {
    for (let column = 0; column <= b.length; column++) {
      if (row === 0 || column === 0) {
        table[row * width + column] = row + column;
        continue;
      }
      const isSame = a[row - 1] === b[column - 1];
      let slips = Math.min(
        at(row - 1, column) + 1,
        at(row, column - 1) + 1,
        at(row - 1, column - 1) + (isSame ? 0 : 1),
      );
      const isSwapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (isSwapped) slips = Math.min(slips, at(row - 2, column - 2) + 1);
      table[row * width + column] = slips;
    }
  }
  return at(a.length, b.length);
}
